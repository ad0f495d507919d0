//! What turns text into the tokens of a store, and how a crate offers such a tokenizer by name. The built-in one is `hugging_face`.

use std::path::Path;

use internevo_core::{
    config::{HUGGING_FACE, TokenizerConfig},
    plugin::{Entry as _, NoSettings, Plugin, Registry, settings_of},
    plugin_kind,
};

use super::{Tokenizer, TokenizerError};

/// Turns text into tokens. Called from many threads; equal texts get equal tokens.
pub trait TextEncoder: Send + Sync {
    /// Tokens of `text`, without special ones.
    ///
    /// # Errors
    /// [`TokenizerError::Text`] for a text that it cannot encode.
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError>;

    /// One more than the largest token.
    fn vocab_size(&self) -> usize;

    /// The token that ends a document.
    fn eos_id(&self) -> u32;

    /// Hash of all that the tokens depend on beyond the settings.
    fn fingerprint(&self) -> String;
}

/// What a tokenizer is told when it is built.
#[derive(Clone, Copy, Debug)]
pub struct TokenizerContext<'a> {
    /// Its file, where one is named.
    pub file: Option<&'a Path>,
}

/// A tokenizer that can be named in `tokenizer.kind` and in `internevo tokenizer encode --kind`.
pub trait TokenizerPlugin: Plugin {
    /// Builds the tokenizer from its table in `tokenizer.settings`.
    ///
    /// # Errors
    /// A setting that makes no sense, a file that is missing or damaged.
    fn build(config: Self::Config, cx: &TokenizerContext<'_>) -> Result<Box<dyn TextEncoder>, TokenizerError>;
}

plugin_kind! {
    /// A registered tokenizer.
    pub struct TokenizerEntry("tokenizer"):
        TokenizerPlugin::build(&TokenizerContext<'_>) -> Result<Box<dyn TextEncoder>, TokenizerError>;
    /// All tokenizers linked into this binary, by name.
    pub fn tokenizers;
}

/// Registers a [`TokenizerPlugin`]. A tokenizer that holds nothing but its settings, in a field `config`, is also made one by
/// `register_tokenizer!(Name { config })`.
#[macro_export]
macro_rules! register_tokenizer {
    ($plugin:ident { config }) => {
        impl $crate::tokenizer::TokenizerPlugin for $plugin {
            fn build(
                config: <Self as $crate::plugin::Plugin>::Config,
                _: &$crate::tokenizer::TokenizerContext<'_>,
            ) -> Result<Box<dyn $crate::tokenizer::TextEncoder>, $crate::tokenizer::TokenizerError> {
                Ok(Box::new(Self { config }))
            }
        }
        $crate::register_tokenizer!($plugin);
    };
    ($plugin:ty) => {
        $crate::__submit!($crate::tokenizer::TokenizerEntry, $plugin);
    };
}

/// The tokenizer that `config` names by its kind, with its file and settings.
///
/// # Errors
/// An unknown name, settings that do not fit, a file that is missing or damaged.
pub fn load(config: &TokenizerConfig) -> Result<Box<dyn TextEncoder>, TokenizerError> {
    let entry = Registry::<TokenizerEntry>::collect()?.get(&config.kind)?;
    let file = (!config.file.is_empty()).then(|| Path::new(&config.file));
    entry.build(&*settings_of(&config.settings, entry.descriptor().name)?, &TokenizerContext { file })
}

impl Plugin for Tokenizer {
    const NAME: &'static str = HUGGING_FACE;
    const ABOUT: &'static str = "A Hugging Face tokenizer.json, such as `internevo tokenizer train` writes.";
    type Config = NoSettings;
}

impl TokenizerPlugin for Tokenizer {
    fn build(_: NoSettings, cx: &TokenizerContext<'_>) -> Result<Box<dyn TextEncoder>, TokenizerError> {
        let file = cx.file.ok_or_else(|| Self::refused("name a tokenizer.json"))?;
        Ok(Box::new(Self::load(file)?))
    }
}

crate::register_tokenizer!(Tokenizer);

impl TextEncoder for Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode(text)
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size()
    }

    fn eos_id(&self) -> u32 {
        self.eos_id()
    }

    fn fingerprint(&self) -> String {
        // What ends a document may be named beside the file.
        blake3::hash(format!("{} {}", self.eos_id(), self.to_json()).as_bytes()).to_hex().to_string()
    }
}
