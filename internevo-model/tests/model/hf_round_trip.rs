//! Export and import: what goes out comes back bit for bit, and the files hold what their names say.

use std::{collections::HashMap, fs, path::Path};

use internevo_core::rng::CounterRng;
use internevo_kernels::KernelSet;
use internevo_model::{
    InitSpec, ModelSpec,
    hf::{ExportOptions, Format, TokenizerFiles, export, export_internlm2, export_llama, import},
    param_table,
};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{random_parameters, small_spec};

fn spec_of(kv_heads: usize, q_per_kv: usize, half_head: usize, sizes: [usize; 4]) -> ModelSpec {
    let [hidden, ffn, vocab, layers] = sizes;
    ModelSpec {
        hidden,
        layers,
        heads: kv_heads * q_per_kv,
        kv_heads,
        head_dim: 2 * half_head,
        ffn,
        vocab,
        max_positions: 64,
        eps: 1e-6,
        rope_base: 1e6,
        kernels: KernelSet::Fused,
        init: InitSpec::default(),
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .expect("a folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into())
        .collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_model_survives_both_formats_and_any_shard_size(
        kv_heads in 1usize..4,
        q_per_kv in prop::sample::select(vec![1usize, 2, 4]),
        half_head in 1usize..4,
        sizes in [1usize..20, 1usize..20, 1usize..30, 1usize..4],
        shard in prop::sample::select(vec![1u64, 700, 5_000, 5_000_000_000]),
        seed: u64,
    ) {
        let spec = spec_of(kv_heads, q_per_kv, half_head, sizes);
        let flat = random_parameters(&spec, seed);
        let dir = tempfile::tempdir().expect("temporary folder");
        for format in [Format::Llama, Format::InternLm2] {
            // InternLM2's configuration cannot say a head width of its own.
            let hidden = if format == Format::InternLm2 { spec.heads * spec.head_dim } else { spec.hidden };
            let spec = ModelSpec { hidden, ..spec.clone() };
            let flat = if hidden == sizes[0] { flat.clone() } else { random_parameters(&spec, seed) };
            let target = dir.path().join(format.name());
            export(&target, &spec, &flat, &ExportOptions::new(format).with_max_shard_bytes(shard)).expect("exports");
            let back = import(&target).expect("imports");
            prop_assert_eq!(back.format, format);
            prop_assert_eq!(&back.spec, &spec);
            prop_assert!(!back.tied);
            let same = back.params.iter().zip(&flat).all(|(a, b)| a.to_bits() == b.to_bits());
            prop_assert!(same && back.params.len() == flat.len());
        }
        prop_assert_eq!(entries(dir.path()), ["hf-internlm2", "hf-llama"]);
    }
}

#[test]
fn exported_llama_rows_are_the_rows_of_wqkv_by_the_index_formula() {
    for (kv_heads, q_per_kv) in [(1, 4), (3, 2), (2, 1)] {
        let spec = spec_of(kv_heads, q_per_kv, 2, [7, 5, 11, 2]);
        let flat = random_parameters(&spec, 6);
        let dir = tempfile::tempdir().expect("temporary folder");
        export_llama(dir.path(), &spec, &flat, None).expect("exports");
        let bytes = fs::read(dir.path().join("model.safetensors")).expect("one file");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("a header");
        assert_eq!(metadata.metadata(), &Some(HashMap::from([("format".into(), "pt".into())])));
        assert_eq!(file.len(), 3 + 9 * spec.layers);

        let wqkv = param_table(&spec).into_iter().find(|p| p.name == "layers.1.attention.wqkv.weight").expect("named");
        let wqkv = &flat[wqkv.range()];
        let (d, g, h) = (spec.head_dim, q_per_kv, spec.hidden);
        // (name, heads, slot of head n within its group, its group)
        type Place = fn(usize, usize) -> (usize, usize);
        let q: Place = |n, g| (n / g, n % g);
        let k: Place = |n, g| (n, g);
        let v: Place = |n, g| (n, g + 1);
        for (name, heads, place) in [("q_proj", spec.heads, q), ("k_proj", kv_heads, k), ("v_proj", kv_heads, v)] {
            let tensor = file.tensor(&format!("model.layers.1.self_attn.{name}.weight")).expect("stored");
            assert_eq!(tensor.shape(), [heads * d, h]);
            for (i, value) in tensor.data().chunks_exact(4).enumerate() {
                let (row, column) = (i / h, i % h);
                let (group, slot) = place(row / d, g);
                let expected = wqkv[((group * (g + 2) + slot) * d + row % d) * h + column];
                assert_eq!(f32::from_le_bytes(value.try_into().expect("four bytes")), expected, "{name} row {row}");
            }
        }
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON")
}

#[test]
fn both_spellings_of_the_configuration_are_written() {
    let spec = small_spec(2, 2, KernelSet::Fused);
    let flat = random_parameters(&spec, 1);
    let dir = tempfile::tempdir().expect("temporary folder");
    export_llama(dir.path(), &spec, &flat, None).expect("exports");
    let config = read_json(&dir.path().join("config.json"));
    assert_eq!(config["rope_theta"], 100.0);
    assert_eq!(config["rope_parameters"], json!({ "rope_theta": 100.0, "rope_type": "default" }));
    assert_eq!((&config["torch_dtype"], &config["dtype"]), (&json!("float32"), &json!("float32")));
    assert_eq!((&config["head_dim"], &config["num_key_value_heads"]), (&json!(6), &json!(2)));
    assert_eq!(config["architectures"], json!(["LlamaForCausalLM"]));

    let spec = ModelSpec { hidden: 24, ..spec };
    let flat = random_parameters(&spec, 1);
    // The earlier export is replaced as a whole.
    export_internlm2(dir.path(), &spec, &flat, None).expect("exports");
    let config = read_json(&dir.path().join("config.json"));
    assert_eq!(config["model_type"], "internlm2");
    let remote = config["auto_map"]["AutoModelForCausalLM"].as_str().expect("a reference");
    assert_eq!(remote, "internlm/internlm2-7b--modeling_internlm2.InternLM2ForCausalLM");
    let bytes = fs::read(dir.path().join("model.safetensors")).expect("one file");
    let names = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    assert!(names.tensor("model.layers.0.attention.wqkv.weight").is_ok() && names.tensor("output.weight").is_ok());
}

#[test]
fn shards_are_indexed_and_none_is_larger_than_asked() {
    let spec = small_spec(2, 2, KernelSet::Fused);
    let flat = random_parameters(&spec, 2);
    let dir = tempfile::tempdir().expect("temporary folder");
    let limit = 6_000;
    export(dir.path(), &spec, &flat, &ExportOptions::new(Format::Llama).with_max_shard_bytes(limit)).expect("exports");
    assert!(!dir.path().join("model.safetensors").exists());
    let index = read_json(&dir.path().join("model.safetensors.index.json"));
    assert_eq!(index["metadata"]["total_size"], 4 * flat.len());
    let map = index["weight_map"].as_object().expect("a map");
    let files: std::collections::BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        let bytes = fs::read(dir.path().join(file)).expect("the shard is there");
        let shard = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        assert!(shard.tensors().iter().all(|(name, _)| map[name] == file));
        assert!(shard.tensors().iter().map(|(_, t)| t.data().len() as u64).sum::<u64>() <= limit);
    }
}

#[test]
fn the_tokenizer_is_copied_and_its_special_tokens_are_looked_up() {
    let spec = small_spec(1, 1, KernelSet::Fused);
    let flat = random_parameters(&spec, 3);
    let dir = tempfile::tempdir().expect("temporary folder");
    let source = dir.path().join("trained.json");
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [{ "id": 0, "content": "<s>" }, { "id": 1, "content": "</s>" }],
        "model": { "type": "BPE", "vocab": { "<s>": 0, "</s>": 1, "a": 2 }, "merges": [] },
    });
    fs::write(&source, tokenizer.to_string()).expect("writes");
    let files = TokenizerFiles {
        tokenizer_json: source.clone(),
        bos: Some("<s>".into()),
        eos: Some("</s>".into()),
        pad: Some("</s>".into()),
    };
    let out = dir.path().join("out");
    export_llama(&out, &spec, &flat, Some(files.clone())).expect("exports");
    assert_eq!(fs::read(out.join("tokenizer.json")).expect("copied"), fs::read(&source).expect("there"));
    let config = read_json(&out.join("tokenizer_config.json"));
    assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!((&config["bos_token"], &config["pad_token"]), (&json!("<s>"), &json!("</s>")));
    for file in ["config.json", "generation_config.json"] {
        let config = read_json(&out.join(file));
        assert_eq!(
            (&config["bos_token_id"], &config["eos_token_id"], &config["pad_token_id"]),
            (&json!(0), &json!(1), &json!(1))
        );
    }
    assert_eq!(import(&out).expect("imports").tokenizer_json, Some(out.join("tokenizer.json")));

    let unknown = TokenizerFiles { bos: Some("<bos>".into()), ..files.clone() };
    let error = export_llama(&out, &spec, &flat, Some(unknown)).expect_err("not in the file").to_string();
    assert!(error.contains("trained.json") && error.contains("<bos>"), "{error}");
    fs::write(&source, tokenizer.to_string().replace("\"a\":2", "\"a\":37")).expect("writes");
    let error = export_llama(&out, &spec, &flat, Some(files)).expect_err("the model has 37 rows").to_string();
    assert!(error.contains("37"), "{error}");
}

