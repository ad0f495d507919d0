//! Calls of the GPU kernels' launch functions at the shapes of training: one list for the codegen gate, which runs them on a
//! card on paper, and for the bench on a GPU, which times them.
//!
//! To cover a new kernel, add a call to [`list`]. A card on paper has all the memory in the world, so shapes are real ones.

mod inputs;
mod list;
mod rules;

pub use inputs::Inputs;
pub use list::complete;
pub use rules::{Rules, Tensor};

use internevo_kernels::cube::{BF16, Client, ElemType, F16, F32};

/// A launch function with its inputs.
pub type Prepared = Box<dyn Fn(&Client)>;

/// One call of a launch function.
pub struct Call {
    /// The function, `rms_norm forward`.
    pub name: String,
    /// Type of its tensors.
    pub elem: ElemType,
    /// Its sizes, `16384×4096`.
    pub shape: String,
    /// What is demanded of the machine code of its kernels.
    pub rules: Rules,
    /// Compute capabilities it is meant for: 80, 90, 100.
    pub capabilities: Vec<u32>,
    /// What it must at least do, if it is to be timed.
    pub cost: Option<Cost>,
    /// Makes the inputs once.
    pub prepare: Box<dyn Fn(&Inputs) -> Prepared>,
}

/// What a call must do, however it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Bytes read and written: each input and each output once.
    pub bytes: f64,
    /// Multiplications and additions in matrix products.
    pub flops: f64,
}

impl Call {
    /// Times the call on a GPU, as one that moves this many bytes. Too few of them measure the cache: such a call is not timed.
    pub fn moves(&mut self, bytes: usize) -> &mut Self {
        const CACHES: usize = 200 << 20;
        if bytes > CACHES {
            self.timed(Cost { bytes: bytes as f64, flops: 0.0 });
        }
        self
    }

    /// Times the call on a GPU, as one that computes this much.
    pub fn computes(&mut self, flops: f64) -> &mut Self {
        self.timed(Cost { bytes: 0.0, flops });
        self
    }

    /// Times the call on a GPU, unless it is one in f16, which takes as long as in bf16.
    fn timed(&mut self, cost: Cost) {
        self.cost = (self.elem != F16).then_some(cost);
    }

    /// Names the only cards the call is meant for.
    pub fn only_on(&mut self, capabilities: &[u32]) -> &mut Self {
        self.capabilities = capabilities.to_vec();
        self
    }
}

/// The calls, in the order of the tables.
#[derive(Default)]
pub struct Calls(pub Vec<Call>);

impl Calls {
    /// Adds a call. For bf16 it is checked on every card, for other types on Hopper: they differ in conversions only.
    pub fn add<Run: Fn(&Client) + 'static>(
        &mut self,
        name: &str,
        elem: ElemType,
        shape: impl Into<String>,
        rules: Rules,
        prepare: impl Fn(&Inputs) -> Run + 'static,
    ) -> &mut Call {
        self.0.push(Call {
            name: name.to_owned(),
            elem,
            shape: shape.into(),
            rules,
            capabilities: if elem == BF16 { vec![80, 90, 100] } else { vec![90] },
            cost: None,
            prepare: Box::new(move |inputs| Box::new(prepare(inputs))),
        });
        self.0.last_mut().expect("just added")
    }
}

/// `bf16`.
pub fn type_name(elem: ElemType) -> &'static str {
    match elem {
        F32 => "f32",
        F16 => "f16",
        BF16 => "bf16",
        _ => "other",
    }
}
