//! Rules of the parallel layout: the group algebra, and what it asks of the model's dimensions and of the batch.

use super::Rules;
use crate::{
    config::schema::{Config, ModelConfig},
    layout::ParallelLayout,
};

const TENSOR: &str = "parallel.tensor.size";
const GRID_HEADS: &str = "parallel.sequence_2D.head_size";

pub(super) fn parallel(config: &Config, rules: &mut Rules) {
    let parallel = &config.parallel;
    rules.check(parallel.pipeline.size <= 1, &["parallel.pipeline.size"], || {
        format!("pipeline parallelism of {} is not supported in this version, set it to 1", parallel.pipeline.size)
    });
    if let Err(errors) = ParallelLayout::new(parallel, config.launch.ranks) {
        for violation in errors.0 {
            let keys = [violation.key, "launch.ranks"];
            let keys = if violation.key == "launch.ranks" { &keys[1..] } else { &keys };
            rules.check(false, keys, || violation.message);
        }
    }
    if parallel.tensor.size > 1 {
        dimensions(config, rules);
    }
    rules.one_of("parallel.weight.forward_overlap_per", &parallel.weight.forward_overlap_per, &["module", "layer"]);
    rules.one_of(
        "parallel.weight.launch_allgather_before",
        &parallel.weight.launch_allgather_before,
        &["wqkv", "attn", "wo", "w1"],
    );
    let bucket = config.hybrid_zero_optimizer.reduce_bucket_size;
    rules.check(bucket >= 4, &["hybrid_zero_optimizer.reduce_bucket_size"], || {
        format!("a bucket of {bucket} bytes holds no element")
    });
    rules.not_negative("hybrid_zero_optimizer.clip_grad_norm", config.hybrid_zero_optimizer.clip_grad_norm);
    rules.one_of("hybrid_zero_optimizer.reduction", &config.hybrid_zero_optimizer.reduction, &["tree", "sequential"]);
}

/// What can be divided as the tensor groups ask.
fn dimensions(config: &Config, rules: &mut Rules) {
    let (tensor, grid) = (&config.parallel.tensor, &config.parallel.sequence_2d);
    let isp = tensor.mode == "isp";
    let (head, context) = if grid.enable { (grid.head_size, grid.context_size) } else { (tensor.size, 1) };
    if isp {
        sequence_groups(config, head, rules);
    } else {
        divided_layers(&config.model, tensor.size, rules);
    }
    let tokens = config.data.seq_len * config.data.micro_bsz;
    // A ring gives every rank two pieces, one from each end.
    let pieces = if isp && context > 1 { 2 * context * head } else { tensor.size };
    let even = tensor.mode == "mtp" || tokens.is_multiple_of(pieces);
    rules.check(even, &["data.seq_len", "data.micro_bsz", TENSOR], || {
        format!("{tokens} tokens of a micro-batch cannot be cut into {pieces} equal pieces")
    });
}

/// `mtp`, `msp`, `fsp`: every rank has a share of each matrix.
fn divided_layers(model: &ModelConfig, tensor: usize, rules: &mut Rules) {
    let kv_heads = model.num_kv_attention_heads;
    rules.check(kv_heads.is_multiple_of(tensor), &[TENSOR, "model.num_kv_attention_heads"], || {
        format!("{kv_heads} key/value heads cannot be divided among {tensor} ranks (`isp` shares them)")
    });
    let ffn = model.ffn_size();
    rules.check(ffn.is_multiple_of(tensor), &[TENSOR, "model.mlp_ratio", "model.multiple_of"], || {
        format!("a feed-forward width of {ffn} cannot be divided among {tensor} ranks")
    });
    let hidden = model.hidden_size;
    rules.check(!model.embed_split_hidden || hidden.is_multiple_of(tensor), &[TENSOR, "model.hidden_size"], || {
        format!("{hidden} columns of the embedding cannot be divided among {tensor} ranks (`model.embed_split_hidden`)")
    });
    let vocab = model.vocab_size;
    rules.check(vocab == 0 || vocab >= tensor, &[TENSOR, "model.vocab_size"], || {
        format!("a vocabulary of {vocab} is too small for {tensor} ranks")
    });
}

/// `isp`: heads are exchanged for tokens within a head group.
fn sequence_groups(config: &Config, head: usize, rules: &mut Rules) {
    let model = &config.model;
    let (heads, kv_heads) = (model.num_attention_heads, model.num_kv_attention_heads);
    let key = if config.parallel.sequence_2d.enable { GRID_HEADS } else { TENSOR };
    rules.check(heads.is_multiple_of(head), &[key, "model.num_attention_heads"], || {
        format!("{heads} query heads cannot be divided among {head} ranks; a larger context_size needs fewer heads")
    });
    let even = kv_heads.is_multiple_of(head) || head.is_multiple_of(kv_heads.max(1));
    rules.check(even, &[key, "model.num_kv_attention_heads"], || {
        format!("{kv_heads} key/value heads can be neither divided among {head} ranks nor copied evenly to them")
    });
}
