//! One training step's numbers ([`StepRecord`]), and the sinks that receive them ([`MetricSink`]).
//!
//! `metrics.jsonl` is the source of truth; TensorBoard's event files can be rebuilt from it. Not here: who measures.

mod jsonl;
mod record;
mod sink;
mod tensorboard;

pub use jsonl::{Jsonl, JsonlConfig, read_jsonl};
pub use record::StepRecord;
pub use sink::{MetricSink, SinkContext, SinkEntry, SinkPlugin, sinks};
pub use tensorboard::{TensorBoard, TensorBoardConfig};
