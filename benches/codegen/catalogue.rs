//! The calls that the gate covers: public launch functions at the shapes of training, small, typical and odd.
//!
//! To cover a new kernel, add a call to its operation's function here. Buffers of a card on paper take no memory, so shapes are
//! real ones.

use internevo_kernels::cube::recorder::Card;
use internevo_kernels::cube::{BF16, Buffer, Client, ElemType, F16, F32, cast, reduce::column_sums};
use internevo_kernels::rms_norm;

use crate::rules::Rules;

/// One call of a launch function.
pub struct Call {
    /// The function, `rms_norm forward`.
    pub name: String,
    /// Type of its tensors.
    pub elem: ElemType,
    /// Its sizes, `16384×4096`.
    pub shape: String,
    /// Cards it is checked on.
    pub cards: Vec<Card>,
    /// What is demanded of its kernels.
    pub rules: Rules,
    /// The call.
    pub run: Box<dyn Fn(&Client)>,
}

/// The calls, in the order of the table.
#[derive(Default)]
pub struct Catalogue {
    /// What was added.
    pub calls: Vec<Call>,
}

impl Catalogue {
    /// Every call of this crate's kernels.
    pub fn complete() -> Self {
        let mut catalogue = Self::default();
        for elem in [BF16, F16, F32] {
            casts(&mut catalogue, elem);
            rms_norms(&mut catalogue, elem);
        }
        sums(&mut catalogue);
        catalogue
    }

    /// Adds a call, checked on every card for bf16 and on Hopper otherwise: the types differ in conversions only.
    pub fn add(
        &mut self,
        name: &str,
        elem: ElemType,
        shape: impl Into<String>,
        rules: Rules,
        run: impl Fn(&Client) + 'static,
    ) {
        let cards = if elem == BF16 { Card::ALL.to_vec() } else { vec![Card::Hopper] };
        self.calls.push(Call { name: name.to_owned(), elem, shape: shape.into(), cards, rules, run: Box::new(run) });
    }
}

/// Rows and widths: a smoke test's, an 8B model's micro-batch, rows that no vector divides.
fn shapes(elem: ElemType) -> &'static [(usize, usize)] {
    match elem {
        F16 => &[(16384, 4096)],
        _ => &[(64, 64), (16384, 4096), (333, 1001)],
    }
}

fn rms_norms(catalogue: &mut Catalogue, elem: ElemType) {
    for &(rows, width) in shapes(elem) {
        let shape = format!("{rows}×{width}");
        let rules = Rules::streaming().wide("forward_kernel", elem, width);
        catalogue.add("rms_norm forward", elem, &shape, rules, move |client| {
            let (x, weight) = (Buffer::empty(client, rows * width, elem), Buffer::empty(client, width, elem));
            rms_norm::cube::forward(client, &x, &weight, 1e-5);
        });
        let rules = Rules::streaming().wide("backward_kernel", elem, width);
        catalogue.add("rms_norm backward", elem, &shape, rules, move |client| {
            let [x, dy] = [(); 2].map(|()| Buffer::empty(client, rows * width, elem));
            let (weight, rstd) = (Buffer::empty(client, width, elem), Buffer::empty(client, rows, F32));
            rms_norm::cube::backward(client, &x, &weight, &rstd, &dy);
        });
    }
}

fn casts(catalogue: &mut Catalogue, elem: ElemType) {
    if elem == F32 {
        return;
    }
    for (from, to) in [(F32, elem), (elem, F32)] {
        let rules = Rules::streaming().wide("cast_kernel", F32, 1 << 28);
        let shape = format!("{} from {}", 1 << 28, crate::table::type_name(from));
        catalogue.add("cast", to, shape, rules, move |client| {
            cast(client, &Buffer::empty(client, 1 << 28, from), to);
        });
    }
}

fn sums(catalogue: &mut Catalogue) {
    for width in [4096, 1001] {
        catalogue.add("column_sums", F32, format!("264×{width}"), Rules::streaming(), move |client| {
            column_sums(client, &Buffer::empty(client, 264 * width, F32), width);
        });
    }
}
