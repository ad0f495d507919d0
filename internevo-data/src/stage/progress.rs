//! How a stage tells what it does, and how it is told to stop.

/// Hears of a stage's progress. Every method has an empty default; `()` hears nothing.
pub trait Progress: Sync {
    /// A stage begins that will read about `total_bytes` (as stored, compressed or not).
    fn start(&self, _stage: &str, _total_bytes: u64) {}

    /// More is done: stored bytes read, documents seen, documents kept. Each call adds.
    fn advance(&self, _bytes: u64, _documents: u64, _kept: u64) {}

    /// Something worth a line: a reused result, what training found.
    fn message(&self, _text: &str) {}

    /// Something that a person should look at, such as a broken file. Goes to the log by default.
    fn warning(&self, text: &str) {
        tracing::warn!("{text}");
    }

    /// The stage is complete.
    fn finish(&self) {}

    /// Shall the stage stop? It then records where it is and returns [`DataError::Interrupted`](crate::DataError::Interrupted).
    fn cancelled(&self) -> bool {
        false
    }
}

impl Progress for () {}
