//! Where tokens go: what a token sink is, and how a crate offers one by name. Not here: the sinks themselves.

use std::path::Path;

use internevo_core::plugin::{Descriptor, Entry, Origin, Plugin, PluginError, PluginInfo, Registry, parse_config};

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
    fn create(config: Self::Config, cx: &TokenSinkContext<'_>) -> Result<Box<dyn TokenSink>, StoreError>;
}

/// [`TokenSinkPlugin::create`] with its settings still a table.
type CreateSink = fn(&toml::Table, &TokenSinkContext<'_>) -> Result<Box<dyn TokenSink>, StoreError>;

/// A registered token sink.
pub struct TokenSinkEntry {
    descriptor: Descriptor,
    create: CreateSink,
}

impl TokenSinkEntry {
    /// The entry of plugin `P`; used by [`register_token_sink!`](crate::register_token_sink).
    pub const fn of<P: TokenSinkPlugin>(origin: Origin) -> Self {
        Self { descriptor: Descriptor::of::<P>(Self::KIND, origin), create: create_erased::<P> }
    }

    /// Begins the output of one split.
    ///
    /// # Errors
    /// A table that does not fit, or what [`TokenSinkPlugin::create`] refuses.
    pub fn create(&self, table: &toml::Table, cx: &TokenSinkContext<'_>) -> Result<Box<dyn TokenSink>, StoreError> {
        (self.create)(table, cx)
    }
}

fn create_erased<P: TokenSinkPlugin>(
    table: &toml::Table,
    cx: &TokenSinkContext<'_>,
) -> Result<Box<dyn TokenSink>, StoreError> {
    P::create(parse_config::<P>(table)?, cx)
}

impl Entry for TokenSinkEntry {
    const KIND: &'static str = "token_sink";
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
}

crate::filter::__inventory::collect!(TokenSinkEntry);

/// Registers a [`TokenSinkPlugin`].
#[macro_export]
macro_rules! register_token_sink {
    ($plugin:ty) => {
        $crate::filter::__inventory::submit! {
            $crate::store::TokenSinkEntry::of::<$plugin>($crate::filter::__origin!())
        }
    };
}

/// The token sink called `name`.
///
/// # Errors
/// When there is none, or two share a name.
pub fn token_sink(name: &str) -> Result<&'static TokenSinkEntry, PluginError> {
    Registry::<TokenSinkEntry>::collect()?.get(name)
}

/// All token sinks linked into this binary, by name.
///
/// # Errors
/// When two share a name.
pub fn token_sinks() -> Result<Vec<PluginInfo>, PluginError> {
    Ok(Registry::<TokenSinkEntry>::collect()?.list())
}
