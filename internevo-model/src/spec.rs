//! What a decoder is made of: its dimensions, and the table of its parameters in the one order that everything shares
//! (module, flat vector, optimizer shards, checkpoints).
//!
//! Not here: drawing the initial values ([`crate::init`]) and the tensors themselves ([`crate::decoder`]).

use internevo_core::{
    config::{ModelConfig, ParallelConfig},
    flops::{self, ModelShape},
    layout::ParallelLayout,
};
use internevo_kernels::KernelSet;
use internevo_parallel::{ParamSpec, StatePlan, Strategy, state::LocalTable, strategy::Role};
use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// A fully resolved decoder: every dimension is known, the vocabulary too. Serialisable, so that a checkpoint can say
/// what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Decoder blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads (GQA); divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Rows of the embedding and of the head.
    pub vocab: usize,
    /// Longest segment the model is trained on (`max_position_embeddings` of HF).
    pub max_positions: usize,
    /// Epsilon of RMSNorm.
    pub eps: f64,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// Which implementation of the operations runs.
    #[serde(with = "kernel_name")]
    pub kernels: KernelSet,
    /// Standard deviations of the initial weights.
    pub init: InitSpec,
}

/// How the initial weights are distributed; names follow InternEvo's `*_init_std` keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitSpec {
    /// Uniform with the same standard deviation instead of normal.
    pub uniform: bool,
    /// Standard deviation of the embedding.
    pub embedding: f64,
    /// Standard deviation of `wqkv`.
    pub wqkv: f64,
    /// Standard deviation of `wo`, scaling included.
    pub wo: f64,
    /// Standard deviation of `w1` and `w3`.
    pub w1_w3: f64,
    /// Standard deviation of `w2`, scaling included.
    pub w2: f64,
    /// Standard deviation of the head.
    pub head: f64,
}

impl Default for InitSpec {
    /// 0.02 everywhere, InternEvo's default, without the scaling by depth.
    fn default() -> Self {
        Self { uniform: false, embedding: 0.02, wqkv: 0.02, wo: 0.02, w1_w3: 0.02, w2: 0.02, head: 0.02 }
    }
}

impl InitSpec {
    /// The `model.*init*` keys; `use_scaled_init` divides `wo` and `w2` by `sqrt(2 * layers)` (Megatron, InternEvo).
    pub fn from_config(config: &ModelConfig) -> Self {
        let depth = if config.use_scaled_init { (2.0 * config.num_layers.max(1) as f64).sqrt() } else { 1.0 };
        Self {
            uniform: config.init_type == "uniform",
            embedding: config.embedding_init_std,
            wqkv: config.attn_wqkv_init_std,
            wo: config.attn_other_init_std / depth,
            w1_w3: config.ffn_uplayer_init_std,
            w2: config.ffn_other_init_std / depth,
            head: config.out_head_init_std,
        }
    }
}

/// The distribution one parameter is drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All ones (norm weights).
    Ones,
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform with mean 0 on `±sqrt(3) * std`.
    Uniform {
        /// Standard deviation.
        std: f64,
    },
}

/// One row of the parameter table.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Global name, e.g. `layers.0.attention.wqkv.weight`.
    pub name: String,
    /// `[out, in]` for matrices, `[width]` for norms.
    pub shape: Vec<usize>,
    /// Whether weight decay applies (not to norms).
    pub decay: bool,
    /// Initial distribution.
    pub init: Init,
    /// Where it starts in the flat vector, in elements.
    pub offset: usize,
}

impl Parameter {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its elements in the flat vector.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.count()
    }
}

impl ModelSpec {
    /// Resolves the `model` section. `tokenizer_size`: number of token ids in use; `max_positions`: longest segment
    /// (`data.seq_len`).
    ///
    /// # Errors
    /// [`ModelError::Spec`] with every violated rule.
    pub fn from_config(config: &ModelConfig, tokenizer_size: usize, max_positions: usize) -> Result<Self, ModelError> {
        let kernels = kernel_name::parse(&config.kernels).ok_or_else(|| ModelError::Spec {
            problems: vec![format!("model.kernels: `{}` is neither `fused` nor `reference`", config.kernels)],
        })?;
        let vocab = match config.vocab_size {
            0 => tokenizer_size.next_multiple_of(config.vocab_multiple.max(1)),
            size => size,
        };
        let spec = Self {
            hidden: config.hidden_size,
            layers: config.num_layers,
            heads: config.num_attention_heads,
            kv_heads: config.num_kv_attention_heads,
            head_dim: config.hidden_size / config.num_attention_heads.max(1),
            ffn: config.ffn_size(),
            vocab,
            max_positions,
            eps: config.layer_norm_epsilon,
            rope_base: config.rope_base,
            kernels,
            init: InitSpec::from_config(config),
        };
        let mut problems = spec.problems();
        if !config.hidden_size.is_multiple_of(config.num_attention_heads.max(1)) {
            problems.push(format!(
                "model.hidden_size: {} is no multiple of num_attention_heads = {}",
                config.hidden_size, config.num_attention_heads
            ));
        }
        if vocab < tokenizer_size {
            problems.push(format!("model.vocab_size: {vocab} is smaller than the tokenizer's {tokenizer_size} tokens"));
        }
        if !matches!(config.init_type.as_str(), "normal" | "uniform") {
            problems.push(format!("model.init_type: `{}` is neither `normal` nor `uniform`", config.init_type));
        }
        if problems.is_empty() { Ok(spec) } else { Err(ModelError::Spec { problems }) }
    }

