//! Reading ahead: micro-batches are packed on a thread while the ranks compute.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, JoinHandle},
};

use internevo_core::batch::PackedBatch;

use super::{LoaderError, PackedLoader};

/// Iterator over micro-batches that a thread packs ahead. Dropping it ends the thread.
#[derive(Debug)]
pub struct Prefetcher {
    batches: Option<Receiver<Result<PackedBatch, LoaderError>>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetcher {
    pub(super) fn start(
        loader: Arc<PackedLoader>,
        indices: impl Iterator<Item = u64> + Send + 'static,
        depth: usize,
    ) -> Result<Self, LoaderError> {
        let (sender, batches) = sync_channel(depth);
        let work = move || {
            for index in indices {
                let batch = loader.micro_batch(index);
                let failed = batch.is_err();
                // A closed channel means that nobody wants more.
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("prefetch".into()).spawn(work).map_err(LoaderError::Thread)?;
        Ok(Self { batches: Some(batches), thread: Some(thread) })
    }
}

impl Iterator for Prefetcher {
    type Item = Result<PackedBatch, LoaderError>;

    /// The next micro-batch; after an error there is none.
    ///
    /// # Panics
    /// If the thread panicked, with its message.
    fn next(&mut self) -> Option<Self::Item> {
        if let Ok(batch) = self.batches.as_ref()?.recv() {
            return Some(batch);
        }
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        None
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        // Closing the channel first wakes a thread that waits for room in it.
        drop(self.batches.take());
        if let Some(thread) = self.thread.take() {
            // A panic of a batch that nobody asked for any more is of no interest.
            let _ = thread.join();
        }
    }
}
