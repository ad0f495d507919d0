//! Somebody else's plugins: their package builds against `internevo-core` and `internevo-data` alone, and its binary offers them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Copies the example out of the source tree, so that building it writes nothing there, and gives it this workspace's lock file,
/// so that it builds offline.
fn outside_package() -> (PathBuf, PathBuf) {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = crate_dir.join("examples/outside_filter");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("outside_filter");
    let package = target.join("package");
    fs::create_dir_all(package.join("src")).expect("folder");
    let manifest = fs::read_to_string(example.join("Cargo.toml")).expect("manifest");
    let root = crate_dir.parent().expect("the workspace");
    let absolute = manifest
        .replace("path = \"../..\"", &format!("path = {:?}", crate_dir.display().to_string()))
        .replace("path = \"../../..", &format!("path = \"{}", root.display()));
    assert!(!absolute.contains(".."), "the example names the two crates by their paths: {absolute}");
    fs::write(package.join("Cargo.toml"), absolute).expect("manifest");
    for source in fs::read_dir(example.join("src")).expect("sources") {
        let source = source.expect("source");
        fs::copy(source.path(), package.join("src").join(source.file_name())).expect("source");
    }
    fs::copy(crate_dir.join("../Cargo.lock"), package.join("Cargo.lock")).expect("lock file");
    (package, target)
}

fn cargo(package: &Path, target: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--offline", "--quiet"])
        .current_dir(package)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn plugins_outside_the_workspace_are_listed_and_used_by_their_own_binary_and_need_no_burn() {
    let (package, target) = outside_package();
    let tree = cargo(&package, &target, &["tree", "--prefix", "none", "--edges", "normal"]);
    assert!(tree.contains("internevo-data v") && tree.contains("internevo-core v"), "{tree}");
    let heavy = tree.lines().find(|line| line.starts_with("burn") || line.starts_with("cubecl"));
    assert_eq!(heavy, None);

    let listed: serde_json::Value = serde_json::from_str(&cargo(&package, &target, &["run"])).expect("JSON");
    let filters = listed.as_array().expect("a list");
    let own = filters.iter().find(|filter| filter["name"] == "no_shouting").expect("listed");
    assert_eq!((&own["kind"], &own["crate"]), (&"filter".into(), &"outside-filter".into()));
    assert_eq!((&own["version"], &own["default"]["max_capitals"]), (&"0.3.1".into(), &0.4.into()));
    assert!(own["place"].as_str().expect("place").starts_with("src/main.rs:"), "{own}");
    assert!(own["schema"]["properties"]["max_capitals"].is_object(), "{own}");
    assert!(filters.iter().any(|filter| filter["name"] == "gopher_quality"), "{listed}");

    for (kind, name) in [
        ("classifier", "questions"),
        ("deduplicator", "same_title"),
        ("extractor", "paragraphs"),
        ("record_reader", "pages"),
        ("token_sink", "token_counts"),
        ("tokenizer", "bytes"),
    ] {
        let found = filters.iter().find(|plugin| plugin["kind"] == kind && plugin["name"] == name);
        assert_eq!(found.expect(name)["crate"], "outside-filter");
    }
    let folder = target.join("demonstration");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("folder");
    let pages =
        ["Title\nfirst", "<p>Other</p><p>x</p> no paragraph <p>more</p>", "TITLE\nthird", "What?\nWhy? So.", "LOUD."];
    let pages = pages.join("\u{c}");
    fs::write(folder.join("book.pages"), pages).expect("pages");
    cargo(&package, &target, &["run", "--", &folder.display().to_string()]);
    let counts = fs::read_to_string(folder.join("train.tsv")).expect("the table of the sink");
    assert_eq!(counts, "page-1: 12\npage-2: 12\n", "bytes, the end of a document and the line end of an extracted one");
    let rejected = |stage: &str| {
        let path = folder.join(stage).join("rejected/part-00000.jsonl");
        let lines = fs::read_to_string(path).expect("rejections");
        lines.lines().map(|line| line.split(r#""value""#).next().expect("a start").to_owned()).collect::<Vec<_>>()
    };
    let line = |id: u8, reason: &str| format!(r#"{{"id":"page-{id}","reason":"{reason}","#);
    assert_eq!(rejected("clean"), [line(4, "classifier_asks_question"), line(5, "shouting")]);
    assert_eq!(rejected("dedup"), [line(3, "same_title")]);
}
