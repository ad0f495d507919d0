//! The main job: from text to an exported model, again and again, and on another layout.

use crate::workshop::{Workshop, loss_bits, metrics, parameters, stderr};

#[test]
fn one_command_makes_everything_and_the_same_command_again_repeats_nothing() {
    let workshop = Workshop::new();
    let output = workshop.run(&["train", "--config", "micro.toml"]);
    let (stdout, stderr_text) = (String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output));
    assert!(output.status.success(), "{stderr_text}");
    assert!(stdout.contains("validation loss") && stdout.contains("unigram entropy"), "{stdout}");
    assert!(stdout.contains("the river"), "samples are missing: {stdout}");
    assert!(stderr_text.contains("step=1 loss=") && stderr_text.contains("step=6 loss="), "{stderr_text}");
    let run = workshop.latest("runs");
    for file in [
        "config.toml",
        "env.json",
        "metrics.jsonl",
        "summary.json",
        "samples.json",
        "report.html",
        "logs/rank-0.jsonl",
        "tb",
        "checkpoints/step-00000006/manifest.json",
        "export/hf/config.json",
        "export/hf/model.safetensors",
        "export/hf/tokenizer.json",
        "tokenizer.json",
    ] {
        assert!(run.join(file).exists(), "{file} is missing");
    }
    let records = metrics(&run);
    assert_eq!(records.len(), 6);
    for key in [
        "step",
        "loss",
        "lr",
        "grad_norm",
        "tgs",
        "tflops",
        "mfu",
        "tokens",
        "num_consumed_tokens",
        "acc",
        "perplexity",
        "fwd_bwd_time",
        "data_time",
        "mem_gib",
        "inf_nan_skip_batches",
        "time",
    ] {
        assert!(records[0].get(key).is_some(), "{key} is missing");
    }
    assert!(records[5]["loss"].as_f64() < records[0]["loss"].as_f64(), "it learns");
    assert!(records[5]["valid_loss"].is_f64());
    assert_eq!(records[5]["num_consumed_tokens"], 6 * 2 * 2 * 32);

    let again = workshop.run(&["train", "--config", "micro.toml"]);
    assert!(again.status.success() && stderr(&again).contains("reused"), "{}", stderr(&again));
    assert_eq!(workshop.latest("runs").canonicalize().expect("run"), run.canonicalize().expect("run"));
    assert_eq!(String::from_utf8_lossy(&again.stdout), stdout, "the same result is shown");

    let longer = workshop.train(&["--steps", "8"]);
    assert_eq!((&longer["summary"]["steps"], &longer["summary"]["finished"]), (&8.into(), &true.into()));
    assert_eq!(metrics(&run).len(), 8, "more steps continue the same run");
    let fresh = workshop.train(&["--resume", "never"]);
    assert_ne!(fresh["run_dir"], longer["run_dir"], "`never` starts a new run");
}

#[test]
fn two_ranks_with_zero_1_take_the_same_steps_as_one_rank_bit_for_bit() {
    let workshop = Workshop::new();
    workshop.train(&["--run-dir", "one"]);
    let two = ["--run-dir", "two", "--set", "launch.ranks=2", "--set", "data.micro_num=1"];
    workshop.train(&two);
    let (one, two) = (workshop.latest("one"), workshop.latest("two"));
    assert_eq!(loss_bits(&one), loss_bits(&two));
    assert_eq!(
        metrics(&one).last().and_then(|r| r["valid_loss"].as_f64()),
        metrics(&two).last().and_then(|r| r["valid_loss"].as_f64())
    );
    let newest = "checkpoints/step-00000006";
    assert_eq!(parameters(&one.join(newest)), parameters(&two.join(newest)));
    assert!(two.join("logs/rank-1.jsonl").exists());
}

#[test]
fn a_run_continues_on_another_layout() {
    let workshop = Workshop::new();
    workshop.train(&["--run-dir", "whole", "--steps", "6"]);
    workshop.train(&["--run-dir", "parts", "--steps", "6"]);
    let parts = workshop.latest("parts");
    // Back to the state after step 4, then on two ranks.
    std::fs::remove_dir_all(parts.join("checkpoints/step-00000006")).expect("remove");
    std::fs::remove_file(parts.join("summary.json")).expect("remove");
    workshop.train(&["--run-dir", "parts", "--set", "launch.ranks=2", "--set", "data.micro_num=1"]);
    assert_eq!(loss_bits(&workshop.latest("whole")), loss_bits(&parts));
    assert_eq!(workshop.latest("parts").canonicalize().expect("run"), parts.canonicalize().expect("run"));
}

#[test]
fn a_run_goes_through_every_kind_of_layout_and_stays_with_one_rank() {
    let workshop = Workshop::new();
    workshop.train(&["--run-dir", "one", "--steps", "8"]);
    let layouts: [&[&str]; 4] = [
        &["launch.ranks=4", "data.micro_num=1", "parallel.tensor={size=2,mode='msp'}", "parallel.zero1.stage=2"],
        &["launch.ranks=4", "data.micro_num=1", "parallel.tensor={size=2,mode='isp'}", "parallel.weight.size=4"],
        &["launch.ranks=2", "data.micro_num=1", "parallel.zero1.fsdp=true", "model.checkpoint=true"],
        &["launch.ranks=2", "parallel.tensor={size=2,mode='mtp'}", "model.embed_split_hidden=true"],
    ];
    // The same schedule everywhere: a run's learning rates depend on its length.
    for (index, layout) in layouts.iter().enumerate() {
        let last = (2 * (index + 1)).to_string();
        std::fs::write(workshop.path().join("stop"), &last).expect("write");
        let mut args = vec!["train", "--config", "micro.toml", "--run-dir", "many", "--steps", "8"];
        args.extend(["--set", "ckpt.stop_file_path=stop"]);
        layout.iter().for_each(|setting| args.extend(["--set", setting]));
        let output = workshop.run(&args);
        let text = stderr(&output);
        assert!(
            text.contains(&format!("stopped after step {last} of 8")) || output.status.success(),
            "{layout:?}: {text}"
        );
        assert!(index == 0 || text.contains("resuming from"), "{layout:?}: {text}");
    }
    let losses = |run: &str| {
        let records = metrics(&workshop.latest(run));
        records.iter().map(|r| r["loss"].as_f64().expect("a loss")).collect::<Vec<_>>()
    };
    let (one, many) = (losses("one"), losses("many"));
    assert_eq!((one.len(), many.len()), (8, 8));
    for (step, (a, b)) in one.iter().zip(&many).enumerate() {
        assert!((a - b).abs() <= 1e-5 * a, "step {}: {b} against {a}", step + 1);
    }
}

#[test]
fn what_cannot_be_trained_is_refused_before_anything_is_written() {
    let workshop = Workshop::new();
    for (setting, named) in [
        ("parallel.tensor.size=3", "parallel.tensor.size"),
        ("parallel.tensor.mode=mtpp", "did you mean `mtp`"),
        ("optimizer.kind=muonn", "did you mean `muon`"),
        ("parallel.pipeline.size=2", "parallel.pipeline.size"),
        ("parallel.zero1.size=3", "zero1"),
        ("job_name='../escape'", "job_name"),
        ("monitor.sinks=['jsonll']", "did you mean `jsonl`"),
    ] {
        let text = workshop.fails(&["train", "--config", "micro.toml", "--set", "launch.ranks=2", "--set", setting], 2);
        assert!(text.contains(named), "{setting}: {text}");
    }
    for folder in ["runs", "corpus"] {
        assert!(!workshop.path().join(folder).exists(), "{folder}: nothing was written");
    }
}
