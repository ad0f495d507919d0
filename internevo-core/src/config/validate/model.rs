//! Rules of the decoder's dimensions.

use super::Rules;
use crate::config::schema::ModelConfig;

const HIDDEN: &str = "model.hidden_size";
const HEADS: &str = "model.num_attention_heads";
const KV_HEADS: &str = "model.num_kv_attention_heads";

pub(super) fn model(model: &ModelConfig, rules: &mut Rules) {
    dimensions(model, rules);
    rules.positive("model.layer_norm_epsilon", model.layer_norm_epsilon);
    rules.check(model.rope_base > 1.0, &["model.rope_base"], || format!("{} must be above 1", model.rope_base));
    rules.check(model.dtype == "torch.float32", &["model.dtype"], || {
        format!("`{}`: only `torch.float32` is supported on the CPU device in this version", model.dtype)
    });
    rules.one_of("model.kernels", &model.kernels, &["fused", "reference"]);
    rules.one_of("model.init_type", &model.init_type, &["normal", "uniform"]);
    for (key, std) in [
        ("model.embedding_init_std", model.embedding_init_std),
        ("model.attn_wqkv_init_std", model.attn_wqkv_init_std),
        ("model.attn_other_init_std", model.attn_other_init_std),
        ("model.ffn_uplayer_init_std", model.ffn_uplayer_init_std),
        ("model.ffn_other_init_std", model.ffn_other_init_std),
        ("model.out_head_init_std", model.out_head_init_std),
    ] {
        rules.not_negative(key, std);
    }
}

fn dimensions(model: &ModelConfig, rules: &mut Rules) {
    let (hidden, heads, kv_heads) = (model.hidden_size, model.num_attention_heads, model.num_kv_attention_heads);
    rules.at_least_one(HIDDEN, hidden);
    rules.at_least_one(HEADS, heads);
    rules.at_least_one(KV_HEADS, kv_heads);
    rules.at_least_one("model.num_layers", model.num_layers);
    rules.at_least_one("model.vocab_multiple", model.vocab_multiple);
    rules.at_least_one("model.multiple_of", model.multiple_of);
    rules.positive("model.mlp_ratio", model.mlp_ratio);
    if hidden == 0 || heads == 0 {
        return;
    }
    rules.check(kv_heads == 0 || heads.is_multiple_of(kv_heads), &[HEADS, KV_HEADS], || {
        format!("{heads} query heads cannot share {kv_heads} key/value heads evenly")
    });
    rules.check(hidden.is_multiple_of(heads), &[HIDDEN, HEADS], || {
        format!("{hidden} is not a multiple of {heads} heads")
    });
    let head_dim = hidden / heads;
    rules.check(!hidden.is_multiple_of(heads) || head_dim.is_multiple_of(2), &[HIDDEN, HEADS], || {
        format!("{hidden} / {heads} heads = {head_dim} is odd; rotary embeddings need an even head")
    });
}
