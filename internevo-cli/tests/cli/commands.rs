//! Commands beside training: their results, their JSON, and what they say about bad input.

use std::fs;

use crate::workshop::{Workshop, paragraph};
use serde_json::Value;

fn json(workshop: &Workshop, args: &[&str]) -> Value {
    let text = workshop.ok(args);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?} printed no JSON document ({e}):\n{text}"))
}

#[test]
fn plugins_have_exactly_the_promised_keys() {
    let workshop = Workshop::new();
    let plugins = json(&workshop, &["plugins", "--json"]);
    let plugins = plugins.as_array().expect("a list");
    for plugin in plugins {
        let keys: Vec<&String> = plugin.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["kind", "name", "crate", "version", "place", "default", "schema"]);
    }
    let kinds: std::collections::BTreeSet<&str> = plugins.iter().filter_map(|p| p["kind"].as_str()).collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        [
            "classifier",
            "extractor",
            "filter",
            "lr_schedule",
            "optimizer",
            "sink",
            "strategy",
            "token_sink",
            "tokenizer"
        ]
    );
}

#[test]
fn every_mistake_of_a_configuration_is_named_at_once_with_its_place() {
    let workshop = Workshop::new();
    let text = "[data]\nseq_lenn = 64\nmicro_bsz = \"two\"\n\n[model]\nnum_attention_heads = 7\n";
    fs::write(workshop.path().join("bad.toml"), text).expect("configuration");
    let message = workshop.fails(&["train", "--config", "bad.toml"], 2);
    for place in ["bad.toml:2:1", "seq_lenn", "bad.toml:3:", "data.micro_bsz", "bad.toml:6:", "num_attention_heads"] {
        assert!(message.contains(place), "{place} is missing in:\n{message}");
    }
    assert_eq!(message.matches("error:").count(), 1, "{message}");
}

