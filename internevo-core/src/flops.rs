//! Parameters and floating-point operations of a decoder: one convention for metrics, reports and plans.
//!
//! Counted are *model* FLOPs: two per multiply-add of every matrix product, the backward pass twice the forward, no
//! recomputation. The head is counted, the embedding lookup is not; norms, rotary and softmax are not. Grouped-query attention
//! is exact: fewer key/value heads make `wqkv` smaller but leave the score and value products at `heads * head_dim`.

use crate::config::ModelConfig;

/// Dimensions of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub hidden: u64,
    /// Decoder blocks.
    pub layers: u64,
    /// Query heads.
    pub heads: u64,
    /// Key/value heads.
    pub kv_heads: u64,
    /// Width of one head.
    pub head_dim: u64,
    /// Width of the feed-forward layer.
    pub ffn: u64,
    /// Rows of the embedding and of the head.
    pub vocab: u64,
}

/// Which query-key pairs of a segment count as work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionCount {
    /// Only pairs that the causal mask lets through: n·(n+1)/2 for a segment of n tokens.
    Causal,
    /// All n² pairs, as Megatron, InternEvo and PaLM count.
    Full,
}

impl AttentionCount {
    /// Query-key pairs of `tokens` tokens whose segment lengths have this sum of squares.
    pub fn pairs(self, tokens: u64, segment_squares: u64) -> f64 {
        match self {
            Self::Causal => (segment_squares as f64 + tokens as f64) / 2.0,
            Self::Full => segment_squares as f64,
        }
    }
}

/// Sum of squared segment lengths of a packed batch, from its boundaries.
pub fn segment_squares(cu_seqlens: &[u32]) -> u64 {
    cu_seqlens.windows(2).map(|w| u64::from(w[1] - w[0]).pow(2)).sum()
}

impl ModelShape {
    /// The shape of a configured decoder with `vocab` rows (the configured `vocab_size` may be automatic).
    pub fn new(config: &ModelConfig, vocab: usize) -> Self {
        Self {
            hidden: config.hidden_size as u64,
            layers: config.num_layers as u64,
            heads: config.num_attention_heads as u64,
            kv_heads: config.num_kv_attention_heads as u64,
            head_dim: config.head_dim() as u64,
            ffn: config.ffn_size() as u64,
            vocab: vocab as u64,
        }
    }

    /// Parameters that take part in matrix products: all but the embedding and the norm weights.
    pub fn matmul_parameters(&self) -> u64 {
        let attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads);
        let feed_forward = 3 * self.hidden * self.ffn;
        self.layers * (attention + feed_forward) + self.hidden * self.vocab
    }
}

/// All parameters: two norms per block, a final norm, untied embedding and head.
pub fn parameters(shape: &ModelShape) -> u64 {
    shape.matmul_parameters() + shape.hidden * shape.vocab + (2 * shape.layers + 1) * shape.hidden
}

/// FLOPs of forward and backward over `tokens` tokens in segments with this [sum of squares](segment_squares).
pub fn model_flops(shape: &ModelShape, tokens: u64, segment_squares: u64, count: AttentionCount) -> f64 {
    3.0 * forward_flops(shape, tokens, segment_squares, count)
}

/// FLOPs of the forward pass alone.
pub fn forward_flops(shape: &ModelShape, tokens: u64, segment_squares: u64, count: AttentionCount) -> f64 {
    let matmul = 2.0 * shape.matmul_parameters() as f64 * tokens as f64;
    // Two products (scores, weighted values), two operations each, over every head.
    let attention_width = (shape.layers * shape.heads * shape.head_dim) as f64;
    matmul + 4.0 * attention_width * count.pairs(tokens, segment_squares)
}

