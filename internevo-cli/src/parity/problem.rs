//! What every layout trains: a decoder whose vocabulary no number of ranks divides, on packed documents of uneven length with
//! masked tokens, so that ranks have different numbers of labels.

use internevo_core::{
    batch::{IGNORE_INDEX, PackedBatch},
    config::Config,
    rng::CounterRng,
};

/// Rows of the vocabulary: a prime.
pub const VOCAB: usize = 211;
/// Tokens of a micro-batch.
pub const TOKENS: usize = 64;
/// Micro-batches of a step, over all ranks.
pub const MICRO_BATCHES: usize = 8;
/// Learning rate: large enough that ten steps move every parameter.
pub const LR: f64 = 1e-3;
/// Second-moment decay.
pub const BETA2: f64 = 0.95;

/// The configuration of one rank; a layout changes `parallel`, `launch.ranks`, `data.micro_num` and some keys of `model`.
pub fn config() -> Config {
    let mut config = Config::default();
    let model = &mut config.model;
    (model.hidden_size, model.num_layers) = (32, 2);
    (model.num_attention_heads, model.num_kv_attention_heads) = (8, 4);
    (model.mlp_ratio, model.multiple_of, model.vocab_size) = (2.0, 16, VOCAB);
    (config.data.seq_len, config.data.micro_bsz, config.data.micro_num) = (TOKENS, 1, MICRO_BATCHES);
    // There is no tokenizer: micro-batches are made below.
    config.data.train_folder = "made".into();
    // Several buckets, so that they travel one by one.
    config.hybrid_zero_optimizer.reduce_bucket_size = 24 * 1024;
    config.hybrid_zero_optimizer.clip_grad_norm = 0.5;
    config.loss.label_smoothing = 0.1;
    config.adam.lr = LR;
    config.adam.weight_decay = 0.1;
    config
}

/// Micro-batch `index` of step `step`: a function of these two alone.
pub fn micro_batch(step: u64, index: usize) -> PackedBatch {
    let rng = CounterRng::new(17, &format!("parity/{step}/{index}"));
    let mut batch = PackedBatch { cu_seqlens: vec![0], ..PackedBatch::default() };
    let mut document = 0;
    while batch.tokens.len() < TOKENS {
        // One to 40 tokens: some documents end inside a rank's share, some span several.
        let wanted = 1 + rng.below(100_000 + document, 40) as usize;
        let length = wanted.min(TOKENS - batch.tokens.len());
        for position in 0..length {
            let i = 3 * batch.tokens.len() as u64;
            batch.tokens.push(rng.below(i, VOCAB as u64) as u32);
            let masked = rng.below(i + 1, 4) == 0 || position + 1 == length;
            batch.labels.push(if masked { IGNORE_INDEX } else { rng.below(i + 2, VOCAB as u64) as i32 });
            batch.position_ids.push(position as u32);
        }
        batch.cu_seqlens.push(batch.tokens.len() as u32);
        document += 1;
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_are_packed_uneven_and_have_different_numbers_of_labels() {
        let batches: Vec<_> = (0..MICRO_BATCHES).map(|i| micro_batch(3, i)).collect();
        assert!(batches.iter().all(|b| b.tokens.len() == TOKENS && b.cu_seqlens.last() == Some(&(TOKENS as u32))));
        let labels: std::collections::BTreeSet<_> = batches.iter().map(PackedBatch::label_count).collect();
        let documents: std::collections::BTreeSet<_> = batches.iter().map(|b| b.cu_seqlens.len()).collect();
        assert!(labels.len() > 2 && documents.len() > 1, "{labels:?} {documents:?}");
        assert_eq!(micro_batch(3, 1), batches[1]);
        assert_ne!(micro_batch(4, 1), batches[1]);
    }
}
