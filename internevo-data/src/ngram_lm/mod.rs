//! n-gram language models: trained, read, and asked how surprising a text is.
//!
//! The models are KenLM's in every respect: modified Kneser-Ney with interpolation as `lmplz` estimates it, ARPA files, binary files
//! of every kind that `build_binary` writes, probabilities in log10. What is trained here can be used there and the other way round.
//!
//! A sentence is a line. How a line is cut into tokens is no part of such a model and must be the same in training and use:
//! [`LmTokens`]. Perplexity of a text is 10^(-(sum of log10) / (tokens + lines)), the end of each line counting as a token, as in
//! CCNet (Wenzek et al. 2020).
//!
//! | file | holds |
//! |---|---|
//! | `tokens.rs` | tokens of a line |
//! | `arpa.rs` | the text form, read and written |
//! | `kenlm.rs` | what KenLM's binary files have in common: header, hash functions, vocabulary |
//! | `probing.rs`, `build.rs` | hash tables: looked up, and built from an ARPA file |
//! | `trie.rs`, `bits.rs` | packed tries, quantised or not |
//! | `model.rs`, `batch.rs`, `prefetch.rs` | scoring |
//! | `count.rs`, `adjust.rs`, `estimate.rs`, `train.rs` | training in bounded memory |
//! | `filter.rs` | the filter `perplexity` |

mod adjust;
mod arpa;
mod batch;
mod bits;
mod build;
mod count;
mod estimate;
mod filter;
mod kenlm;
mod model;
mod prefetch;
mod probing;
#[cfg(test)]
mod tests;
mod tokens;
mod train;
mod trie;

pub use self::{
    arpa::convert,
    filter::{LanguageModel, Perplexity, PerplexityConfig},
    model::{NgramModel, Score, State},
    tokens::LmTokens,
    train::{Discounts, LmReport, LmSettings, train},
};

/// The longest n-gram: KenLM's default build knows none longer.
pub const MAX_ORDER: usize = 6;

/// Number of the unknown word in every model.
const UNKNOWN: u32 = 0;

/// What a model knows of an n-gram.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Weights {
    /// log10 of the probability of its last word after the others.
    log10: f32,
    /// log10 of what a longer n-gram pays that is not there and falls back from this context.
    backoff: f32,
}
