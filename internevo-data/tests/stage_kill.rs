//! Killed with SIGKILL at twenty random moments and run again: the same bytes. The runs are processes of their own, this test's
//! binary with another purpose.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use internevo_core::{config::PipelineConfig, rng::CounterRng};
use internevo_data::{
    ngram_lm::{LmSettings, train},
    stage::{REPORT, StageRequest, run_stage},
};

const KILLS: u64 = 20;
const FOLDER: &str = "INTERNEVO_TEST_FOLDER";
const STAGE: &str = "INTERNEVO_TEST_STAGE";
const OUTPUT: &str = "INTERNEVO_TEST_OUTPUT";
/// Of the language, for the stage `quality`.
const MODEL: &str = "any.binary";

/// The other purpose; does nothing when no test asks for it.
#[test]
fn one_run_of_a_stage_as_the_environment_says() {
    let (Ok(folder), Ok(stage), Ok(output)) = (std::env::var(FOLDER), std::env::var(STAGE), std::env::var(OUTPUT))
    else {
        return;
    };
    let folder = PathBuf::from(folder);
    let mut pipeline: PipelineConfig = toml::from_str(&format!(
        "clean = ['gopher_quality']\nsafe = ['personal_data', 'blocked_words']\nquality = ['perplexity']\n\
         [filter.perplexity.'*']\nmodel = '{}'\nhigh = 10.0\n",
        folder.join(MODEL).display()
    ))
    .expect("a pipeline");
    let (stage, method) = stage.split_once(':').unwrap_or((&stage, "minhash"));
    pipeline.dedup.method = method.into();
    let request = StageRequest {
        stage,
        input: folder.join("in"),
        output: folder.join(output),
        lang: Some("en"),
        threads: 2,
        artifacts: folder,
        pipeline: &pipeline,
    };
    run_stage(&request, &()).expect("the stage runs");
}

fn start(folder: &Path, stage: &str, output: &str) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "one_run_of_a_stage_as_the_environment_says", "--quiet"])
        .env(FOLDER, folder)
        .env(STAGE, stage)
        .env(OUTPUT, output)
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// Documents with near and exact copies and addresses to mask, packed and plain, and a language model of the plain ones. Some of the
/// packed ones are backwards, which the model does not know.
fn corpus(folder: &Path) {
    fs::create_dir_all(folder.join("in")).expect("folder");
    for file in 0..4u64 {
        let mut text = String::new();
        for i in 0..500u64 {
            let rng = CounterRng::new(if i % 5 == 4 { i - 1 } else { 1000 * file + i }, "kill");
            let words: Vec<String> = (0..120).map(|k| format!("the word{}", rng.below(k, 3000))).collect();
            let words = words.join(" ");
            let words = if file % 2 == 1 && i % 7 == 3 { words.chars().rev().collect() } else { words };
            text.push_str(&format!("{{\"id\":\"{file}-{i}\",\"text\":\"{words} me{i}@host.org {i}\"}}\n"));
        }
        let path = folder.join("in").join(format!("{file}.jsonl"));
        match file % 2 {
            0 => fs::write(path, text),
            _ => fs::write(path.with_extension("jsonl.zst"), zstd::encode_all(text.as_bytes(), 1).expect("memory")),
        }
        .expect("file");
    }
    let settings = LmSettings { order: 2, discount_fallback: true, ..LmSettings::default() };
    let half = ["0.jsonl", "2.jsonl"].map(|name| folder.join("in").join(name));
    train(&half, &folder.join(MODEL), &settings, &()).expect("a language model");
}

fn files(output: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all: BTreeMap<PathBuf, Vec<u8>> = ["kept", "rejected"]
        .into_iter()
        .flat_map(|folder| fs::read_dir(output.join(folder)).expect("folder"))
        .map(|entry| entry.expect("entry").path())
        .map(|path| (path.strip_prefix(output).expect("below").to_owned(), fs::read(&path).expect("file")))
        .collect();
    all.extend(fs::read(output.join("duplicates.json")).map(|bytes| ("duplicates.json".into(), bytes)));
    all
}

#[test]
fn a_stage_killed_at_twenty_random_moments_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().expect("temporary folder");
    corpus(dir.path());
    for stage in ["format", "clean", "dedup:minhash", "dedup:lines", "safe", "quality"] {
        let name = stage.replace(':', "-");
        let (whole, killed) = (format!("{name}-whole"), format!("{name}-killed"));
        let started = Instant::now();
        assert!(start(dir.path(), stage, &whole).wait().expect("it ends").success());
        let duration = started.elapsed();
        let (rng, mut interrupted) = (CounterRng::new(5, stage), 0);
        for kill in 0..KILLS {
            let mut child = start(dir.path(), stage, &killed);
            thread::sleep(Duration::from_secs_f64(duration.as_secs_f64() * rng.uniform(kill)));
            child.kill().expect("SIGKILL");
            child.wait().expect("it ends");
            let output = dir.path().join(&killed);
            match output.join(REPORT).exists() {
                // It was faster this time; what is complete would only be reused.
                true => fs::remove_file(output.join(REPORT)).expect("remove"),
                false => interrupted += 1,
            }
        }
        assert!(interrupted >= KILLS / 4, "{stage}: {interrupted} runs were interrupted");
        assert!(start(dir.path(), stage, &killed).wait().expect("it ends").success());
        let (again, once) = (files(&dir.path().join(&killed)), files(&dir.path().join(&whole)));
        assert!(again == once, "{stage}: the bytes differ");
        let rejected = once.iter().any(|(path, bytes)| path.starts_with("rejected") && !bytes.is_empty());
        assert!(rejected || ["format", "safe"].contains(&stage), "{stage}: it decides something");
        assert!(!dir.path().join(&killed).join(".scratch").exists(), "{stage}: temporary files are gone");
    }
}
