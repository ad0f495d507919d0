//! Attention inside packed segments, with grouped query heads, in tiles (FlashAttention: Dao et al., 2022 and 2023):
//! scores live in a scratch tile per thread, and the backward recomputes them from a saved log-sum-exp per row. Causal or
//! not, with or without a sliding window, over a fused `qkv` or separate tensors whose lengths may differ.
//!
//! The scale is `1 / sqrt(head_dim)`.

pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
mod op;
pub mod reference;
mod runs;
mod view;

pub use op::{attention, attention_cached, attention_masked, flash_attention};
pub use runs::Runs;
pub use view::{AttentionMask, Heads, Segments};

/// Head counts, and how the columns of a fused, interleaved `qkv` are laid out: `[kv_head][q_0 .. q_{G-1}, k, v][head_dim]`,
/// InternLM2's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QkvLayout {
    /// Key/value heads (K).
    pub kv_heads: usize,
    /// Query heads that share one key/value head (G); there are `H = K · G` query heads.
    pub q_per_kv: usize,
    /// Width of a head (D).
    pub head_dim: usize,
}

impl QkvLayout {
    /// Columns of `qkv`: `(H + 2K) · D`.
    pub fn qkv_width(&self) -> usize {
        self.kv_heads * (self.q_per_kv + 2) * self.head_dim
    }

    /// Query heads, H.
    pub fn heads(&self) -> usize {
        self.kv_heads * self.q_per_kv
    }

    /// Columns of the attention output: `H · D`.
    pub fn output_width(&self) -> usize {
        self.heads() * self.head_dim
    }

    /// Columns of the keys (or of the values) alone: `K · D`.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// `1 / sqrt(head_dim)`.
    pub fn scale(&self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }
}

/// Checks segment boundaries of `tokens` tokens.
///
/// # Panics
/// If they do not start at 0, end at `tokens` and increase; the message names the index.
fn check_segments(cu_seqlens: &[u32], tokens: usize) {
    let ends = (cu_seqlens.first().copied(), cu_seqlens.last().map(|end| *end as usize));
    assert!(ends == (Some(0), Some(tokens)), "attention: cu_seqlens must run from 0 to {tokens}, found {ends:?}");
    if let Some(index) = cu_seqlens.windows(2).position(|pair| pair[0] >= pair[1]) {
        panic!("attention: cu_seqlens[{}] does not exceed the entry before it", index + 1);
    }
}

#[cfg(test)]
mod tests;
