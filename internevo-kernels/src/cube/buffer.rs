//! A typed run of elements in a device's memory. No shapes, no burn.

use super::{BF16, Client, ElemType, F16, F32};
use cubecl::prelude::BufferArg;
use cubecl::server::{Handle, ServerError};
use half::{bf16, f16};

/// Bytes of a buffer at least, for want of elements: a device refuses a binding that is shorter than one load.
const LEAST_BYTES: usize = 16;

/// A contiguous run of `len` elements in device memory. Cloning shares the memory.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// The device's memory.
    pub handle: Handle,
    /// Elements.
    pub len: usize,
    /// What an element is.
    pub elem: ElemType,
}

impl Buffer {
    /// Memory for `len` elements, with whatever is in it.
    pub fn empty(client: &Client, len: usize, elem: ElemType) -> Self {
        Self { handle: client.empty((len * elem.size()).max(LEAST_BYTES)), len, elem }
    }

    /// Copies `values` to the device, rounded to `elem`: [`F32`], [`F16`] or [`BF16`].
    ///
    /// # Panics
    /// If `elem` is another type.
    pub fn from_f32(client: &Client, values: &[f32], elem: ElemType) -> Self {
        let bytes: Vec<u8> = match elem {
            F32 => bytemuck::cast_slice(values).to_vec(),
            F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_ne_bytes()).collect(),
            BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_ne_bytes()).collect(),
            other => panic!("a buffer of floats cannot hold {other:?}"),
        };
        Self { handle: upload(client, &bytes), len: values.len(), elem }
    }

    /// Copies `values` to the device.
    pub fn from_u32(client: &Client, values: &[u32]) -> Self {
        let elem = ElemType::UInt(cubecl::ir::UIntKind::U32);
        Self { handle: upload(client, bytemuck::cast_slice(values)), len: values.len(), elem }
    }

    /// The elements, widened to f32. Waits for everything the device was asked to do before.
    ///
    /// # Errors
    /// What went wrong on the device in any launch that wrote this buffer.
    ///
    /// # Panics
    /// If the elements are not floats of at most 32 bits.
    pub fn read_f32(&self, client: &Client) -> Result<Vec<f32>, ServerError> {
        let bytes = client.read_one(self.handle.clone())?;
        let bytes = &bytes[..self.len * self.elem.size()];
        let halves = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        Ok(match self.elem {
            F32 => bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect(),
            F16 => halves().map(|b| f16::from_ne_bytes(b).to_f32()).collect(),
            BF16 => halves().map(|b| bf16::from_ne_bytes(b).to_f32()).collect(),
            other => panic!("a buffer of {other:?} does not read as floats"),
        })
    }

    /// Whether nobody else holds the memory, so that a kernel may write its output over it.
    pub fn is_exclusive(&self) -> bool {
        self.handle.can_mut()
    }

    /// The buffer as a kernel's argument.
    pub(crate) fn arg(&self) -> BufferArg {
        // SAFETY: `len` elements of `elem` fit the handle: both constructors and `GpuTensor` make them together.
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.len) }
    }
}

/// Memory of the device with `bytes` in it.
fn upload(client: &Client, bytes: &[u8]) -> Handle {
    client.create_from_slice(if bytes.is_empty() { &[0; LEAST_BYTES] } else { bytes })
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use crate::cube::testing::on_every_device;
    use crate::cube::{Buffer, F32};

    #[test]
    fn a_buffer_is_exclusive_as_long_as_nobody_shares_it() {
        on_every_device(|client, elem| {
            for buffer in [Buffer::empty(client, 5, elem), Buffer::from_f32(client, &[1.0; 7], elem)] {
                assert!(buffer.is_exclusive());
                let shared = buffer.clone();
                assert!(!buffer.is_exclusive() && !shared.is_exclusive());
                drop(shared);
                assert!(buffer.is_exclusive());
            }
        });
    }

    #[test]
    fn a_buffer_of_nothing_reads_as_nothing() {
        on_every_device(|client, elem| {
            for empty in [Buffer::empty(client, 0, elem), Buffer::from_f32(client, &[], F32)] {
                assert!(empty.read_f32(client).unwrap().is_empty());
            }
        });
    }
}
