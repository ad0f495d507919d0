//! One file per command: its flags and what it does. Work that several commands share lives beside this folder.

pub mod completions;
pub mod config;
pub mod data;
pub mod data_classifier;
pub mod data_inspect;
pub mod data_lm;
pub mod data_report;
pub mod data_review;
pub mod data_threshold;
pub mod doctor;
pub mod eval;
pub mod export;
pub mod generate;
pub mod import;
pub mod parity;
pub mod plugins;
pub mod report;
pub mod tokenizer;
pub mod train;
