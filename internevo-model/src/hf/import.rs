//! Reading a Hugging Face folder of safetensors into flat parameters. Every tensor is checked by name, shape and type
//! before the first byte of data is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use internevo_core::storage;
use serde::Deserialize;

use super::{
    Format, config,
    layout::{self, HfTensor},
    safetensors_file::{Decode, Reader},
};
use crate::{error::ModelError, spec::ModelSpec};

/// An imported model.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Its dimensions, for the fused kernels.
    pub spec: ModelSpec,
    /// All parameters in table order; f16 and bf16 are widened to f32 exactly.
    pub params: Vec<f32>,
    /// Which spelling was read.
    pub format: Format,
    /// The head was tied to the embedding: `output.weight` is a copy of it, and from here on the two train apart.
    pub tied: bool,
    /// `tokenizer.json` of the folder, if it has one.
    pub tokenizer_json: Option<PathBuf>,
}

/// Reads `dir`: `config.json` (`llama` or `internlm2`) and `model.safetensors`, or the shards that
/// `model.safetensors.index.json` lists.
///
/// # Errors
/// A configuration that this decoder does not compute, missing, unexpected or misshapen tensors (all at once, with their
/// files), or a truncated file.
pub fn import(dir: impl AsRef<Path>) -> Result<Imported, ModelError> {
    let dir = dir.as_ref();
    let described = config::read(dir)?;
    let (spec, format) = (described.spec, described.format);
    let mut readers = open_all(dir)?;
    let (head, embedding) = tied_names(format);
    let wanted = layout::tensors(format, &spec);
    let (tied_head, wanted): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|t| described.tied && t.name == head);
    let places = locate(dir, &readers, &wanted, described.tied.then_some(head))?;

    let mut params = vec![0.0; spec.parameter_count()];
    for (tensor, place) in wanted.iter().zip(places) {
        readers[place].read_into(tensor, &mut params)?;
    }
    for head in &tied_head {
        let source = wanted.iter().find(|t| t.name == embedding).expect("every layout has an embedding");
        params.copy_within(source.ranges[0].clone(), head.ranges[0].start);
    }
    let tokenizer_json = Some(dir.join("tokenizer.json")).filter(|p| p.is_file());
    Ok(Imported { spec, params, format, tied: described.tied, tokenizer_json })
}

/// Names of head and embedding.
fn tied_names(format: Format) -> (&'static str, &'static str) {
    match format {
        Format::Llama => ("lm_head.weight", "model.embed_tokens.weight"),
        Format::InternLm2 => ("output.weight", "model.tok_embeddings.weight"),
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn open_all(dir: &Path) -> Result<Vec<Reader>, ModelError> {
    let single = dir.join("model.safetensors");
    let index_path = dir.join("model.safetensors.index.json");
    if single.is_file() || !index_path.is_file() {
        return Ok(vec![Reader::open(&single)?]);
    }
    let text = storage::read(&index_path)?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|source| ModelError::Json { path: index_path.clone(), source })?;
    let files: BTreeSet<&String> = index.weight_map.values().collect();
    let open = |file: &&String| {
        let plain = Path::new(file).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || Path::new(file).components().count() != 1 {
            return Err(ModelError::Key {
                path: index_path.clone(),
                key: "weight_map".into(),
                message: format!("`{file}` is no plain file name"),
            });
        }
        Reader::open(&dir.join(file))
    };
    files.iter().map(open).collect()
}

/// For each wanted tensor the reader that has it, or everything that does not fit. `ignored`: a tied head that some
/// writers store all the same.
fn locate(
    dir: &Path,
    readers: &[Reader],
    wanted: &[HfTensor],
    ignored: Option<&str>,
) -> Result<Vec<usize>, ModelError> {
    let mut problems = Vec::new();
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for (i, reader) in readers.iter().enumerate() {
        for name in reader.names() {
            if let Some(first) = found.insert(name.clone(), i) {
                problems.push(format!("{name} is in {} and in {}", file(&readers[first]), file(reader)));
            }
        }
    }
    let mut places = Vec::with_capacity(wanted.len());
    for tensor in wanted {
        let Some(place) = found.remove(&tensor.name) else {
            problems.push(format!("{} is missing", tensor.name));
            continue;
        };
        let reader = &readers[place];
        let info = reader.info(&tensor.name).expect("the file listed it");
        if info.shape != tensor.shape {
            let (name, file) = (&tensor.name, file(reader));
            problems.push(format!("{name} in {file} is {:?}, config.json asks for {:?}", info.shape, tensor.shape));
        } else if Decode::of(info.dtype).is_none() {
            problems.push(format!("{} in {} is {:?}, not F32, F16 or BF16", tensor.name, file(reader), info.dtype));
        }
        places.push(place);
    }
    for (name, place) in found {
        // Older LLaMA checkpoints store the rotary frequencies, which follow from the configuration.
        if Some(name.as_str()) != ignored && !name.ends_with("rotary_emb.inv_freq") {
            problems.push(format!("{name} in {} is unexpected", file(&readers[place])));
        }
    }
    if problems.is_empty() { Ok(places) } else { Err(ModelError::Tensors { dir: dir.to_owned(), problems }) }
}

fn file(reader: &Reader) -> String {
    reader.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
}
