//! Hugging Face folders, both ways: `LlamaForCausalLM` (exact, loads anywhere) and `InternLM2ForCausalLM` (our own names).
//!
//! Everything works on a [`ModelSpec`](crate::ModelSpec) and one flat parameter vector, so converting a checkpoint needs
//! no tensor engine. Files: `layout.rs` says which tensor holds which elements, `safetensors_file.rs` moves the bytes,
//! `config.rs` and `tokenizer.rs` are the JSON around them, `export.rs` and `import.rs` the two directions.

mod config;
mod export;
mod import;
mod layout;
mod safetensors_file;
mod tokenizer;

pub use export::{DEFAULT_SHARD_BYTES, ExportOptions, export, export_internlm2, export_llama};
pub use import::{Imported, import};
pub use tokenizer::TokenizerFiles;

/// The two spellings of the same decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `LlamaForCausalLM`: `wqkv` is split into q, k and v. Loads in `transformers`, vLLM, llama.cpp without remote code.
    Llama,
    /// `InternLM2ForCausalLM`: fused `wqkv`, InternLM2's names. `transformers` needs `trust_remote_code=True` and fetches
    /// the classes from the hub repository that `auto_map` names ([`INTERNLM2_REMOTE_CODE`]); nothing of it is copied.
    InternLm2,
}

/// The hub repository whose modelling code an InternLM2 export refers to.
pub const INTERNLM2_REMOTE_CODE: &str = "internlm/internlm2-7b";

impl Format {
    /// The name on the command line: `hf-llama` or `hf-internlm2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "hf-llama",
            Self::InternLm2 => "hf-internlm2",
        }
    }

    /// The format called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Llama, Self::InternLm2].into_iter().find(|f| f.name() == name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use internevo_kernels::KernelSet;

    use crate::{InitSpec, ModelSpec};

    /// A small model whose sizes are all different, so that no mix-up of dimensions goes unnoticed.
    pub(crate) fn odd_spec(kv_heads: usize, q_per_kv: usize) -> ModelSpec {
        ModelSpec {
            hidden: 14,
            layers: 2,
            heads: kv_heads * q_per_kv,
            kv_heads,
            head_dim: 6,
            ffn: 11,
            vocab: 23,
            max_positions: 40,
            eps: 3e-6,
            rope_base: 50_000.0,
            kernels: KernelSet::Fused,
            init: InitSpec::default(),
        }
    }
}
