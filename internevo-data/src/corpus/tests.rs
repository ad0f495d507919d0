//! Collecting from hand-made registries.

use std::{fs, io::Write, path::Path};

use super::*;

fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().expect("a parent")).expect("folder");
    fs::write(path, content).expect("file");
}

/// A gzipped tar with these entries, paths taken literally (the `tar` writer would refuse `..`).
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (path, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().expect("gnu").name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *content).expect("entry");
    }
    tar.into_inner().expect("tar").finish().expect("gzip")
}

fn lock(packages: &[&str]) -> String {
    let mut text = "version = 4\n\n[[package]]\nname = \"workspace-member\"\nversion = \"0.1.0\"\n".to_owned();
    for name in packages {
        text += &format!(
            "\n[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n\
             source = \"registry+https://example.invalid/index\"\nchecksum = \"00\"\n"
        );
    }
    text
}

const FILES: &[(&str, &[u8])] = &[
    ("Cargo.toml", b"[package]\nname = \"p\"\nlicense = \"MIT OR Apache-2.0\"\n"),
    ("README.md", b"# Title\nSome words.\n"),
    ("LICENSE-MIT", b"Permission is hereby granted\n"),
    ("src/lib.rs", b"pub fn one() -> u32 { 1 }\n"),
    ("src/.hidden.rs", b"fn hidden() {}\n"),
    ("src/latin1.rs", b"// caf\xe9\n"),
    ("src/binary.c", b"int x;\0"),
    ("src/blank.h", b"  \n"),
    ("logo.png", b"\x89PNG"),
];

fn environment(root: &Path) -> Environment {
    Environment { cargo_home: Some(root.join("cargo")), rust_docs: None, rust_version: "1.95.0".into() }
}

fn config() -> CorpusConfig {
    CorpusConfig { max_bytes: 0, max_bytes_per_package: 0, ..CorpusConfig::default() }
}

fn documents(out: &Path, manifest: &CorpusManifest) -> Vec<Document> {
    let read = |shard: &Shard| crate::document::read_jsonl(&out.join(&shard.file)).expect("shard");
    manifest.shards.iter().flat_map(read).map(|d| d.expect("document")).collect()
}

#[test]
fn a_package_gives_the_same_documents_from_its_folder_and_from_its_archive() {
    let root = tempfile::tempdir().expect("folder");
    let root = root.path();
    write(root.join("Cargo.lock"), lock(&["p"]));
    let mut entries: Vec<(String, &[u8])> = FILES.iter().map(|(p, c)| (format!("p-1.0.0/{p}"), *c)).collect();
    entries.push(("../escape.md".into(), b"# out"));
    entries.push(("p-1.0.0/../../escape.md".into(), b"# out"));
    let entries: Vec<(&str, &[u8])> = entries.iter().map(|(p, c)| (p.as_str(), *c)).collect();
    write(root.join("cargo/registry/cache/index/p-1.0.0.crate"), archive(&entries));
    let from_archive = collect_in(&environment(root), &config(), root, &root.join("a"), &()).expect("archive");
    for (path, content) in FILES {
        write(root.join("cargo/registry/src/index/p-1.0.0").join(path), content);
    }
    let from_folder = collect_in(&environment(root), &config(), root, &root.join("b"), &()).expect("folder");

    let ids: Vec<&str> = from_folder.files.iter().map(|f| f.id.as_str()).collect();
    assert_eq!(ids, ["p-1.0.0/README.md", "p-1.0.0/LICENSE-MIT", "p-1.0.0/src/lib.rs"]);
    assert_eq!(from_archive.files, from_folder.files);
    assert_eq!(from_archive.shards, from_folder.shards);
    assert_eq!(from_archive.skipped, Skipped { unsafe_path: 2, ..from_folder.skipped });
    let skipped = from_folder.skipped;
    assert_eq!([skipped.hidden, skipped.invalid_utf8, skipped.binary, skipped.empty, skipped.other_type], [1; 5]);
    let documents = documents(&root.join("b"), &from_folder);
    assert_eq!(documents[2].text, "pub fn one() -> u32 { 1 }\n");
    let meta = Value::Object(documents[2].meta.clone());
    let license = "MIT OR Apache-2.0";
    let expected =
        json!({"type": "rust", "package": "p", "version": "1.0.0", "license": license, "path": "src/lib.rs"});
    assert_eq!(meta, expected);
}

