//! Where tokens go: what a token sink is, and how a crate offers one by name. Not here: the sinks themselves.

use std::path::Path;

use internevo_core::{
    plugin::{Plugin, PluginError, Registry},
    plugin_kind,
};

use super::StoreError;

/// Receives the tokens of one split, document by document.
pub trait TokenSink: Send {
    /// Takes the next document. Its last token ends it.
    ///
    /// # Errors
    /// When a token does not fit or a file cannot be written.
    fn push(&mut self, id: &str, tokens: &[i32]) -> Result<(), StoreError>;

    /// Makes the files appear: whole, or not at all.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn finish(self: Box<Self>) -> Result<(), StoreError>;
}

/// What a token sink is told when it is built.
#[derive(Clone, Copy, Debug)]
pub struct TokenSinkContext<'a> {
    /// Folder and name of the split, without extension: a sink adds its own, as in `tokens/train.bin`.
    pub prefix: &'a Path,
    /// Tokens are below this.
    pub vocab_size: usize,
}

/// A sink that can be named in `internevo tokenizer encode --format`.
pub trait TokenSinkPlugin: Plugin {
    /// Begins the output of one split.
    ///
    /// # Errors
    /// When a setting makes no sense or a file cannot be made.
    fn build(config: Self::Config, cx: &TokenSinkContext<'_>) -> Result<Box<dyn TokenSink>, StoreError>;
}

plugin_kind! {
    /// A registered token sink.
    pub struct TokenSinkEntry("token_sink"):
        TokenSinkPlugin::build(&TokenSinkContext<'_>) -> Result<Box<dyn TokenSink>, StoreError>;
    /// All token sinks linked into this binary, by name.
    pub fn token_sinks;
}

/// Registers a [`TokenSinkPlugin`].
#[macro_export]
macro_rules! register_token_sink {
    ($plugin:ty) => {
        $crate::__submit!($crate::store::TokenSinkEntry, $plugin);
    };
}

/// The token sink called `name`.
///
/// # Errors
/// When there is none, or two share a name.
pub fn token_sink(name: &str) -> Result<&'static TokenSinkEntry, PluginError> {
    Registry::<TokenSinkEntry>::collect()?.get(name)
}
