//! Reading and writing safetensors files piece by piece: no file is ever held in memory as a whole, and no tensor is
//! copied before it is written.
//!
//! Not here: which tensors there are (`layout.rs`).

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use internevo_core::storage::{AtomicFile, StorageError};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use super::layout::HfTensor;
use crate::error::ModelError;

/// Elements converted at a time.
const PIECE: usize = 256 * 1024;
/// Bytes of the length field in front of the header.
const LENGTH_FIELD: u64 = 8;
/// The format's own bound on the header.
const MAX_HEADER: u64 = 100_000_000;

/// Writes `tensors` out of `flat` as f32 in the given order, with the `{"format": "pt"}` that `transformers` asks for.
pub(super) fn write(path: &Path, tensors: &[HfTensor], flat: &[f32]) -> Result<(), ModelError> {
    let mut end = 0;
    let infos = tensors.iter().map(|t| {
        let start = end;
        end += t.count() * size_of::<f32>();
        (t.name.clone(), TensorInfo { dtype: Dtype::F32, shape: t.shape.clone(), data_offsets: (start, end) })
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), infos.collect()).expect("offsets follow each other by construction");
    let mut header = serde_json::to_vec(&metadata).expect("a header of names and numbers is JSON");
    header.resize(header.len().next_multiple_of(LENGTH_FIELD as usize), b' ');

    let mut file = AtomicFile::create(path)?;
    let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(StorageError::at("write", path));
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    let mut bytes = Vec::with_capacity(PIECE * size_of::<f32>());
    for range in tensors.iter().flat_map(|t| &t.ranges) {
        for piece in flat[range.clone()].chunks(PIECE) {
            bytes.clear();
            bytes.extend(piece.iter().flat_map(|x| x.to_le_bytes()));
            put(&bytes)?;
        }
    }
    Ok(file.commit()?)
}

/// A safetensors file whose header has been read and checked against the file's length.
pub(super) struct Reader {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    data_start: u64,
}

impl Reader {
    /// Opens and checks `path`.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let damaged = |message: String| ModelError::Safetensors { path: path.to_owned(), message };
        let mut file = File::open(path).map_err(StorageError::at("open", path))?;
        let length = file.metadata().map_err(StorageError::at("read", path))?.len();
        if length < LENGTH_FIELD {
            return Err(damaged(format!("truncated: {length} bytes are too few for a safetensors header")));
        }
        let mut field = [0; LENGTH_FIELD as usize];
        file.read_exact(&mut field).map_err(StorageError::at("read", path))?;
        let header_length = u64::from_le_bytes(field);
        if header_length > MAX_HEADER {
            return Err(damaged(format!("no safetensors file: it claims a header of {header_length} bytes")));
        }
        let data_start = LENGTH_FIELD + header_length;
        if length < data_start {
            return Err(damaged(format!("truncated: the header ends at byte {data_start}, the file at {length}")));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(StorageError::at("read", path))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|e| damaged(format!("the header is damaged: {e}")))?;
        let expected = data_start + metadata.data_len() as u64;
        if length != expected {
            let what = if length < expected { "truncated" } else { "too long" };
            return Err(damaged(format!("{what}: the header promises {expected} bytes, the file has {length}")));
        }
        Ok(Self { path: path.to_owned(), file, metadata, data_start })
    }

    /// Names of the tensors in it.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Shape and type of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads `tensor`, whose shape and type have been checked, into its ranges of `flat`, as f32.
    pub fn read_into(&mut self, tensor: &HfTensor, flat: &mut [f32]) -> Result<(), ModelError> {
        let info = self.metadata.info(&tensor.name).expect("the tensor was found before");
        let decode = Decode::of(info.dtype).expect("the type was checked before");
        let start = self.data_start + info.data_offsets.0 as u64;
        self.file.seek(SeekFrom::Start(start)).map_err(StorageError::at("read", &self.path))?;
        let mut bytes = vec![0; PIECE.min(tensor.count()) * decode.width()];
        for range in &tensor.ranges {
            for piece in flat[range.clone()].chunks_mut(PIECE) {
                let bytes = &mut bytes[..piece.len() * decode.width()];
                self.file.read_exact(bytes).map_err(StorageError::at("read", &self.path))?;
                decode.run(bytes, piece);
            }
        }
        Ok(())
    }
}

/// The element types that import understands.
#[derive(Clone, Copy)]
pub(super) enum Decode {
    F32,
    F16,
    Bf16,
}

impl Decode {
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    fn run(self, bytes: &[u8], out: &mut [f32]) {
        let (pairs, _) = bytes.as_chunks::<2>();
        match self {
            Self::F32 => out.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(x, b)| *x = f32::from_le_bytes(*b)),
            Self::F16 => out.iter_mut().zip(pairs).for_each(|(x, b)| *x = f16::from_le_bytes(*b).to_f32()),
            Self::Bf16 => out.iter_mut().zip(pairs).for_each(|(x, b)| *x = bf16::from_le_bytes(*b).to_f32()),
        }
    }
}