#[test]
fn a_wrong_flag_or_path_is_the_users_mistake() {
    let workshop = Workshop::new();
    workshop.fails(&["train", "--sett", "a=1"], 2);
    workshop.fails(&["generate", "--model", "nowhere", "--prompt", "x"], 2);
    workshop.fails(&["eval", "--model", "nowhere", "--data", "micro.toml"], 2);
    workshop.fails(&["report", "text"], 2);
    workshop.fails(&["import", "text", "out"], 2);
    workshop.fails(&["train", "--config", "absent.toml"], 2);
    let output = workshop.run(&["generate", "--model", "nowhere", "--prompt", "x", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["exit_code"], 2);
}

#[test]
fn an_empty_corpus_is_one_clear_message() {
    let workshop = Workshop::new();
    fs::create_dir(workshop.path().join("nothing")).expect("folder");
    let message = workshop.fails(&["train", "--config", "micro.toml", "--set", "corpus.inputs=['nothing']"], 2);
    assert!(message.contains("nothing"), "{message}");
}

#[test]
fn broken_lines_are_rejected_with_a_reason_and_the_rest_survives() {
    let workshop = Workshop::new();
    let good = serde_json::json!({ "id": "a", "text": paragraph(1, 8), "origin": "kept" });
    let lines =
        format!("{good}\n{{\"id\": \"b\", \"te\n\n{}\n", serde_json::json!({ "id": "c", "text": paragraph(2, 8) }));
    fs::create_dir(workshop.path().join("in")).expect("folder");
    fs::write(workshop.path().join("in/part.jsonl"), lines).expect("documents");
    let report = json(&workshop, &["data", "format", "--input", "in", "--output", "out", "--json"]);
    assert_eq!(report["documents_kept"], 2, "{report}");
    for key in
        ["stage", "documents_in", "bytes_in", "bytes_kept", "reasons", "cpu_seconds", "wall_seconds", "peak_rss_bytes"]
    {
        assert!(report.get(key).is_some(), "{key} is missing in {report}");
    }
    let look = json(&workshop, &["data", "inspect", "out", "--json"]);
    assert!(look.to_string().contains("kept"), "{look}");
}

#[test]
fn the_pipeline_runs_over_documents_of_ones_own_as_the_stages_do_one_by_one() {
    let workshop = Workshop::new();
    let stages = ["--set", "pipeline.stages=['format','clean','dedup']", "--set", "pipeline.clean=['gopher_quality']"];
    let run = ["data", "run", "--input", "text", "--output", "all", "--memory", "1GiB", "--threads", "1", "--json"];
    let all = json(&workshop, &[&run[..], &stages].concat());
    assert_eq!(all["stages"].as_array().map(Vec::len), Some(3));
    assert_eq!(all["output"], "all/dedup");
    let mut input = "text".to_owned();
    for (stage, together) in ["format", "clean", "dedup"].iter().zip(all["stages"].as_array().expect("stages")) {
        let alone = ["data", stage, "--input", &input, "--output", stage, "--threads", "2", "--json"];
        let alone = json(&workshop, &[&alone[..], &stages].concat());
        assert_eq!(alone["documents_kept"], together["documents_kept"]);
        input = (*stage).to_owned();
        let kept = |folder: &str| fs::read(workshop.path().join(folder).join("kept/part-00000.jsonl")).expect("kept");
        assert!(kept(stage) == kept(&format!("all/{stage}")), "{stage}: the bytes differ");
    }
    assert!(!workshop.path().join("all/raw").exists(), "nothing is copied first");
    let message = workshop.fails(&["data", "run", "--input", "text"], 2);
    assert!(message.contains("--output"), "{message}");
    let message = workshop.fails(&["data", "run", "--input", "nowhere", "--output", "out"], 2);
    assert!(message.contains("nowhere does not exist"), "{message}");
}

#[test]
fn documents_become_stores_of_either_form_and_tokens_become_text_again() {
    let workshop = Workshop::new();
    workshop.ok(&["tokenizer", "train", "--input", "text", "--output", "tok/tokenizer.json", "--vocab-size", "300"]);
    for (format, index) in [("megatron", "train.idx"), ("internevo", "train-00000.bin.meta")] {
        let args = ["tokenizer", "encode", "--tokenizer", "tok/tokenizer.json", "--input", "text", "--output", format];
        let report = json(&workshop, &[&args[..], &["--format", format, "--json"]].concat());
        assert_eq!(report["documents"], 40);
        assert!(workshop.path().join(format).join(index).exists());
    }
    let args = ["tokenizer", "encode", "--tokenizer", "tok/tokenizer.json", "--input", "text", "--output", "lines"];
    workshop.ok(&[&args[..], &["--format", "jsonl", "--setting", "compression = 'zst'"]].concat());
    assert!(workshop.path().join("lines/train.jsonl.zst").exists());
    let message = workshop.fails(&[&args[..], &["--format", "jsonn"]].concat(), 2);
    assert!(message.contains("did you mean `jsonl`?"), "{message}");
    let encoded =
        json(&workshop, &["tokenizer", "encode", "--tokenizer", "tok/tokenizer.json", "--text", "the river", "--json"]);
    let ids: Vec<String> = encoded["tokens"].as_array().expect("ids").iter().map(ToString::to_string).collect();
    let mut args = vec!["tokenizer", "decode", "--tokenizer", "tok/tokenizer.json"];
    args.extend(ids.iter().map(String::as_str));
    assert_eq!(workshop.ok(&args).trim_end(), "the river");
}

#[test]
fn a_model_survives_export_and_import_with_the_same_text() {
    let workshop = Workshop::new();
    workshop.train(&[]);
    let run = workshop.latest("runs");
    let run = run.to_str().expect("UTF-8");
    let tokens = |model: &str| {
        let args =
            ["generate", "--model", model, "--prompt", "the river", "--max-tokens", "12", "--ignore-eos", "--json"];
        json(&workshop, &args)["samples"][0]["tokens"].clone()
    };
    let expected = tokens(run);
    assert_eq!(expected.as_array().expect("tokens").len(), 12);
    workshop.ok(&["export", "--to", "hf-internlm2", run, "internlm2"]);
    workshop.ok(&["import", "internlm2", "imported"]);
    workshop.ok(&["export", "--to", "hf-llama", "imported", "llama"]);
    for model in ["internlm2", "imported", "llama"] {
        assert_eq!(tokens(model), expected, "{model}");
    }
    let loss = |model: &str, data: &str| {
        json(&workshop, &["eval", "--model", model, "--data", data, "--json"])["loss"].clone()
    };
    assert_eq!(loss(run, "text"), loss("llama", "text"));
    assert!(loss(run, "corpus/valid.idx").as_f64().is_some_and(|l| l > 0.0));
    // Imported weights are a start for training.
    let warm =
        ["--run-dir", "warm", "--set", "ckpt.load_ckpt_folder='imported'", "--set", "ckpt.load_ckpt_content=['model']"];
    let warm = workshop.train(&warm);
    let cold_first = crate::workshop::metrics(std::path::Path::new(run))[0]["loss"].as_f64();
    let warm_first =
        crate::workshop::metrics(&workshop.path().join(warm["run_dir"].as_str().expect("path")))[0]["loss"].as_f64();
    assert!(warm_first < cold_first, "{warm_first:?} {cold_first:?}");
}

#[test]
fn configuration_commands_print_what_their_names_say() {
    let workshop = Workshop::new();
    let shown = json(&workshop, &["config", "show", "--preset", "internlm2-7b", "--json"]);
    assert_eq!(shown["model"]["hidden_size"], 4096);
    let origin = workshop.ok(&["config", "show", "--config", "micro.toml", "--set", "seed=7", "--origin"]);
    assert!(origin.contains("micro.toml") && origin.contains("--set"), "{origin}");
    assert!(json(&workshop, &["config", "schema"])["properties"]["data"].is_object());
    fs::write(workshop.path().join("7b.py"), "JOB_NAME = 'x'\ndata = dict(seq_len=2**5, odd=1)\n").expect("python");
    let toml = workshop.ok(&["config", "import-py", "7b.py"]);
    fs::write(workshop.path().join("7b.toml"), &toml).expect("toml");
    assert!(toml.contains("7b.py: line 2: data.odd"), "{toml}");
    assert_eq!(json(&workshop, &["config", "show", "--config", "7b.toml", "--json"])["data"]["seq_len"], 32);
}

#[test]
fn the_doctor_answers_in_json_and_writes_nothing() {
    let workshop = Workshop::new();
    let output = workshop.run(&["doctor", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(i32::from(answer["failed"] != 0)));
    assert!(answer["checks"].as_array().is_some_and(|c| c.len() > 5));
    assert!(!workshop.path().join("runs").exists());
}

#[test]
fn completions_know_the_commands() {
    let workshop = Workshop::new();
    assert!(workshop.ok(&["completions", "bash"]).contains("tokenizer"));
}
