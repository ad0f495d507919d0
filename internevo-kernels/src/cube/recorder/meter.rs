//! Memory of a card on paper: sizes and lifetimes of allocations, no bytes.

use super::card::ALIGNMENT;
use crate::cube::Client;
use cubecl::server::{Handle, MemoryLayout, MemoryLayoutDescriptor, MemoryLayoutPolicy};
use cubecl_core::device::ServiceId;
use cubecl_core::environment::stream::StreamId;
use cubecl_runtime::memory_management::ManagedMemoryHandle;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Counts the bytes alive. A buffer is alive from its allocation until its last handle is dropped and the launches that were
/// given it have been seen.
#[derive(Default)]
pub struct Meter {
    client: OnceLock<Client>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The card's own handle of each allocation, as a memory pool would hold it, and its bytes.
    allocations: Vec<(ManagedMemoryHandle, u64)>,
    peak: u64,
}

impl Memory {
    fn live(&mut self) -> u64 {
        self.allocations.retain(|(handle, _)| !handle.is_free());
        self.allocations.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Meter {
    /// Names the client whose queue is emptied before counting; without it, what is counted would depend on the threads' pace.
    pub fn attach(&self, client: Client) {
        let _ = self.client.set(client);
    }

    pub fn live(&self) -> u64 {
        self.settled().live()
    }

    pub fn peak(&self) -> u64 {
        self.settled().peak
    }

    pub fn forget_peak(&self) {
        let mut memory = self.settled();
        memory.peak = memory.live();
    }

    fn allocate(&self, handle: ManagedMemoryHandle, bytes: u64) {
        let mut memory = self.settled();
        let live = memory.live() + bytes;
        memory.peak = memory.peak.max(live);
        memory.allocations.push((handle, bytes));
    }

    fn settled(&self) -> MutexGuard<'_, Memory> {
        if let Some(client) = self.client.get() {
            client.flush().expect("a card on paper has no faults");
        }
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

/// Lays out allocations without padding between rows and reports them to the meter.
pub struct Allocator(pub Arc<Meter>);

impl MemoryLayoutPolicy for Allocator {
    fn apply(
        &self,
        service: ServiceId,
        stream: StreamId,
        descriptors: &[MemoryLayoutDescriptor],
    ) -> (Handle, Vec<MemoryLayout>) {
        let bytes = |d: &MemoryLayoutDescriptor| (d.shape.iter().product::<usize>() * d.elem_size) as u64;
        let padded = |d: &MemoryLayoutDescriptor| bytes(d).next_multiple_of(ALIGNMENT as u64);
        let total = descriptors.iter().map(padded).sum();
        let base = Handle::new(service, stream, total);
        self.0.allocate(base.memory.clone(), total);
        let mut start = 0;
        let mut layouts = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            let handle = base.clone().offset_start(start).offset_end(total - start - bytes(descriptor));
            layouts.push(MemoryLayout::new(handle, contiguous(&descriptor.shape)));
            start += padded(descriptor);
        }
        (base, layouts)
    }
}

/// Strides of a row-major tensor.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim] * shape[dim];
    }
    strides
}
