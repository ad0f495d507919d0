//! Configuration, parallel layout, plugin registry, metrics and storage of internevo. No tensors: every other crate may
//! depend on this one, and it builds in seconds.

pub mod batch;
pub mod config;
pub mod metrics;
pub mod plugin;
pub mod rng;
pub mod storage;
