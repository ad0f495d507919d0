//! `cargo xtask peers data [tokenise|filters|minhash]`: the corpus tools of others and ours on the same texts, in one run. Speeds are MB
//! (10^6 bytes of UTF-8) per second of CPU time, so that a busy machine changes little.
//!
//! Ours are examples of `internevo-data`, the others `xtask/peers/data/peer.py`, each with its texts in memory but for the deduplication
//! of ours, which reads and writes files.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::command::{cargo, step, workspace_root};

/// Python packages of the virtual environment.
const PYTHON_PACKAGES: [&str; 6] =
    ["tokenizers", "tiktoken", "rensa", "datasketch", "spacy", "datatrove[processing]==0.10.1"];
/// What proves that they are there.
const IMPORTS: &str = "import tokenizers, tiktoken, rensa, datasketch, spacy, datatrove";

/// Which work, and on what.
#[derive(clap::Args)]
pub struct Args {
    /// All of it, or one
    #[arg(value_enum)]
    work: Vec<Work>,
    /// A corpus: {en,zh,code}/*.jsonl and truth.jsonl; by default one is made of the crate sources of this machine
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Size of the corpus that is made, MB each of prose and code
    #[arg(long, default_value_t = 40)]
    megabytes: usize,
    /// MB of prose for the filters of others, which are slow
    #[arg(long, default_value_t = 2)]
    filter_megabytes: usize,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

/// A piece of work.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Work {
    /// BPE: training, encoding, and whether the tokens are the same
    Tokenise,
    /// Gopher, C4 and FineWeb in one pass
    Filters,
    /// Near duplicates at a Jaccard similarity of 0.7
    Minhash,
}

/// One comparison.
struct Row {
    work: String,
    peer: &'static str,
    ours: f64,
    theirs: f64,
    note: String,
}

/// Runs what is asked for and prints a table of ratios.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let folder = target().join("peers").join("data-run");
    std::fs::create_dir_all(&folder)?;
    let bench = Bench { python: python()?, corpus: corpus(args, &folder)?, folder, args };
    let all = [Work::Tokenise, Work::Filters, Work::Minhash];
    let mut rows = Vec::new();
    for work in all.into_iter().filter(|work| args.work.is_empty() || args.work.contains(work)) {
        rows.extend(match work {
            Work::Tokenise => bench.tokenise()?,
            Work::Filters => bench.filters()?,
            Work::Minhash => bench.minhash()?,
        });
    }
    print(&rows, args.json);
    Ok(())
}

fn print(rows: &[Row], as_json: bool) {
    if as_json {
        let row = |r: &Row| {
            json!({"work": r.work, "peer": r.peer, "ours": r.ours, "theirs": r.theirs, "ratio": r.ours / r.theirs,
                   "unit": "MB per CPU second", "note": r.note})
        };
        println!("{}", Value::from(rows.iter().map(row).collect::<Vec<_>>()));
        return;
    }
    println!("\n{:<12} {:<26} {:>9} {:>9} {:>7}  (MB per CPU second)", "work", "peer", "internevo", "peer", "ratio");
    for Row { work, peer, ours, theirs, note } in rows {
        println!("{work:<12} {peer:<26} {ours:>9.2} {theirs:>9.2} {:>6.1}x  {note}", ours / theirs);
    }
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from)
}

/// The Python of these peers' own virtual environment, made on the first call.
fn python() -> anyhow::Result<PathBuf> {
    let environment = target().join("peers").join("data");
    let python = environment.join("bin").join("python");
    let ready = Command::new(&python).args(["-c", IMPORTS]).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !ready {
        step("virtual environment", Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        step("packages", Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES))?;
    }
    Ok(python)
}

/// The corpus that is named, or one of crate sources with planted duplicates.
fn corpus(args: &Args, folder: &Path) -> anyhow::Result<PathBuf> {
    if let Some(corpus) = &args.corpus {
        return Ok(std::path::absolute(corpus)?);
    }
    let corpus = folder.join(format!("corpus-{}", args.megabytes));
    if !corpus.join("truth.jsonl").is_file() {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).context("no home folder")?;
        let mut plant = example("dedup_bench");
        plant.arg("plant").arg(&corpus).arg(args.megabytes.to_string()).arg(home.join("registry").join("src"));
        step("corpus", &mut plant)?;
    }
    Ok(corpus)
}

/// `cargo run` of an example of `internevo-data`.
fn example(name: &str) -> Command {
    let mut command = cargo();
    command.args(["run", "--quiet", "--locked", "--release", "--package", "internevo-data", "--example", name, "--"]);
    command
}

struct Bench<'a> {
    python: PathBuf,
    corpus: PathBuf,
    folder: PathBuf,
    args: &'a Args,
}

