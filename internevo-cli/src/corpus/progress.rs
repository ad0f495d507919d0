//! The data crate's progress on our terminal, and a way to stop a stage.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    interrupt::Interrupt,
    terminal::{self, Console, Progress},
};

/// Shows the stage that runs now.
#[derive(Debug)]
pub struct StageProgress {
    console: Console,
    interrupt: Interrupt,
    bar: Mutex<Option<Progress>>,
    bytes: AtomicU64,
    documents: AtomicU64,
    kept: AtomicU64,
}

impl StageProgress {
    /// Progress on `console`; `interrupt` stops the stage between two chunks.
    pub fn new(console: &Console, interrupt: &Interrupt) -> Self {
        Self {
            console: console.clone(),
            interrupt: interrupt.clone(),
            bar: Mutex::default(),
            bytes: AtomicU64::new(0),
            documents: AtomicU64::new(0),
            kept: AtomicU64::new(0),
        }
    }

    fn with_bar(&self, act: impl FnOnce(&mut Option<Progress>)) {
        act(&mut self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl internevo_data::stage::Progress for StageProgress {
    fn start(&self, stage: &str, total_bytes: u64) {
        for counter in [&self.bytes, &self.documents, &self.kept] {
            counter.store(0, Ordering::Relaxed);
        }
        self.with_bar(|bar| *bar = Some(self.console.progress(stage, Some(total_bytes), "bytes")));
    }

    fn advance(&self, bytes: u64, documents: u64, kept: u64) {
        let bytes = bytes + self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let documents = documents + self.documents.fetch_add(documents, Ordering::Relaxed);
        let kept = kept + self.kept.fetch_add(kept, Ordering::Relaxed);
        self.with_bar(|bar| {
            if let Some(bar) = bar {
                bar.set(bytes);
                bar.message(format!("{} of {} documents kept", terminal::count(kept), terminal::count(documents)));
            }
        });
    }

    fn message(&self, text: &str) {
        self.console.note(text);
    }

    fn finish(&self) {
        self.with_bar(|bar| drop(bar.take()));
    }

    fn cancelled(&self) -> bool {
        self.interrupt.requested()
    }
}