    /// Checks the dimensions.
    ///
    /// # Errors
    /// [`ModelError::Spec`] with every violated rule.
    pub fn validate(&self) -> Result<(), ModelError> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(ModelError::Spec { problems }) }
    }

    fn problems(&self) -> Vec<String> {
        let sizes = [
            ("hidden_size", self.hidden),
            ("num_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_kv_attention_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("ffn_size", self.ffn),
            ("vocab_size", self.vocab),
            ("max_positions", self.max_positions),
        ];
        let mut problems: Vec<String> =
            sizes.iter().filter(|(_, n)| *n == 0).map(|(key, _)| format!("model.{key}: must not be 0")).collect();
        if self.kv_heads > 0 && !self.heads.is_multiple_of(self.kv_heads) {
            problems.push(format!(
                "model.num_attention_heads: {} is no multiple of num_kv_attention_heads = {}",
                self.heads, self.kv_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            problems.push(format!("model.head_dim: {} is odd, rotary embedding needs pairs", self.head_dim));
        }
        for (key, value) in [("layer_norm_epsilon", self.eps), ("rope_base", self.rope_base)] {
            if !(value.is_finite() && value > 0.0) {
                problems.push(format!("model.{key}: {value} is not positive"));
            }
        }
        problems
    }

    /// Query heads that share one key/value head.
    pub fn q_per_kv(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Rows of `wqkv`: `(heads + 2 * kv_heads) * head_dim`.
    pub fn qkv_rows(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// The dimensions that FLOPs are counted from.
    pub fn shape(&self) -> ModelShape {
        ModelShape {
            hidden: self.hidden as u64,
            layers: self.layers as u64,
            heads: self.heads as u64,
            kv_heads: self.kv_heads as u64,
            head_dim: self.head_dim as u64,
            ffn: self.ffn as u64,
            vocab: self.vocab as u64,
        }
    }

    /// Number of parameters.
    pub fn parameter_count(&self) -> usize {
        flops::parameters(&self.shape()) as usize
    }

    /// Refuses token ids outside the vocabulary.
    ///
    /// # Errors
    /// [`ModelError::Token`] with the first one.
    pub fn check_tokens(&self, tokens: &[u32]) -> Result<(), ModelError> {
        match tokens.iter().position(|t| *t as usize >= self.vocab) {
            None => Ok(()),
            Some(position) => Err(ModelError::Token { token: tokens[position], position, vocab: self.vocab }),
        }
    }
}

/// Every parameter in flat order: embedding, blocks from the first to the last, final norm, head.
pub fn param_table(spec: &ModelSpec) -> Vec<Parameter> {
    let mut table =
        TableBuilder { uniform: spec.init.uniform, rows: Vec::with_capacity(9 * spec.layers + 3), offset: 0 };
    let (h, init) = (spec.hidden, &spec.init);
    table.matrix("tok_embeddings.weight".into(), [spec.vocab, h], init.embedding);
    for i in 0..spec.layers {
        table.norm(format!("layers.{i}.attention_norm.weight"), h);
        table.matrix(format!("layers.{i}.attention.wqkv.weight"), [spec.qkv_rows(), h], init.wqkv);
        table.matrix(format!("layers.{i}.attention.wo.weight"), [h, spec.heads * spec.head_dim], init.wo);
        table.norm(format!("layers.{i}.ffn_norm.weight"), h);
        table.matrix(format!("layers.{i}.feed_forward.w1.weight"), [spec.ffn, h], init.w1_w3);
        table.matrix(format!("layers.{i}.feed_forward.w3.weight"), [spec.ffn, h], init.w1_w3);
        table.matrix(format!("layers.{i}.feed_forward.w2.weight"), [h, spec.ffn], init.w2);
    }
    table.norm("norm.weight".into(), h);
    table.matrix("output.weight".into(), [spec.vocab, h], init.head);
    table.rows
}

/// The table in the form that the optimizer and the checkpoints take.
pub fn param_specs(spec: &ModelSpec) -> Vec<ParamSpec> {
    param_table(spec).into_iter().map(|p| ParamSpec { name: p.name, shape: p.shape, decay: p.decay }).collect()
}

/// What a parameter is to the strategies of tensor parallelism.
pub fn role(name: &str) -> Role {
    match name {
        "tok_embeddings.weight" => Role::Embedding,
        "output.weight" => Role::Head,
        _ if name.ends_with("norm.weight") => Role::Norm,
        _ if name.ends_with("wo.weight") || name.ends_with("w2.weight") => Role::Row,
        _ => Role::Column,
    }
}

/// Who holds what of a model: its parameters divided as `strategy` and `layout` say. `bucket_bytes` is
/// `hybrid_zero_optimizer.reduce_bucket_size`.
pub fn state_plan(
    spec: &ModelSpec,
    strategy: &dyn Strategy,
    layout: &ParallelLayout,
    bucket_bytes: usize,
) -> StatePlan {
    let specs = param_specs(spec);
    let splits = specs.iter().map(|s| strategy.split(role(&s.name))).collect();
    let plan = StatePlan::new(specs, splits, strategy.splits_tokens(), layout.clone(), bucket_bytes);
    plan.expect("parameters have different names")
}

/// The table of a rank that holds everything: parameters one after the other.
pub(crate) fn whole_table(spec: &ModelSpec) -> LocalTable {
    let layout = ParallelLayout::new(&ParallelConfig::default(), 1).expect("one rank is a layout");
    let plan = StatePlan::replicated(param_specs(spec), layout, usize::MAX).expect("parameters have different names");
    plan.table(0).expect("parameters have different names")
}

struct TableBuilder {
    uniform: bool,
    rows: Vec<Parameter>,
    offset: usize,
}

impl TableBuilder {
    fn matrix(&mut self, name: String, shape: [usize; 2], std: f64) {
        let init = if self.uniform { Init::Uniform { std } } else { Init::Normal { std } };
        self.push(name, shape.to_vec(), true, init);
    }

    fn norm(&mut self, name: String, width: usize) {
        self.push(name, vec![width], false, Init::Ones);
    }

    fn push(&mut self, name: String, shape: Vec<usize>, decay: bool, init: Init) {
        let row = Parameter { name, shape, decay, init, offset: self.offset };
        self.offset += row.count();
        self.rows.push(row);
    }
}

/// `KernelSet` in files is its configuration name.
mod kernel_name {
    use internevo_kernels::KernelSet;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn parse(name: &str) -> Option<KernelSet> {
        match name {
            "fused" => Some(KernelSet::Fused),
            "reference" => Some(KernelSet::Reference),
            _ => None,
        }
    }

    pub(super) fn serialize<S: Serializer>(set: &KernelSet, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match set {
            KernelSet::Fused => "fused",
            KernelSet::Reference => "reference",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<KernelSet, D::Error> {
        let name = String::deserialize(from)?;
        parse(&name).ok_or_else(|| D::Error::custom(format!("`{name}` is neither `fused` nor `reference`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn internlm2_1_8b() -> ModelConfig {
        ModelConfig {
            hidden_size: 2048,
            num_layers: 24,
            num_attention_heads: 16,
            num_kv_attention_heads: 8,
            vocab_size: 92_544,
            mlp_ratio: 4.0,
            multiple_of: 256,
            ..ModelConfig::default()
        }
    }

    #[test]
    fn the_1_8b_configuration_has_the_released_number_of_parameters() {
        let spec = ModelSpec::from_config(&internlm2_1_8b(), 92_544, 4096).expect("valid");
        // Sum over the tensor shapes of the released internlm2-1_8b checkpoint.
        assert_eq!(spec.parameter_count(), 1_889_110_016);
    }

    #[test]
    fn the_table_is_gapless_and_counts_the_same_as_the_formula() {
        let config = ModelConfig { num_layers: 3, hidden_size: 48, num_attention_heads: 6, ..ModelConfig::default() };
        let config = ModelConfig { num_kv_attention_heads: 2, ..config };
        let spec = ModelSpec::from_config(&config, 300, 64).expect("valid");
        let mut next = 0;
        for row in param_table(&spec) {
            assert_eq!(row.offset, next, "{}", row.name);
            assert_eq!(row.decay, !row.name.contains("norm"), "{}", row.name);
            next = row.range().end;
        }
        assert_eq!(next, spec.parameter_count());
        assert_eq!(spec.vocab, 320, "300 tokens rounded up to a multiple of 64");
    }

    #[test]
    fn scaled_init_divides_only_the_residual_projections() {
        let config = ModelConfig { num_layers: 8, ..ModelConfig::default() };
        let init = InitSpec::from_config(&config);
        assert_eq!((init.wo, init.w2), (0.005, 0.005));
        assert_eq!((init.wqkv, init.w1_w3, init.embedding, init.head), (0.02, 0.02, 0.02, 0.02));
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let config = ModelConfig {
            num_attention_heads: 5,
            num_kv_attention_heads: 2,
            vocab_size: 10,
            init_type: "xavier".into(),
            ..ModelConfig::default()
        };
        let message = ModelSpec::from_config(&config, 300, 64).expect_err("four mistakes").to_string();
        for key in ["num_attention_heads", "hidden_size", "vocab_size", "init_type"] {
            assert!(message.contains(&format!("model.{key}")), "{key} in {message}");
        }
    }

    #[test]
    fn a_spec_survives_json() {
        let spec = ModelSpec::from_config(&ModelConfig::default(), 300, 64).expect("valid");
        let json = serde_json::to_string(&spec).expect("writes");
        assert_eq!(serde_json::from_str::<ModelSpec>(&json).expect("reads"), spec);
    }
}