impl Bench<'_> {
    fn files(&self, langs: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for lang in langs {
            let folder = self.corpus.join(lang);
            let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
        files.sort();
        Ok(files)
    }

    fn tokenise(&self) -> anyhow::Result<Vec<Row>> {
        let files = self.files(&["en", "zh", "code"])?;
        let tokenizer = self.folder.join("tokenizer.json");
        let threads = self.args.threads.to_string();
        let ours = |mode: &str| {
            let mut command = example("tokenize_speed");
            command.arg(mode).arg(&tokenizer).args(&files).args(["--threads", &threads]);
            report(&mut command)
        };
        let (trained, encoded, verified) = (ours("train")?, ours("encode")?, ours("verify")?);
        let same = format!("{} tokens, all those of tokenizers", verified["tokens"]);
        let mut rows = Vec::new();
        for (work, peer, name, ours) in [
            ("train BPE", "train-hf", "tokenizers", &trained),
            ("encode", "encode-hf", "tokenizers (fast batch)", &encoded),
            ("encode", "encode-tiktoken", "tiktoken, same merges", &encoded),
        ] {
            let theirs = self.peer(peer, &tokenizer, &[])?;
            let note = match theirs["tokens"].as_i64().zip(encoded["tokens"].as_i64()) {
                None => String::new(),
                Some((theirs, own)) if theirs == own => same.clone(),
                Some((theirs, own)) => format!("{:+} tokens", theirs - own),
            };
            rows.push(Row { work: work.into(), peer: name, ours: speed(ours)?, theirs: speed(&theirs)?, note });
        }
        Ok(rows)
    }

    fn filters(&self) -> anyhow::Result<Vec<Row>> {
        let mut command = example("filter_speed");
        let text = output(command.args(self.files(&["en"])?).args(["--threads", &self.args.threads.to_string()]))?;
        let line = text.lines().find(|line| line.starts_with("gopher+c4+fineweb")).context("no line of all filters")?;
        let ours = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).context("no speed")?;
        let megabytes = self.args.filter_megabytes.to_string();
        let theirs = speed(&self.peer("filters-datatrove", Path::new("-"), &["--megabytes", &megabytes])?)?;
        let note = format!("datatrove on {megabytes} MB, one process");
        Ok(vec![Row { work: "filters".into(), peer: "datatrove 0.10.1", ours, theirs, note }])
    }

    fn minhash(&self) -> anyhow::Result<Vec<Row>> {
        let (input, kept) = (self.corpus.join("en"), self.folder.join("deduplicated"));
        let run = || {
            let mut command = example("dedup_bench");
            command.arg("run").arg(&input).arg(&kept).args(["minhash", &self.args.threads.to_string(), "2GiB"]);
            let text = output(&mut command)?;
            let before = text.split(" MB/CPU s").next().unwrap_or_default();
            before.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok()).context("no speed")
        };
        // A few megabytes are a tenth of a second's work.
        let mut speeds = [run()?, run()?, run()?, run()?, run()?];
        speeds.sort_by(f64::total_cmp);
        let ours = speeds[speeds.len() / 2];
        let scores = output(example("dedup_bench").arg("score").arg(&self.corpus).arg(&kept))?;
        let recall = scores.lines().find(|line| line.starts_with("recall")).and_then(|line| line.rsplit(' ').next());
        let mut rows = Vec::new();
        for (peer, name) in [("minhash-rensa", "rensa"), ("minhash-datasketch", "datasketch")] {
            let theirs = self.peer(peer, Path::new("-"), &[])?;
            let note = format!(
                "recall {} against {:.3}",
                recall.unwrap_or("?"),
                theirs["recall"].as_f64().unwrap_or(f64::NAN)
            );
            rows.push(Row { work: "minhash".into(), peer: name, ours, theirs: speed(&theirs)?, note });
        }
        Ok(rows)
    }

    /// A line of JSON from the peers' program.
    fn peer(&self, work: &str, tokenizer: &Path, more: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::new(&self.python);
        command.arg(workspace_root().join("xtask/peers/data/peer.py")).arg(work).arg(&self.corpus).arg(tokenizer);
        report(command.args(["--threads", &self.args.threads.to_string()]).args(more))
    }
}

fn speed(report: &Value) -> anyhow::Result<f64> {
    report["mb_per_cpu_s"].as_f64().with_context(|| format!("no speed in {report}"))
}

/// Runs a program whose last line is a JSON object.
fn report(command: &mut Command) -> anyhow::Result<Value> {
    let text = output(command)?;
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("expected a line of JSON, found `{last}`"))
}

/// What a program prints.
fn output(command: &mut Command) -> anyhow::Result<String> {
    eprintln!("── {}", command.get_args().map(|part| part.to_string_lossy()).take(12).collect::<Vec<_>>().join(" "));
    let output = command.stderr(Stdio::inherit()).output().context("cannot start the measured program")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{:?} failed ({}): {text}", command.get_program(), output.status);
    }
    Ok(text)
}
