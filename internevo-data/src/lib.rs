#![doc = include_str!("../README.md")]

pub mod classifier;
pub mod corpus;
pub mod dedup;
pub mod document;
pub mod error;
pub mod external;
pub mod fasttext;
pub mod features;
pub mod filter;
pub mod filters;
pub mod format;
pub mod inspect;
mod interner;
pub mod lang;
mod least;
pub mod loader;
mod mapped;
mod model_file;
pub mod ngram_lm;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod quality;
pub mod safety;
pub mod spill;
pub mod stage;
pub mod store;
pub mod testing;
pub mod tokenizer;

/// What a plugin is; re-exported so that a filter's crate needs no other crate of the workspace.
pub use internevo_core::plugin;
/// Used by the `register_*!` macros; not for direct use.
#[doc(hidden)]
pub use internevo_core::submit_plugin as __submit;

pub use self::{
    document::Document,
    error::DataError,
    features::Features,
    filter::{Bound, Edit, Editor, Filter, FilterContext, FilterEntry, FilterPlugin, Measure, Verdict},
};

use plugin::{PluginError, PluginInfo};

/// All plugins of the kinds of this crate that are linked into this binary, by kind and name.
///
/// # Errors
/// When two of a kind share a name.
pub fn plugins() -> Result<Vec<PluginInfo>, PluginError> {
    let kinds = [
        format::record_readers,
        format::extractors,
        filter::list,
        classifier::classifiers,
        dedup::deduplicators,
        tokenizer::tokenizers,
        store::token_sinks,
    ];
    kinds.into_iter().try_fold(Vec::new(), |mut all, list| {
        all.extend(list()?);
        Ok(all)
    })
}
