//! `config.json` and `generation_config.json`: what we write, and what we accept.
//!
//! Both the classic keys (`rope_theta`, `torch_dtype`: transformers 4, vLLM, llama.cpp) and their successors
//! (`rope_parameters`, `dtype`: transformers 5) are written; on reading either will do.

use std::path::{Path, PathBuf};

use internevo_core::storage;
use internevo_kernels::KernelSet;
use serde_json::{Map, Value, json};

use super::{Format, INTERNLM2_REMOTE_CODE, tokenizer::TokenIds};
use crate::{
    error::ModelError,
    spec::{InitSpec, ModelSpec},
};

/// `config.json` of an export.
pub(super) fn config_json(format: Format, spec: &ModelSpec, ids: &TokenIds) -> Value {
    let mut config = json!({
        "architectures": [architecture(format)],
        "model_type": model_type(format),
        "vocab_size": spec.vocab,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.ffn,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": spec.max_positions,
        "initializer_range": 0.02,
        "rms_norm_eps": spec.eps,
        "use_cache": true,
        "tie_word_embeddings": false,
        "rope_theta": spec.rope_base,
        "torch_dtype": "float32",
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "pad_token_id": ids.pad,
    });
    let own = match format {
        Format::Llama => json!({
            "head_dim": spec.head_dim,
            "attention_bias": false,
            "attention_dropout": 0.0,
            "mlp_bias": false,
            "pretraining_tp": 1,
            "rope_parameters": { "rope_theta": spec.rope_base, "rope_type": "default" },
            "dtype": "float32",
        }),
        Format::InternLm2 => json!({
            "auto_map": {
                "AutoConfig": format!("{INTERNLM2_REMOTE_CODE}--configuration_internlm2.InternLM2Config"),
                "AutoModel": format!("{INTERNLM2_REMOTE_CODE}--modeling_internlm2.InternLM2ForCausalLM"),
                "AutoModelForCausalLM": format!("{INTERNLM2_REMOTE_CODE}--modeling_internlm2.InternLM2ForCausalLM"),
            },
            "attn_implementation": "eager",
            "bias": false,
            "rope_scaling": null,
        }),
    };
    let own = own.as_object().cloned().unwrap_or_default();
    config.as_object_mut().expect("built as an object").extend(own);
    config
}

/// `generation_config.json` of an export.
pub(super) fn generation_config_json(ids: &TokenIds) -> Value {
    json!({
        "_from_model_config": true,
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "pad_token_id": ids.pad,
    })
}

fn architecture(format: Format) -> &'static str {
    match format {
        Format::Llama => "LlamaForCausalLM",
        Format::InternLm2 => "InternLM2ForCausalLM",
    }
}

fn model_type(format: Format) -> &'static str {
    match format {
        Format::Llama => "llama",
        Format::InternLm2 => "internlm2",
    }
}

/// What a foreign `config.json` says.
#[derive(Debug)]
pub(super) struct Described {
    pub format: Format,
    pub spec: ModelSpec,
    pub tied: bool,
}

/// Reads the `config.json` of a model folder and refuses whatever this decoder does not compute.
pub(super) fn read(dir: &Path) -> Result<Described, ModelError> {
    let path = dir.join("config.json");
    let text = storage::read(&path)?;
    let object: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|source| ModelError::Json { path: path.clone(), source })?;
    let keys = Keys { path, object };
    let format = keys.format()?;
    keys.refuse_other_computations()?;
    let heads = keys.count("num_attention_heads")?;
    let hidden = keys.count("hidden_size")?;
    let spec = ModelSpec {
        hidden,
        layers: keys.count("num_hidden_layers")?,
        heads,
        kv_heads: keys.count_or("num_key_value_heads", heads)?,
        head_dim: keys.count_or("head_dim", hidden / heads.max(1))?,
        ffn: keys.count("intermediate_size")?,
        vocab: keys.count("vocab_size")?,
        max_positions: keys.count_or("max_position_embeddings", 2048)?,
        eps: keys.number_or("rms_norm_eps", 1e-6)?,
        rope_base: keys.rope_base()?,
        kernels: KernelSet::Fused,
        init: InitSpec::default(),
    };
    spec.validate().map_err(|e| keys.wrong("(dimensions)", e.to_string()))?;
    let tied = keys.flag("tie_word_embeddings")?;
    Ok(Described { format, spec, tied })
}

struct Keys {
    path: PathBuf,
    object: Map<String, Value>,
}

impl Keys {
    fn wrong(&self, key: &str, message: impl Into<String>) -> ModelError {
        ModelError::Key { path: self.path.clone(), key: key.to_owned(), message: message.into() }
    }

    /// The value, unless absent or null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|v| !v.is_null())
    }

    fn count(&self, key: &str) -> Result<usize, ModelError> {
        let value = self.get(key).ok_or_else(|| self.wrong(key, "missing"))?;
        let count = value.as_u64().and_then(|n| usize::try_from(n).ok());
        count.ok_or_else(|| self.wrong(key, format!("{value} is no whole number")))
    }

    fn count_or(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        if self.get(key).is_some() { self.count(key) } else { Ok(default) }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().ok_or_else(|| self.wrong(key, format!("{value} is no number")))
    }

    fn flag(&self, key: &str) -> Result<bool, ModelError> {
        let Some(value) = self.get(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.wrong(key, format!("{value} is neither true nor false")))
    }

    fn format(&self) -> Result<Format, ModelError> {
        let kind = self.get("model_type").and_then(Value::as_str);
        let class = self.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
        let known = [Format::Llama, Format::InternLm2];
        let found = match kind {
            Some(kind) => known.into_iter().find(|f| model_type(*f) == kind),
            None => known.into_iter().find(|f| class == Some(architecture(*f))),
        };
        found.ok_or_else(|| {
            let found = kind.or(class).unwrap_or("nothing");
            self.wrong("model_type", format!("found `{found}`; `llama` and `internlm2` can be imported"))
        })
    }

    fn refuse_other_computations(&self) -> Result<(), ModelError> {
        for key in ["attention_bias", "mlp_bias", "bias"] {
            if self.flag(key)? {
                return Err(self.wrong(key, "this decoder has no biases"));
            }
        }
        if let Some(act) = self.get("hidden_act")
            && !matches!(act.as_str(), Some("silu" | "swish"))
        {
            return Err(self.wrong("hidden_act", format!("found {act}; this decoder computes SwiGLU (`silu`)")));
        }
        if self.get("quantization_config").is_some() {
            return Err(self.wrong("quantization_config", "quantised weights cannot be imported"));
        }
        for key in ["rope_scaling", "rope_parameters"] {
            let Some(scaling) = self.get(key) else { continue };
            let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).unwrap_or(&Value::Null);
            if !kind.is_null() && kind != "default" {
                return Err(self.wrong(
                    key,
                    format!("rotary scaling {kind} is not supported, only `default`; results would differ"),
                ));
            }
        }
        Ok(())
    }

    fn rope_base(&self) -> Result<f64, ModelError> {
        let nested = self.get("rope_parameters").and_then(|p| p.get("rope_theta")).filter(|v| !v.is_null());
        let classic = self.number_or("rope_theta", 10_000.0)?;
        let Some(nested) = nested else { return Ok(classic) };
        let base = nested
            .as_f64()
            .ok_or_else(|| self.wrong("rope_parameters.rope_theta", format!("{nested} is no number")))?;
        if self.get("rope_theta").is_some() && classic != base {
            return Err(self.wrong("rope_theta", format!("{classic} contradicts rope_parameters.rope_theta = {base}")));
        }
        Ok(base)
    }
}
