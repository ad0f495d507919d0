//! Rules of the parallel layout: the group algebra, and what it asks of the model's dimensions and of the batch.

use super::Rules;
use crate::{
    config::schema::{Config, ModelConfig},
    layout::{GroupKind, ParallelLayout},
};

const TENSOR: &str = "parallel.tensor.size";
const GRID_HEADS: &str = "parallel.sequence_2D.head_size";

pub(super) fn parallel(config: &Config, rules: &mut Rules) {
    let parallel = &config.parallel;
    rules.check(parallel.pipeline.size <= 1, &["parallel.pipeline.size"], || {
        format!("pipeline parallelism of {} is not supported in this version, set it to 1", parallel.pipeline.size)
    });
    match ParallelLayout::new(parallel, config.launch.ranks) {
        Ok(layout) => dimensions(config, &layout, rules),
        Err(errors) => {
            for violation in errors.0 {
                let keys = match violation.key {
                    "launch.ranks" => vec!["launch.ranks"],
                    "parallel.tensor.mode" => vec!["parallel.tensor.mode"],
                    key => vec![key, "launch.ranks"],
                };
                rules.check(false, &keys, || violation.message);
            }
        }
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

/// What can be divided as the layout says.
fn dimensions(config: &Config, layout: &ParallelLayout, rules: &mut Rules) {
    let tensor = layout.size(GroupKind::Tensor);
    if tensor == 1 {
        return;
    }
    if layout.is_isp() {
        sequence_groups(config, layout, rules);
    } else {
        divided_layers(&config.model, tensor, rules);
    }
    let splits_tokens = config.parallel.tensor.mode != "mtp";
    let tokens = config.data.seq_len * config.data.micro_bsz;
    // A ring gives every rank two pieces, one from each end.
    let pieces = match layout.size(GroupKind::SequenceContext) {
        1 => tensor,
        context => 2 * context * layout.size(GroupKind::SequenceHead),
    };
    rules.check(!splits_tokens || tokens.is_multiple_of(pieces), &["data.seq_len", "data.micro_bsz", TENSOR], || {
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
fn sequence_groups(config: &Config, layout: &ParallelLayout, rules: &mut Rules) {
    let (model, head) = (&config.model, layout.size(GroupKind::SequenceHead));
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
