//! The writers of this folder as token sinks: their names and settings.

use internevo_core::plugin::Plugin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    InternEvoWriter, JsonlWriter, MegatronWriter, StoreError, TokenSink, TokenSinkContext, TokenSinkPlugin, TokenType,
    jsonl::Compression,
};
use crate::register_token_sink;

/// How `megatron` writes a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenTypeChoice {
    /// Two bytes where the vocabulary allows it, as Megatron chooses.
    #[default]
    Auto,
    /// Two bytes.
    Uint16,
    /// Four bytes.
    Int32,
}

/// Settings of `megatron`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MegatronConfig {
    /// Type of a token on disk: `auto`, `uint16` or `int32`.
    pub token_type: TokenTypeChoice,
}

/// Settings of `internevo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InternEvoConfig {
    /// Largest shard, bytes. InternEvo reads offsets as int32, so a shard never reaches 2 GiB.
    pub shard_bytes: u64,
}

impl Default for InternEvoConfig {
    fn default() -> Self {
        Self { shard_bytes: i32::MAX as u64 }
    }
}

/// Settings of `jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JsonlConfig {
    /// `none`, `gz` or `zst`.
    pub compression: Compression,
}

/// Megatron's `.bin` and `.idx`.
pub struct Megatron;

impl Plugin for Megatron {
    const NAME: &'static str = "megatron";
    const ABOUT: &'static str = "Megatron's .bin and .idx: what internevo trains from by default.";
    type Config = MegatronConfig;
}

impl TokenSinkPlugin for Megatron {
    fn build(config: MegatronConfig, cx: &TokenSinkContext<'_>) -> Result<Box<dyn TokenSink>, StoreError> {
        let token_type = match config.token_type {
            TokenTypeChoice::Auto => TokenType::for_vocab(cx.vocab_size),
            TokenTypeChoice::Uint16 => TokenType::U16,
            TokenTypeChoice::Int32 => TokenType::I32,
        };
        Ok(Box::new(MegatronWriter::create(cx.prefix, token_type)?))
    }
}

impl TokenSink for MegatronWriter {
    fn push(&mut self, _id: &str, tokens: &[i32]) -> Result<(), StoreError> {
        Self::push(self, tokens)
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        Self::finish(*self)
    }
}

register_token_sink!(Megatron);

/// InternEvo's `.bin` and `.bin.meta`.
pub struct InternEvo;

impl Plugin for InternEvo {
    const NAME: &'static str = "internevo";
    const ABOUT: &'static str = "InternEvo's .bin (a JSON line a document) and .bin.meta, in shards that it can read.";
    type Config = InternEvoConfig;
}

impl TokenSinkPlugin for InternEvo {
    fn build(config: InternEvoConfig, cx: &TokenSinkContext<'_>) -> Result<Box<dyn TokenSink>, StoreError> {
        Ok(Box::new(InternEvoWriter::with_shard_limit(cx.prefix, config.shard_bytes)))
    }
}

impl TokenSink for InternEvoWriter {
    fn push(&mut self, _id: &str, tokens: &[i32]) -> Result<(), StoreError> {
        Self::push(self, tokens)
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        Self::finish(*self)
    }
}

register_token_sink!(InternEvo);

/// A JSON line a document.
pub struct Jsonl;

impl Plugin for Jsonl {
    const NAME: &'static str = "jsonl";
    const ABOUT: &'static str = "A JSON line a document, with id and tokens.";
    type Config = JsonlConfig;
}

impl TokenSinkPlugin for Jsonl {
    fn build(config: JsonlConfig, cx: &TokenSinkContext<'_>) -> Result<Box<dyn TokenSink>, StoreError> {
        Ok(Box::new(JsonlWriter::create(cx.prefix, config.compression)?))
    }
}

register_token_sink!(Jsonl);