#[test]
fn half_precision_weights_are_widened_exactly() {
    let spec = spec_of(2, 2, 1, [8, 3, 5, 1]);
    let rng = CounterRng::new(1, "half");
    let (f16s, bf16s): (Vec<_>, Vec<_>) = (0..spec.parameter_count() as u64)
        .map(|i| (half::f16::from_f64(rng.normal(i)), half::bf16::from_f64(rng.normal(i))))
        .unzip();
    let exact16: Vec<f32> = f16s.iter().map(|x| x.to_f32()).collect();
    let exactbf: Vec<f32> = bf16s.iter().map(|x| x.to_f32()).collect();
    for (dtype, flat) in [(safetensors::Dtype::F16, exact16), (safetensors::Dtype::BF16, exactbf)] {
        let dir = tempfile::tempdir().expect("temporary folder");
        export_llama(dir.path(), &spec, &flat, None).expect("exports");
        rewrite(&dir.path().join("model.safetensors"), |_, tensor| {
            let values = tensor.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
            tensor.data = match dtype {
                safetensors::Dtype::F16 => values.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
                _ => values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
            };
            tensor.dtype = dtype;
            true
        });
        assert_eq!(import(dir.path()).expect("imports").params, flat);
    }
}

#[test]
fn a_tied_head_becomes_a_copy_of_the_embedding() {
    let spec = small_spec(2, 1, KernelSet::Fused);
    let mut flat = random_parameters(&spec, 4);
    for keep_head in [false, true] {
        let dir = tempfile::tempdir().expect("temporary folder");
        export_llama(dir.path(), &spec, &flat, None).expect("exports");
        rewrite(&dir.path().join("model.safetensors"), |name, _| keep_head || name != "lm_head.weight");
        edit_config(dir.path(), |config| config["tie_word_embeddings"] = json!(true));
        let back = import(dir.path()).expect("imports");
        assert!(back.tied);
        // transformers computes with the embedding even where a head is stored, so that is what tied means.
        let table = param_table(&spec);
        let embedding = flat[table[0].range()].to_vec();
        let head = table.last().expect("the head").range();
        flat[head].copy_from_slice(&embedding);
        assert_eq!(back.params, flat);
    }
}

/// A tensor of a file that a test rewrites.
pub struct Stored {
    pub dtype: safetensors::Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// Rewrites a safetensors file tensor by tensor; `change` returns whether to keep it.
pub fn rewrite(path: &Path, mut change: impl FnMut(&str, &mut Stored) -> bool) {
    let bytes = fs::read(path).expect("readable");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut tensors: Vec<(String, Stored)> = Vec::new();
    for (name, t) in file.tensors() {
        let mut stored = Stored { dtype: t.dtype(), shape: t.shape().to_vec(), data: t.data().to_vec() };
        if change(&name, &mut stored) {
            tensors.push((name, stored));
        }
    }
    let views = tensors.iter().map(|(name, t)| {
        (name, safetensors::tensor::TensorView::new(t.dtype, t.shape.clone(), &t.data).expect("sizes fit"))
    });
    fs::write(path, safetensors::serialize(views, None).expect("serialises")).expect("writes");
}

/// Changes `config.json`.
pub fn edit_config(dir: &Path, change: impl FnOnce(&mut Value)) {
    let path = dir.join("config.json");
    let mut config = read_json(&path);
    change(&mut config);
    fs::write(path, config.to_string()).expect("writes");
}