#[test]
fn caps_hold_and_missing_packages_are_named() {
    let root = tempfile::tempdir().expect("folder");
    let root = root.path();
    let names: Vec<String> = (0..20).map(|i| format!("p{i}")).collect();
    write(root.join("Cargo.lock"), lock(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    for name in &names[1..] {
        for file in 0..5 {
            let path = format!("cargo/registry/src/index/{name}-1.0.0/src/f{file}.rs");
            write(root.join(path), format!("// {name} {file}\n").repeat(10));
        }
    }
    let config = CorpusConfig { max_bytes: 3000, max_bytes_per_package: 250, ..CorpusConfig::default() };
    let manifest = collect_in(&environment(root), &config, root, &root.join("out"), &()).expect("corpus");
    assert!(manifest.bytes <= 3000 && manifest.bytes > 2700, "{}", manifest.bytes);
    let mut by_package = std::collections::BTreeMap::new();
    manifest.files.iter().for_each(|f| *by_package.entry(&f.package).or_insert(0) += f.bytes);
    assert!(by_package.values().all(|bytes| *bytes <= 250));
    assert!(manifest.over_cap_packages > 0);
    assert!(manifest.missing.iter().any(|m| m == "p0-1.0.0"), "{:?}", manifest.missing);
    assert!(manifest.missing.iter().any(|m| m.contains("rust-docs")), "{:?}", manifest.missing);
}

#[test]
fn a_finished_corpus_is_reused_and_a_damaged_or_differently_set_one_is_not() {
    let root = tempfile::tempdir().expect("folder");
    let root = root.path();
    let out = root.join("out");
    write(root.join("Cargo.lock"), lock(&["p"]));
    write(root.join("cargo/registry/src/index/p-1.0.0/README.md"), "text");
    let run = |config: &CorpusConfig| collect_in(&environment(root), config, root, &out, &()).expect("corpus");
    let first = run(&config());
    // What cargo holds now does not matter any more.
    write(root.join("cargo/registry/src/index/p-1.0.0/README.md"), "other text");
    assert_eq!(run(&config()), first);
    let shard = out.join(&first.shards[0].file);
    fs::OpenOptions::new().append(true).open(&shard).expect("shard").write_all(b"x").expect("append");
    assert_ne!(run(&config()).bytes, first.bytes);
    fs::write(out.join("raw/part-00007.jsonl"), "{}").expect("a shard of an earlier, larger corpus");
    let capped = run(&CorpusConfig { max_bytes: 100, ..config() });
    assert_eq!(fs::read_dir(out.join("raw")).expect("shards").count(), 1);
    assert_ne!(capped.settings_hash, first.settings_hash);
}

#[test]
fn own_inputs_replace_the_bundled_corpus_and_keep_their_fields() {
    let root = tempfile::tempdir().expect("folder");
    let root = root.path();
    write(
        root.join("mine/a.jsonl"),
        "{\"id\": \"x\", \"text\": \"one\", \"stars\": 5}\n{\"id\": \"y\", \"text\": \"two\"}\n{\"id\": \"z\"\n",
    );
    write(root.join("mine/page.html"), "<p>three</p>");
    write(root.join("mine/table.csv"), "1,2");
    write(root.join("notes.unknown"), "four");
    let config = CorpusConfig { inputs: vec!["mine".into(), "notes.unknown".into()], ..config() };
    let manifest = collect_in(&environment(root), &config, root, &root.join("out"), &()).expect("corpus");
    let mut found: Vec<(String, String, Value)> = documents(&root.join("out"), &manifest)
        .into_iter()
        .map(|d| (d.id, d.text, d.meta.get("stars").or(d.meta.get("type")).cloned().unwrap_or_default()))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("mine/page.html", "<p>three</p>", json!("html")),
        ("notes.unknown", "four", json!("text")),
        ("x", "one", json!(5)),
        ("y", "two", Value::Null),
    ];
    assert_eq!(found, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c)));
    assert_eq!((manifest.skipped.other_type, manifest.skipped.broken_line), (1, 1));
    assert!(manifest.broken_lines[0].contains("a.jsonl:3: broken_json"), "{:?}", manifest.broken_lines);
}

#[test]
fn nothing_found_is_an_error_that_says_what_was_looked_for() {
    let root = tempfile::tempdir().expect("folder");
    let message = collect_in(&environment(root.path()), &config(), root.path(), &root.path().join("out"), &())
        .expect_err("nothing there")
        .to_string();
    assert!(message.contains("Cargo.lock") && message.contains("registry"), "{message}");
    write(root.path().join("Cargo.lock"), "[[package]]\nname = 3\n");
    let message = collect_in(&environment(root.path()), &config(), root.path(), &root.path().join("out"), &())
        .expect_err("no lock file")
        .to_string();
    assert!(message.contains("Cargo.lock") && message.contains(":2"), "{message}");
}

#[test]
fn documentation_takes_at_most_its_share_and_skips_redirects() {
    let root = tempfile::tempdir().expect("folder");
    let root = root.path();
    write(root.join("Cargo.lock"), lock(&["p"]));
    write(root.join("cargo/registry/src/index/p-1.0.0/README.md"), "x".repeat(700));
    for page in 0..50 {
        write(root.join(format!("docs/book/ch{page}.html")), "y".repeat(100));
    }
    write(root.join("docs/book/print.html"), "y".repeat(100));
    write(root.join("docs/book/old.html"), "<meta http-equiv=\"refresh\">");
    write(root.join("docs/core/index.html"), "z");
    let environment = Environment { rust_docs: Some(root.join("docs")), ..environment(root) };
    let config = CorpusConfig { max_bytes: 1000, ..config() };
    let manifest = collect_in(&environment, &config, root, &root.join("out"), &()).expect("corpus");
    assert_eq!((manifest.sources["rust_docs"].bytes, manifest.sources["packages"].bytes), (300, 700));
    assert!(manifest.files.iter().all(|f| !f.id.contains("print") && !f.id.contains("old") && !f.id.contains("core")));
}
