#![doc = include_str!("../README.md")]

pub mod classifier;
pub mod corpus;
pub mod dedup;
pub mod document;
pub mod error;
pub mod fasttext;
pub mod features;
pub mod filter;
pub mod filters;
pub mod format;
mod interner;
pub mod lang;
pub mod loader;
mod model_file;
pub mod ngram_lm;
pub mod quality;
pub mod safety;
pub mod spill;
pub mod stage;
pub mod store;
pub mod testing;
pub mod tokenizer;

/// What a plugin is; re-exported so that a filter's crate needs no other crate of the workspace.
pub use internevo_core::plugin;

pub use self::{
    document::Document,
    error::DataError,
    features::Features,
    filter::{Bound, Edit, Editor, Filter, FilterContext, FilterEntry, FilterPlugin, Measure, Verdict},
};
