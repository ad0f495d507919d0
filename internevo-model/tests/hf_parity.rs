//! Our logits, greedy text and tokenizer files against `transformers` on the exported folder: live where a Python with torch and
//! transformers is at hand (`cargo xtask peers hf`), and everywhere against the logits that it gave then
//! (`golden/transformers_logits.json`, written anew by the same command).

use std::{env, fs, path::Path, process::Command};

use burn::tensor::Device;
use internevo_core::{batch::PackedBatch, rng::CounterRng};
use internevo_kernels::KernelSet;
use internevo_model::{
    Decoder, InitSpec, ModelSpec, Sampling, generate,
    hf::{ExportOptions, Format, TokenizerFiles, export},
    init::initial_parameters,
};
use serde_json::{Value, json};

const PYTHON: &str = "INTERNEVO_PEERS_PYTHON";
/// Names the file that the live test writes transformers' logits to.
const GOLDEN_OUT: &str = "INTERNEVO_GOLDEN_OUT";
const GOLDEN: &str = include_str!("golden/transformers_logits.json");
const VOCAB: usize = 302;
/// Length and seed of each prompt.
const PROMPTS: [(u64, u64); 3] = [(1, 1), (17, 2), (100, 3)];
/// Seed of the weights.
const SEED: u64 = 17;
/// Largest difference of two logits; they are of the order of 10.
const TOLERANCE: f64 = 1e-4;
const BOS: u32 = 300;
const EOS: u32 = 301;

fn model(kv_heads: usize, q_per_kv: usize, hidden: usize) -> ModelSpec {
    ModelSpec {
        hidden,
        layers: 3,
        heads: kv_heads * q_per_kv,
        kv_heads,
        head_dim: 16,
        ffn: 150,
        vocab: VOCAB,
        max_positions: 128,
        eps: 1e-5,
        rope_base: 50_000.0,
        kernels: KernelSet::Fused,
        init: InitSpec { embedding: 1.0, wqkv: 0.2, wo: 0.1, w1_w3: 0.1, w2: 0.1, head: 0.1, uniform: false },
    }
}

/// Grouped heads.
fn grouped() -> ModelSpec {
    model(2, 3, 96)
}

/// One key/value head, heads wider than the model.
fn single_kv() -> ModelSpec {
    model(1, 4, 40)
}

fn prompt(length: u64, seed: u64) -> Vec<u32> {
    let rng = CounterRng::new(seed, "prompt");
    (0..length).map(|i| rng.below(i, VOCAB as u64) as u32).collect()
}

fn case(decoder: &Decoder, length: u64, seed: u64) -> Value {
    let tokens = prompt(length, seed);
    let logits = decoder.logits(&PackedBatch::single(&tokens)).into_data().try_to_vec::<f32>().expect("f32");
    let rows: Vec<&[f32]> = logits.chunks(VOCAB).collect();
    let greedy = generate(decoder, &tokens, 12, &Sampling::greedy(), &[EOS]).expect("generates");
    json!({ "tokens": tokens, "logits": rows, "most": 12, "greedy": greedy })
}

/// A byte-level BPE with one merge.
fn tokenizer(path: &Path) -> TokenizerFiles {
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false })
    };
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special(BOS, "<s>"), special(EOS, "</s>")],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": { "a": 0, "b": 1, "ab": 2, "<s>": BOS, "</s>": EOS }, "merges": [["a", "b"]],
        },
    });
    fs::write(path, tokenizer.to_string()).expect("writes");
    let (bos, eos) = (Some("<s>".to_owned()), Some("</s>".to_owned()));
    TokenizerFiles { tokenizer_json: path.to_owned(), bos, pad: eos.clone(), eos }
}

/// Runs hf_parity.py, which sits beside this file.
fn ask_transformers(python: &str, folder: &Path, cases: &Path) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hf_parity.py");
    let output = Command::new(python).arg(script).args([folder, cases]).output().expect("python starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{python} {script} failed:\n{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("a JSON line")
}

#[test]
fn exported_models_say_the_same_in_transformers() {
    let Ok(python) = env::var(PYTHON) else {
        println!("skipped: {PYTHON} names no Python with torch and transformers");
        return;
    };
    let mut golden = Vec::new();
    for (spec, shard) in [(grouped(), u64::MAX), (single_kv(), 100_000)] {
        let dir = tempfile::tempdir().expect("temporary folder");
        let folder = dir.path().join("model");
        let flat = initial_parameters(&spec, SEED);
        let options = ExportOptions::new(Format::Llama)
            .with_max_shard_bytes(shard)
            .with_tokenizer(Some(tokenizer(&dir.path().join("tokenizer.json"))));
        export(&folder, &spec, &flat, &options).expect("exports");
        let decoder = Decoder::from_flat(&spec, &flat, &Device::flex()).expect("a valid model");
        let cases: Vec<Value> = PROMPTS.map(|(length, seed)| case(&decoder, length, seed)).into();
        let cases_path = dir.path().join("cases.json");
        fs::write(&cases_path, Value::from(cases).to_string()).expect("writes");

        let result = ask_transformers(&python, &folder, &cases_path);
        println!(
            "transformers {} on torch {}: max |difference| {}",
            result["transformers"], result["torch"], result["max_abs_diff"]
        );
        assert_eq!(result["class"], "LlamaForCausalLM");
        assert_eq!((&result["missing"], &result["unexpected"]), (&json!([]), &json!([])));
        assert_eq!(result["token_ids"], json!([2, 1, 0]));
        assert_eq!(result["special"], json!([BOS, EOS, EOS]));
        assert_eq!(result["same_text"], true);
        let difference = result["max_abs_diff"].as_f64().expect("a number");
        assert!(difference <= TOLERANCE, "logits differ by {difference}");
        golden.push(json!({ "transformers": result["transformers"], "last_logits": result["last_logits"] }));
    }
    if let Some(path) = env::var_os(GOLDEN_OUT) {
        fs::write(path, Value::from(golden).to_string() + "\n").expect("writes the golden logits");
    }
}

#[test]
fn logits_equal_those_that_transformers_gave() {
    let golden: Vec<Value> = serde_json::from_str(GOLDEN).expect("golden logits");
    assert_eq!(golden.len(), 2);
    for (spec, golden) in [grouped(), single_kv()].iter().zip(&golden) {
        let decoder =
            Decoder::from_flat(spec, &initial_parameters(spec, SEED), &Device::flex()).expect("a valid model");
        for ((length, seed), expected) in
            PROMPTS.iter().zip(golden["last_logits"].as_array().expect("one row a prompt"))
        {
            let batch = PackedBatch::single(&prompt(*length, *seed));
            let logits = decoder.logits(&batch).into_data().try_to_vec::<f32>().expect("f32");
            let last = &logits[logits.len() - VOCAB..];
            assert_eq!(expected.as_array().map(Vec::len), Some(VOCAB));
            for (token, (ours, theirs)) in last.iter().zip(expected.as_array().expect("a row")).enumerate() {
                let difference = (f64::from(*ours) - theirs.as_f64().expect("a number")).abs();
                assert!(difference <= TOLERANCE, "prompt of {length}, token {token}: logits differ by {difference}");
            }
        }
    }
}
