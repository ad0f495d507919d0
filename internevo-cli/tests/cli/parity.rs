//! Every layout against one rank, through the command.

use serde_json::Value;

use crate::workshop::Workshop;

#[test]
fn the_whole_matrix_keeps_its_rules_and_the_document_says_what_combines() {
    let workshop = Workshop::new();
    let result: Value = serde_json::from_str(&workshop.ok(&["parity", "--json", "--markdown", "matrix.md"]))
        .expect("one JSON document");
    let layouts = result["layouts"].as_array().expect("layouts");
    assert!(layouts.len() >= 40, "{}", layouts.len());
    assert_eq!((&result["passed"], &result["failed"]), (&layouts.len().into(), &0.into()));
    for layout in layouts {
        let number = |key: &str| layout[key].as_f64().unwrap_or_else(|| panic!("{key} of {layout}"));
        assert!(number("loss_deviation") <= 1e-5 && number("grad_deviation") <= 1e-5, "{layout}");
        assert!(layout["world"].as_u64().is_some_and(|world| (1..=8).contains(&world)), "{layout}");
        let divides_nothing = !["mtp", "msp", "fsp", "isp2", "isp4", "isp8", "x"]
            .iter()
            .any(|part| layout["name"].as_str().is_some_and(|name| name.replace("hidden", "").contains(part)));
        assert!(!divides_nothing || layout["bitwise"] == true, "{layout}");
    }
    let refused = result["refused"].as_array().expect("refused");
    assert!(refused.len() >= 10 && refused.iter().all(|r| !r["rules"].as_array().expect("rules").is_empty()));
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../internevo-parallel/COMPOSABILITY.md");
    let committed = std::fs::read_to_string(committed).expect("the document is there");
    let written = std::fs::read_to_string(workshop.path().join("matrix.md")).expect("written");
    assert!(committed == written, "run `internevo parity --markdown internevo-parallel/COMPOSABILITY.md`");
}

#[test]
fn a_layout_of_ones_own_is_tried_or_refused_with_every_rule_it_breaks() {
    let workshop = Workshop::new();
    let result: Value = serde_json::from_str(&workshop.ok(&[
        "parity",
        "--json",
        "--steps",
        "2",
        "--layouts",
        "msp2+dp4+zero2:2+recompute:0.5,isp1x2+wp4+dp4",
    ]))
    .expect("one JSON document");
    assert_eq!(result["passed"], 2);
    let message = workshop.fails(&["parity", "--layouts", "mtp8+wp2+zero3+hidden+kv3+pp2"], 2);
    for rule in ["parallel.weight.size", "key/value heads", "parallel.pipeline.size", "parallel.zero1.stage"] {
        assert!(message.contains(rule), "{rule}: {message}");
    }
    let message = workshop.fails(&["parity", "--layouts", "ring9"], 2);
    assert!(message.contains("no part of a name"), "{message}");
    assert!(workshop.ok(&["parity", "--list", "--layouts", "zero3"]).contains("dp8+zero3 (8 ranks)"));
}

#[test]
fn a_dry_run_of_thousands_of_ranks_takes_seconds_and_counts_what_would_be_sent() {
    let workshop = Workshop::new();
    let args = "train --config micro.toml --json --set launch.communicator=dry --set launch.ranks=4096 \
                --set parallel.tensor.size=2 --set parallel.tensor.mode=msp --set parallel.zero1.size=64";
    let args: Vec<&str> = args.split_whitespace().collect();
    let result: Value = serde_json::from_str(&workshop.ok(&args)).expect("one JSON document");
    assert_eq!(result["world"], 4096);
    let sent = |key: &str, name: &str| {
        let rows = result[key].as_array().expect("rows").iter();
        rows.filter(|r| r["group"] == name).map(|r| r["bytes"].as_u64().expect("bytes")).sum::<u64>()
    };
    for group in ["zero1", "tensor", "zero1_replica"] {
        assert!(sent("sent", group) > 0, "{group} in {result}");
    }
    assert!(result["memory"].is_object());
}
