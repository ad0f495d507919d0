//! A network in an ONNX file, from token ids to logits, run by tract.

use std::path::Path;

use tokenizers::Encoding;
use tract_onnx::{prelude::*, tract_hir::infer::Factoid as _};

use super::OnnxInputs;

/// The network, ready to run on any number of passages of one length.
pub(super) struct Network {
    plan: Arc<TypedRunnableModel>,
    /// What each input is given, and as which type, in the order of the file.
    inputs: Vec<(Column, DatumType)>,
}

/// A row of numbers about a passage's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Ids,
    Mask,
    Types,
}

impl Column {
    fn of(self, passage: &Encoding) -> &[u32] {
        match self {
            Self::Ids => passage.get_ids(),
            Self::Mask => passage.get_attention_mask(),
            Self::Types => passage.get_type_ids(),
        }
    }
}

impl Network {
    /// Reads the file, and prepares the network for any number of passages of any length.
    pub fn load(path: &Path, names: &OnnxInputs) -> Result<Self, String> {
        // Shapes that the file declares for inner values are those of the example that it was traced with.
        let reader = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
        let mut model = reader.model_for_path(path).map_err(told)?;
        let columns = columns(&model, names)?;
        let shape = ["batch", "sequence"].map(|name| TDim::from(model.sym(name)));
        let mut inputs = Vec::new();
        for (at, column) in columns.into_iter().enumerate() {
            let fact = model.input_fact(at).map_err(told)?;
            let kind = fact.datum_type.concretize().unwrap_or(DatumType::I64);
            model.set_input_fact(at, InferenceFact::dt_shape(kind, shape.clone())).map_err(told)?;
            inputs.push((column, kind));
        }
        let plan = model.into_optimized().map_err(told)?.into_runnable().map_err(told)?;
        Ok(Self { plan, inputs })
    }

    /// Logits of each passage. All have the same number of tokens.
    pub fn run(&self, passages: &[Encoding]) -> Result<Vec<Vec<f32>>, String> {
        let shape = [passages.len(), passages.first().map_or(0, Encoding::len)];
        let input = |(column, kind): &(Column, DatumType)| {
            let numbers = passages.iter().flat_map(|passage| column.of(passage)).map(|number| i64::from(*number));
            let tensor = Tensor::from_shape(&shape, &numbers.collect::<Vec<_>>())?;
            Ok(tensor.cast_to_dt(*kind)?.into_owned().into_tvalue())
        };
        let inputs: TractResult<TVec<TValue>> = self.inputs.iter().map(input).collect();
        let outputs = self.plan.run(inputs.map_err(told)?).map_err(told)?;
        let logits = outputs[0].cast_to::<f32>().map_err(told)?;
        let logits = logits.to_plain_array_view::<f32>().map_err(told)?;
        if logits.ndim() != 2 || logits.shape()[0] != passages.len() {
            let (found, passages) = (logits.shape(), passages.len());
            return Err(format!(
                "the first output has the shape {found:?}; a row for each of {passages} passages is needed"
            ));
        }
        Ok(logits.outer_iter().map(|row| row.iter().copied().collect()).collect())
    }
}

#[cfg(test)]
impl Network {
    /// Makes every run fail.
    pub fn forget_inputs(&mut self) {
        self.inputs.clear();
    }
}

/// What each input of the network is to be given.
fn columns(model: &InferenceModel, names: &OnnxInputs) -> Result<Vec<Column>, String> {
    let known = [(&names.ids, Column::Ids), (&names.mask, Column::Mask), (&names.types, Column::Types)];
    let outlets = model.input_outlets().map_err(told)?;
    let own: Vec<&str> = outlets.iter().map(|outlet| model.node(outlet.node).name.as_str()).collect();
    let mut columns = Vec::new();
    for (at, name) in own.iter().enumerate() {
        let Some((_, column)) = known.iter().find(|(known, _)| known.as_str() == *name) else {
            let known = known.map(|(name, _)| name.as_str()).join(", ");
            return Err(format!("the network has an input `{name}`, which is none of {known}: name them in `inputs`"));
        };
        let shape = model.input_fact(at).map_err(told)?.shape.concretize().unwrap_or_default();
        if shape.iter().any(|dim| dim.to_i64().is_ok()) {
            let shape = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(format!("input `{name}` has the fixed shape [{shape}]: export the network with dynamic axes"));
        }
        columns.push(*column);
    }
    if !columns.contains(&Column::Ids) {
        return Err(format!("the network has no input `{}`; it has {}", names.ids, own.join(", ")));
    }
    Ok(columns)
}

/// An error with its causes in one line.
fn told(error: TractError) -> String {
    format!("{error:#}").replace('\n', " ")
}
