//! Safetensors files of f32 tensors: written in one pass that also hashes, read slice by slice.
//!
//! The header is what the `safetensors` crate defines and checks; written here because the crate's writer cannot hash on the
//! way. Data is little-endian, as the format demands.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::Write,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use internevo_core::storage::{StorageError, read};
use safetensors::{Dtype, tensor::Metadata};
use serde_json::{Map, Value, json};

use super::{CheckpointError, manifest::FileRecord};

#[cfg(target_endian = "big")]
compile_error!("checkpoints are read and written as little-endian memory");

/// Bytes hashed and written at a time, so that the data is read from memory once.
const WRITE_BYTES: usize = 1 << 20;
/// A header longer than this is refused, as the `safetensors` crate does.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes of the length field before the header.
const LENGTH_BYTES: u64 = 8;

/// A tensor that will be written whole.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

/// A file being written: the header first, then the tensors one after the other as they become known.
pub(super) struct Writer<'a> {
    file: File,
    path: &'a Path,
    hasher: blake3::Hasher,
    size: u64,
    expected: u64,
}

impl<'a> Writer<'a> {
    /// Writes the header of `tensors`.
    pub(super) fn begin(file: File, path: &'a Path, tensors: &[Announced]) -> Result<Self, CheckpointError> {
        let header = header_of(tensors);
        let data: usize = tensors.iter().map(Announced::bytes).sum();
        let expected = LENGTH_BYTES + (header.len() + data) as u64;
        let mut writer = Self { file, path, hasher: blake3::Hasher::new(), size: 0, expected };
        writer.put_bytes(&(header.len() as u64).to_le_bytes())?;
        writer.put_bytes(&header)?;
        Ok(writer)
    }

    /// Writes the next tensor's elements.
    pub(super) fn put(&mut self, values: &[f32]) -> Result<(), CheckpointError> {
        self.put_bytes(bytemuck::cast_slice(values))
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        for chunk in bytes.chunks(WRITE_BYTES) {
            self.hasher.update(chunk);
            self.file.write_all(chunk).map_err(StorageError::at("write", self.path))?;
            self.size += chunk.len() as u64;
        }
        Ok(())
    }

    /// Makes the file durable.
    ///
    /// # Panics
    /// If a tensor was announced and not written.
    pub(super) fn finish(self) -> Result<FileRecord, CheckpointError> {
        assert_eq!(self.size, self.expected, "every announced tensor was written");
        self.file.sync_all().map_err(StorageError::at("write", self.path))?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(FileRecord { name, size: self.size, blake3: self.hasher.finalize().to_hex().to_string() })
    }
}

impl Announced {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

fn header_of(tensors: &[Announced]) -> Vec<u8> {
    let offsets = |t: &Announced| (t.name.clone(), json!({ "saved_offsets": vec![0; t.shape.len()] }));
    let sharding: Map<String, Value> = tensors.iter().map(offsets).collect();
    let mut header = Map::new();
    let metadata = json!({
        "format": "pt",
        "DCP_VERSION": "1.0",
        "DCP_SHARDING_INFO": Value::Object(sharding).to_string(),
    });
    header.insert("__metadata__".into(), metadata);
    let mut begin = 0;
    for tensor in tensors {
        let end = begin + tensor.bytes();
        let entry = json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, end] });
        header.insert(tensor.name.clone(), entry);
        begin = end;
    }
    let mut bytes = Value::Object(header).to_string().into_bytes();
    // Spaces at the end keep the data aligned.
    bytes.resize(bytes.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    bytes
}

/// A run of a flattened tensor's elements in a file.
struct Chunk {
    file: usize,
    /// Elements of the flattened tensor.
    elements: Range<usize>,
    /// Position of the first one in the file, bytes.
    position: u64,
}

struct Whole {
    shape: Vec<usize>,
    chunks: Vec<Chunk>,
}

/// The tensors of all safetensors files of a folder, by name.
pub(super) struct TensorIndex {
    folder: PathBuf,
    files: Vec<(PathBuf, File)>,
    tensors: HashMap<String, Whole>,
}

