#![doc = include_str!("../README.md")]

pub mod classifier;
pub mod corpus;
pub mod dedup;
pub mod document;
pub mod error;
pub mod features;
pub mod filter;
pub mod filters;
pub mod format;
pub mod lang;
pub mod loader;
pub mod quality;
pub mod safety;
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
    filter::{Edit, Editor, Filter, FilterContext, FilterEntry, FilterPlugin, Verdict},
};
