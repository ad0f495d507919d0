//! The `nccl` backend (feature `nccl`): a process per GPU, moving device memory with NVIDIA's collectives.
//!
//! | file | holds |
//! |---|---|
//! | `library.rs` | finding `libnccl` and its functions, without ever panicking; [`diagnose`] for `internevo doctor` |
//! | `device.rs` | [`DeviceCommunicator`]: the verbs on raw device pointers and a stream, for tensors that are on the GPU already |
//! | `host.rs` | [`NcclWorld`]: the [`Communicator`](super::Communicator) trait, its buffers staged through device memory |
//!
//! **What differs from the other backends.** NCCL chooses its own order of additions: sums of floats repeat on the same machines,
//! but are not the tree that the trait promises, so runs are not bit-identical across layouts. NCCL notices neither a rank that
//! calls something else nor one that died: a wait ends after [`NcclOptions::timeout`] and cannot name who is missing. Whoever starts the
//! processes has to end all of them when one ends.
//!
//! **What is proven.** Finding the library, its refusals and the exchange of ids run in the tests. Everything that needs a GPU is
//! compiled but was never run: run `cargo run -p internevo-parallel --features nccl --example nccl_one_rank` on a machine with
//! one before relying on it.
//!
//! cudarc's own loader is not used for NCCL: it panics without the library and does not know the name `libnccl.so.2`, the only
//! one in NVIDIA's wheel. Not here: exchanging the [`NcclId`] (any broadcast of 128 bytes: MPI, a TCP rendezvous).

mod device;
mod error;
mod host;
mod library;
#[cfg(test)]
mod tests;

pub use device::{DeviceCommunicator, DeviceType, RawSlice, RawStream};
pub use error::NcclError;
pub use host::{NcclOptions, NcclWorld};
pub use library::{Diagnosis, LIBRARY_VARIABLE, MissingLibrary, Nccl, NcclId, diagnose, locate};
