//! Which Hugging Face tensor is made of which elements of our flat parameters. One table serves both directions: export
//! walks the ranges reading, import walks them writing.
//!
//! Not here: files and configuration.

use std::ops::Range;

use super::Format;
use crate::spec::{ModelSpec, Parameter, param_table};

/// One tensor of a Hugging Face checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HfTensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape, `[out, in]` for matrices.
    pub shape: Vec<usize>,
    /// The flat elements it consists of, concatenated in row-major order.
    pub ranges: Vec<Range<usize>>,
}

impl HfTensor {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The tensors of a checkpoint in our table's order; together they cover every parameter exactly once.
pub(super) fn tensors(format: Format, spec: &ModelSpec) -> Vec<HfTensor> {
    param_table(spec)
        .into_iter()
        .flat_map(|parameter| match format {
            Format::InternLm2 => vec![whole(internlm2_name(&parameter.name), &parameter)],
            Format::Llama => llama(spec, &parameter),
        })
        .collect()
}

fn whole(name: String, parameter: &Parameter) -> HfTensor {
    HfTensor { name, shape: parameter.shape.clone(), ranges: vec![parameter.range()] }
}

fn internlm2_name(name: &str) -> String {
    if name.starts_with("output.") { name.to_owned() } else { format!("model.{name}") }
}

fn llama(spec: &ModelSpec, parameter: &Parameter) -> Vec<HfTensor> {
    let fixed = match parameter.name.as_str() {
        "tok_embeddings.weight" => Some("model.embed_tokens.weight"),
        "norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        _ => None,
    };
    if let Some(name) = fixed {
        return vec![whole(name.to_owned(), parameter)];
    }
    let rest = parameter.name.strip_prefix("layers.").expect("every other parameter belongs to a layer");
    let (layer, part) = rest.split_once('.').expect("a layer's parameter has a name");
    let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
    let part = match part {
        "attention_norm.weight" => "input_layernorm",
        "attention.wo.weight" => "self_attn.o_proj",
        "ffn_norm.weight" => "post_attention_layernorm",
        "feed_forward.w1.weight" => "mlp.gate_proj",
        "feed_forward.w3.weight" => "mlp.up_proj",
        "feed_forward.w2.weight" => "mlp.down_proj",
        _ => return split_wqkv(spec, parameter, name),
    };
    vec![whole(name(part), parameter)]
}

/// `wqkv` holds, for each key/value head, `q_per_kv` query heads, one key head and one value head (InternLM2 report,
/// section 2.2); LLaMA stores the three kinds apart.
fn split_wqkv(spec: &ModelSpec, parameter: &Parameter, name: impl Fn(&str) -> String) -> Vec<HfTensor> {
    let head = spec.head_dim * spec.hidden;
    let group = (spec.q_per_kv() + 2) * head;
    // First head and number of heads of each kind within a group.
    let q = spec.q_per_kv();
    let kinds = [("self_attn.q_proj", 0, q), ("self_attn.k_proj", q, 1), ("self_attn.v_proj", q + 1, 1)];
    let tensor = |(part, first, heads): (&str, usize, usize)| HfTensor {
        name: name(part),
        shape: vec![spec.kv_heads * heads * spec.head_dim, spec.hidden],
        ranges: (0..spec.kv_heads)
            .map(|kv| parameter.offset + kv * group + first * head)
            .map(|start| start..start + heads * head)
            .collect(),
    };
    kinds.into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hf::tests::odd_spec, spec::param_table};

    #[test]
    fn every_element_is_covered_once_in_both_formats() {
        for (kv_heads, q_per_kv) in [(1, 1), (3, 2), (2, 4)] {
            let spec = odd_spec(kv_heads, q_per_kv);
            for format in [Format::Llama, Format::InternLm2] {
                let mut ranges: Vec<_> = tensors(format, &spec).into_iter().flat_map(|t| t.ranges).collect();
                ranges.sort_by_key(|r| r.start);
                let mut next = 0;
                for range in ranges {
                    assert_eq!(range.start, next);
                    next = range.end;
                }
                assert_eq!(next, spec.parameter_count());
            }
        }
    }

    #[test]
    fn query_rows_follow_the_index_formula_of_the_paper() {
        let spec = odd_spec(3, 2);
        let wqkv = param_table(&spec).into_iter().find(|p| p.name == "layers.1.attention.wqkv.weight").expect("named");
        let (d, g, h) = (spec.head_dim, spec.q_per_kv(), spec.hidden);
        let rows = |name: &str| -> Vec<usize> {
            let tensor = tensors(Format::Llama, &spec).into_iter().find(|t| t.name == name).expect("named");
            let elements: Vec<usize> = tensor.ranges.into_iter().flatten().collect();
            assert_eq!(elements.len(), tensor.shape[0] * h);
            elements.chunks(h).map(|row| (row[0] - wqkv.offset) / h).collect()
        };
        // Query head n sits in group n / g at place n % g.
        let q: Vec<usize> = (0..spec.heads * d).map(|r| (r / d / g * (g + 2) + r / d % g) * d + r % d).collect();
        let k: Vec<usize> = (0..spec.kv_heads * d).map(|r| (r / d * (g + 2) + g) * d + r % d).collect();
        let v: Vec<usize> = (0..spec.kv_heads * d).map(|r| (r / d * (g + 2) + g + 1) * d + r % d).collect();
        assert_eq!(rows("model.layers.1.self_attn.q_proj.weight"), q);
        assert_eq!(rows("model.layers.1.self_attn.k_proj.weight"), k);
        assert_eq!(rows("model.layers.1.self_attn.v_proj.weight"), v);
    }
}