/// FLOPs of forward and backward per token when every segment is `seq_len` tokens long.
pub fn model_flops_per_token(shape: &ModelShape, seq_len: u64, count: AttentionCount) -> f64 {
    model_flops(shape, seq_len, seq_len * seq_len, count) / seq_len as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::CounterRng;

    /// InternLM2 report, table 3; `ffn` and vocabulary of the released configurations.
    fn internlm2(hidden: u64, layers: u64, heads: u64, ffn: u64) -> ModelShape {
        ModelShape { hidden, layers, heads, kv_heads: 8, head_dim: 128, ffn, vocab: 92544 }
    }

    #[test]
    fn parameters_are_those_of_the_released_models() {
        assert_eq!(parameters(&internlm2(2048, 24, 16, 8192)), 1_889_110_016);
        assert_eq!(parameters(&internlm2(4096, 32, 32, 14336)), 7_737_708_544);
        assert_eq!(parameters(&internlm2(6144, 48, 48, 16384)), 19_861_149_696);
    }

    /// Walks through the matrices of a forward pass, adding 2·m·n·k for each.
    fn counted_by_hand(s: &ModelShape, segments: &[u64], full: bool) -> f64 {
        let tokens: u64 = segments.iter().sum();
        let product = |m: u64, n: u64, k: u64| 2.0 * m as f64 * n as f64 * k as f64;
        let mut total = product(tokens, s.vocab, s.hidden);
        for _ in 0..s.layers {
            total += product(tokens, (s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden);
            total += product(tokens, s.hidden, s.heads * s.head_dim);
            total += product(tokens, s.ffn, s.hidden) * 2.0 + product(tokens, s.hidden, s.ffn);
            for n in segments {
                for query in 0..*n {
                    let keys = if full { *n } else { query + 1 };
                    total += s.heads as f64 * (product(1, keys, s.head_dim) + product(1, s.head_dim, keys));
                }
            }
        }
        total * 3.0
    }

    #[test]
    fn packed_flops_equal_a_walk_over_every_matrix() {
        let rng = CounterRng::new(11, "flops");
        for case in 0..20u64 {
            let pick = |i: u64, n: u64| 1 + rng.below(case * 100 + i, n);
            let (kv_heads, head_dim) = (pick(0, 4), 2 * pick(1, 16));
            let heads = kv_heads * pick(2, 4);
            let hidden = heads * head_dim;
            let s = ModelShape {
                hidden,
                layers: pick(3, 3),
                heads,
                kv_heads,
                head_dim,
                ffn: pick(4, 300),
                vocab: pick(5, 500),
            };
            let segments: Vec<u64> = (0..pick(6, 5)).map(|i| pick(10 + i, 40)).collect();
            let boundaries = segments.iter().scan(0u32, |at, n| {
                *at += *n as u32;
                Some(*at)
            });
            let squares = segment_squares(&[0].into_iter().chain(boundaries).collect::<Vec<_>>());
            let tokens = segments.iter().sum();
            for (count, full) in [(AttentionCount::Causal, false), (AttentionCount::Full, true)] {
                let (a, b) = (model_flops(&s, tokens, squares, count), counted_by_hand(&s, &segments, full));
                assert!((a - b).abs() <= 1e-9 * b, "{s:?} {segments:?} {count:?}: {a} {b}");
            }
        }
    }

    #[test]
    fn full_attention_without_grouping_is_megatrons_formula() {
        // Narayanan et al. 2021 without recompute: 72·b·s·l·h²·(1 + s/6h + V/12lh), for ffn = 4h with two matrices.
        // SwiGLU's three matrices at ffn = 8h/3 are the same amount of work.
        let (h, l, s, v) = (3072u64, 12u64, 2048u64, 51200u64);
        let shape =
            ModelShape { hidden: h, layers: l, heads: 24, kv_heads: 24, head_dim: 128, ffn: 8 * h / 3, vocab: v };
        let (hf, lf, sf, vf) = (h as f64, l as f64, s as f64, v as f64);
        let megatron = 72.0 * lf * hf * hf * (1.0 + sf / (6.0 * hf) + vf / (12.0 * lf * hf));
        let ours = model_flops_per_token(&shape, s, AttentionCount::Full);
        assert!((ours / megatron - 1.0).abs() < 1e-12, "{ours} {megatron}");
    }
}