impl TensorIndex {
    /// Reads the headers of `names` in `folder`.
    pub(super) fn open(folder: &Path, names: &[String]) -> Result<Self, CheckpointError> {
        let mut index = Self { folder: folder.to_owned(), files: Vec::new(), tensors: HashMap::new() };
        for name in names {
            index.add(folder.join(name))?;
        }
        for whole in index.tensors.values_mut() {
            whole.chunks.sort_by_key(|c| c.elements.start);
        }
        Ok(index)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), CheckpointError> {
        let file = File::open(&path).map_err(StorageError::at("read", &path))?;
        let (metadata, data_begin) = read_header(&file, &path)?;
        let sharding = sharding_info(&metadata, &path)?;
        for (name, info) in metadata.tensors() {
            if info.dtype != Dtype::F32 {
                return Err(CheckpointError::tensor(&path, &name, format!("is {:?}, expected F32", info.dtype)));
            }
            let len: usize = info.shape.iter().product();
            // Sharded tensors are 1-D; a whole tensor begins at zero in every dimension.
            let offsets = sharding.get(&name).map_or(&[][..], Vec::as_slice);
            let start = match (info.shape.len(), offsets) {
                (1, [start]) => *start,
                (_, offsets) if offsets.iter().all(|o| *o == 0) => 0,
                _ => return Err(CheckpointError::tensor(&path, &name, format!("cannot be placed at {offsets:?}"))),
            };
            let chunk = Chunk {
                file: self.files.len(),
                elements: start..start + len,
                position: data_begin + info.data_offsets.0 as u64,
            };
            let whole = self.tensors.entry(name).or_insert_with(|| Whole { shape: info.shape.clone(), chunks: vec![] });
            whole.chunks.push(chunk);
        }
        self.files.push((path, file));
        Ok(())
    }

    /// Names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor that is stored whole.
    pub(super) fn shape(&self, name: &str) -> Option<(&[usize], &Path)> {
        let whole = self.tensors.get(name)?;
        Some((&whole.shape, &self.files[whole.chunks.first()?.file].0))
    }

    /// Reads elements `start..start + out.len()` of the flattened tensor `name`. A NaN is an error.
    pub(super) fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        let missing = |reason: String| CheckpointError::tensor(&self.folder, name, reason);
        let whole = self.tensors.get(name).ok_or_else(|| missing("is missing".into()))?;
        let end = start + out.len();
        let mut at = start;
        for chunk in &whole.chunks {
            let part = chunk.elements.start.max(at)..chunk.elements.end.min(end);
            if part.is_empty() {
                continue;
            }
            if part.start > at {
                break;
            }
            let (path, file) = &self.files[chunk.file];
            let target = &mut out[part.start - start..part.end - start];
            let position = chunk.position + ((part.start - chunk.elements.start) * size_of::<f32>()) as u64;
            file.read_exact_at(bytemuck::cast_slice_mut(target), position)
                .map_err(|e| CheckpointError::tensor(path, name, format!("cannot be read: {e}")))?;
            if let Some(i) = target.iter().position(|x| x.is_nan()) {
                let reason = format!("element {} is not a number", part.start + i);
                return Err(CheckpointError::tensor(path, name, reason));
            }
            at = part.end;
        }
        if at == end { Ok(()) } else { Err(missing(format!("elements {at}..{end} are missing"))) }
    }
}

/// The header, checked against the file's size, and where the data begins.
fn read_header(file: &File, path: &Path) -> Result<(Metadata, u64), CheckpointError> {
    let size = file.metadata().map_err(StorageError::at("read", path))?.len();
    let mut length = [0; LENGTH_BYTES as usize];
    let truncated = || CheckpointError::damaged(path, format!("is truncated to {size} bytes"));
    file.read_exact_at(&mut length, 0).map_err(|_| truncated())?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(CheckpointError::damaged(path, format!("is no safetensors file: header of {length} bytes")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact_at(&mut header, LENGTH_BYTES).map_err(|_| truncated())?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|e| CheckpointError::damaged(path, format!("is no safetensors file: {e}")))?;
    let data_begin = LENGTH_BYTES + length;
    let expected = data_begin + metadata.data_len() as u64;
    if size != expected {
        return Err(CheckpointError::damaged(path, format!("has {size} bytes, its header describes {expected}")));
    }
    Ok((metadata, data_begin))
}

fn sharding_info(metadata: &Metadata, path: &Path) -> Result<BTreeMap<String, Vec<usize>>, CheckpointError> {
    #[derive(serde::Deserialize)]
    struct Saved {
        saved_offsets: Vec<usize>,
    }
    let Some(text) = metadata.metadata().as_ref().and_then(|m| m.get("DCP_SHARDING_INFO")) else {
        return Ok(BTreeMap::new());
    };
    let saved: BTreeMap<String, Saved> = serde_json::from_str(text)
        .map_err(|e| CheckpointError::damaged(path, format!("DCP_SHARDING_INFO cannot be read: {e}")))?;
    Ok(saved.into_iter().map(|(name, s)| (name, s.saved_offsets)).collect())
}

/// Parses a JSON file of the checkpoint.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    serde_json::from_slice(&read(path)?).map_err(|e| CheckpointError::damaged(path, format!("cannot be read: {e}")))
}
