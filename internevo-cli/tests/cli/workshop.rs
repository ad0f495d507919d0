//! A job small enough for a test: generated text, a two-layer model, a few steps. Every test has its own folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use internevo_core::rng::CounterRng;
use serde_json::Value;

/// A folder with text and a configuration.
pub struct Workshop {
    dir: tempfile::TempDir,
}

const WORDS: [&str; 24] = [
    "the", "a", "river", "engine", "token", "bright", "small", "moves", "reads", "writes", "over", "under", "layer",
    "and", "with", "slowly", "of", "to", "in", "is", "it", "model", "learns", "quickly",
];

/// A paragraph of `sentences` sentences that depends on `seed` only.
pub fn paragraph(seed: u64, sentences: u64) -> String {
    let rng = CounterRng::new(seed, "paragraph");
    let mut text = String::new();
    let mut at = 0;
    for _ in 0..sentences {
        let words = 6 + rng.below(at, 8);
        for word in 0..words {
            at += 1;
            let word_text = WORDS[rng.below(at, WORDS.len() as u64) as usize];
            text.push_str(if word == 0 { "" } else { " " });
            text.push_str(word_text);
        }
        at += 1;
        text.push_str(". ");
    }
    text.trim_end().to_owned()
}

impl Workshop {
    /// Forty documents of text and the configuration `micro.toml`.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let text = dir.path().join("text");
        fs::create_dir(&text).expect("folder");
        let document =
            |i: u64| serde_json::json!({ "id": format!("document-{i}"), "text": paragraph(i, 12) }).to_string() + "\n";
        fs::write(text.join("documents.jsonl"), (0..40).map(document).collect::<String>()).expect("documents");
        let config = format!(
            r#"
job_name = "micro"
run_dir = {runs:?}

[corpus]
folder = {corpus:?}
inputs = [{text:?}]
valid_fraction = 0.2

[pipeline]
stages = ["format", "clean", "dedup"]
clean = []

[tokenizer]
vocab_size = 320

[data]
seq_len = 32
micro_bsz = 2
micro_num = 2
total_steps = 6
valid_micro_num = 4
min_length = 4

[model]
hidden_size = 32
num_layers = 2
num_attention_heads = 4
num_kv_attention_heads = 2
multiple_of = 16

[adam]
lr = 0.01

[lr_scheduler]
warmup_ratio = 0.2

[ckpt]
checkpoint_every = 2
keep_last = 0

[monitor]
log_every = 2
prompts = ["the river", "a model"]
sample_tokens = 8
"#,
            runs = dir.path().join("runs"),
            corpus = dir.path().join("corpus"),
        );
        fs::write(dir.path().join("micro.toml"), config).expect("configuration");
        Self { dir }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `internevo` with `args`, in this folder and without the caller's settings.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_internevo"));
        command.args(args).current_dir(self.path()).env_remove("RUST_LOG").env("NO_COLOR", "1");
        for (key, _) in std::env::vars().filter(|(k, _)| k.starts_with("INTERNEVO_")) {
            command.env_remove(key);
        }
        command
    }

    /// Runs `internevo` with `args`.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// Runs `internevo` with `args`, which must succeed; returns stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?} failed:\n{}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs `internevo` with `args`, which must exit with `code` and print one error; returns stderr.
    pub fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}:\n{text}");
        assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{text}");
        text
    }

    /// Starts `internevo` with `args` without waiting.
    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    }

    /// Trains `micro.toml` with more `args`; returns what `--json` prints.
    pub fn train(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = ["train", "--config", "micro.toml", "--json"].iter().chain(args).copied().collect();
        serde_json::from_str(&self.ok(&all)).expect("one JSON document")
    }

    /// The newest run below `runs`.
    pub fn latest(&self, runs: &str) -> PathBuf {
        self.path().join(runs).join("micro/latest")
    }
}

/// What a process wrote to stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The records of a run's `metrics.jsonl`.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

/// Bits of every step's loss.
pub fn loss_bits(run: &Path) -> Vec<u64> {
    metrics(run).iter().map(|r| r["loss"].as_f64().expect("a loss").to_bits()).collect()
}

/// Every parameter of a checkpoint by name, as bytes.
pub fn parameters(checkpoint: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut out = std::collections::BTreeMap::new();
    for entry in fs::read_dir(checkpoint).expect("checkpoint").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("model-") {
            let bytes = fs::read(entry.path()).expect("file");
            let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
            out.extend(tensors.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())));
        }
    }
    assert!(!out.is_empty(), "{} holds no parameters", checkpoint.display());
    out
}
