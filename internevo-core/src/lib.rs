#![doc = include_str!("../README.md")]

pub mod batch;
pub mod config;
pub mod estimate;
pub mod flops;
pub mod layout;
pub mod metrics;
pub mod plugin;
pub mod rng;
pub mod storage;
pub mod volume;
