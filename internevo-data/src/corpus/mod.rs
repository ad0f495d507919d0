//! The bundled corpus: real text that cargo and rustup already put on this machine, or the user's own files.
//!
//! # What is taken
//! * **Packages** of `corpus.cargo_lock`, from cargo's registry folders (extracted sources, else `.crate` archives), in
//!   the order of the hash of `name-version`. Of each: READMEs, other Markdown, licences, then sources, by path, up to
//!   `max_bytes_per_package`. A file that does not fit under that cap is passed over; the first one that does not fit
//!   under the whole cap ends the collection.
//! * **Rust's HTML documentation** where it is installed, at most 30 % of `max_bytes` when there are packages too.
//! * With `corpus.inputs`: these files and folders, and nothing else.
//!
//! Nothing depends on modification times, the order of folders or the locale: the same lock file (with the same
//! packages downloaded) gives the same corpus. HTML stays HTML here; the `format` stage extracts its text.
//!
//! # What is written
//! `raw/part-*.jsonl`, one document a line (`id`, `text`, `type`, `package`, `version`, `license`, `path`), and
//! `manifest.json` last. A folder whose manifest answers to the same settings is reused.
//!
//! | file | holds |
//! |---|---|
//! | `packages.rs` | lock file, registry folders, archives |
//! | `rust_docs.rs` | the toolchain's documentation |
//! | `inputs.rs` | own files |
//! | `kinds.rs` | extension table |
//! | `shards.rs`, `manifest.rs` | what is written |
//! | `split.rs` | training and validation by package |

mod inputs;
mod kinds;
mod manifest;
mod packages;
mod rust_docs;
mod shards;
mod split;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use internevo_core::{
    config::CorpusConfig,
    storage::{self, StorageError},
};
use serde_json::{Map, Value, json};

use self::{inputs::InputFile, packages::PackageFile, shards::ShardWriter};
pub use self::{
    kinds::{Kind, is_source_type, kind_of},
    manifest::{CorpusManifest, ManifestFile, Shard, Skipped, SourceTotal},
    packages::{LockedPackage, read_lock},
    split::{Part, Split},
};
use crate::{
    DataError,
    document::{Document, LineFault, default_id},
    format::{LineReader, RawRecord, RecordReader as _},
    stage::Progress,
};

/// Larger files are generated tables more often than text; they are counted and left out.
pub const MAX_FILE_BYTES: u64 = 1_000_000;

/// Broken lines of the inputs that the manifest names; all are counted.
const BROKEN_LINES_NAMED: usize = 20;

/// Share of the cap that documentation may take when there are packages too.
const DOCS_SHARE: f64 = 0.3;

/// Name of the manifest inside the corpus folder.
pub const MANIFEST: &str = "manifest.json";

/// Where cargo and rustup keep their files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Folder with `registry/`.
    pub cargo_home: Option<PathBuf>,
    /// The toolchain's `share/doc/rust/html`.
    pub rust_docs: Option<PathBuf>,
    /// Version of the toolchain, as in `1.95.0`.
    pub rust_version: String,
}

impl Environment {
    /// Asks `CARGO_HOME`, the home folder and `rustc`. What is not there stays empty.
    pub fn detect() -> Self {
        let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"));
        let cargo_home = std::env::var_os("CARGO_HOME")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .or_else(|| home.map(|home| PathBuf::from(home).join(".cargo")));
        let rustc = |argument: &[&str]| {
            let output = Command::new("rustc").args(argument).output().ok().filter(|output| output.status.success())?;
            Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
        };
        let rust_docs = rustc(&["--print", "sysroot"])
            .map(|root| PathBuf::from(root).join("share/doc/rust/html"))
            .filter(|path| path.is_dir());
        let version = rustc(&["--version"]).and_then(|text| text.split(' ').nth(1).map(str::to_owned));
        Self { cargo_home, rust_docs, rust_version: version.unwrap_or_default() }
    }
}

/// Collects the corpus of `config` into `out_dir`, or reuses it when `out_dir` holds one that answers to the same
/// settings.
///
/// Relative paths of `config` are relative to `project_dir`. `progress` hears one line per source.
///
/// # Errors
/// [`DataError::EmptyCorpus`] when nothing was found, with what was looked for; a broken lock file by file and line;
/// any file that cannot be read or written. A broken line of a JSONL input is no error: it is left out and named in the
/// manifest.
pub fn collect(
    config: &CorpusConfig,
    project_dir: &Path,
    out_dir: &Path,
    progress: &dyn Progress,
) -> Result<CorpusManifest, DataError> {
    collect_in(&Environment::detect(), config, project_dir, out_dir, progress)
}

/// [`collect`] with explicit places for cargo's and rustup's files.
///
/// # Errors
/// As [`collect`].
pub fn collect_in(
    environment: &Environment,
    config: &CorpusConfig,
    project_dir: &Path,
    out_dir: &Path,
    progress: &dyn Progress,
) -> Result<CorpusManifest, DataError> {
    let plan = Plan::make(config, project_dir)?;
    if let Some(manifest) = reusable(out_dir, &plan.settings_hash) {
        progress.message(&format!("corpus: reusing {} documents of {}", manifest.documents, out_dir.display()));
        return Ok(manifest);
    }
    // A manifest that stays would vouch for shards that are about to change.
    let manifest_path = out_dir.join(MANIFEST);
    if manifest_path.exists() {
        std::fs::remove_file(&manifest_path).map_err(StorageError::at("remove", &manifest_path))?;
    }
    progress.start("corpus", config.max_bytes);
    let manifest = Collector::new(config, plan, out_dir, progress)?.run(environment)?;
    progress.finish();
    let text = serde_json::to_vec_pretty(&manifest).expect("a manifest of numbers and strings is JSON");
    storage::write_atomic(&manifest_path, text)?;
    Ok(manifest)
}

/// The manifest in `out_dir`, if it answers to `settings_hash` and its shards are there in full.
fn reusable(out_dir: &Path, settings_hash: &str) -> Option<CorpusManifest> {
    let manifest: CorpusManifest = serde_json::from_slice(&storage::read(out_dir.join(MANIFEST)).ok()?).ok()?;
    let whole = |shard: &Shard| std::fs::metadata(out_dir.join(&shard.file)).is_ok_and(|m| m.len() == shard.bytes);
    (manifest.settings_hash == settings_hash && manifest.shards.iter().all(whole)).then_some(manifest)
}

/// What will be read, and the hash of all that the selection depends on.
struct Plan {
    packages: Vec<LockedPackage>,
    inputs: Vec<InputFile>,
    missing: Vec<String>,
    lock_hash: String,
    settings_hash: String,
    skipped: Skipped,
}

impl Plan {
    fn make(config: &CorpusConfig, project_dir: &Path) -> Result<Self, DataError> {
        let mut plan = Self {
            packages: Vec::new(),
            inputs: Vec::new(),
            missing: Vec::new(),
            lock_hash: String::new(),
            settings_hash: String::new(),
            skipped: Skipped::default(),
        };
        if !config.inputs.is_empty() {
            plan.inputs = inputs::find(&config.inputs, project_dir, &mut plan.skipped)?;
        } else if !config.cargo_lock.is_empty() {
            let path = project_dir.join(&config.cargo_lock);
            if path.is_file() {
                let text = storage::read_to_string(&path)?;
                plan.lock_hash = blake3::hash(text.as_bytes()).to_hex().to_string();
                plan.packages = read_lock(&path, &text)?;
            } else {
                plan.missing.push(format!("lock file {}", path.display()));
            }
        }
        let inputs: Vec<Value> = plan.inputs.iter().map(|i| json!([i.label, i.bytes, i.modified])).collect();
        let settings = json!([
            manifest::FORMAT,
            config.max_bytes,
            config.max_bytes_per_package,
            config.rust_docs && config.inputs.is_empty(),
            plan.lock_hash,
            inputs
        ]);
        plan.settings_hash = blake3::hash(settings.to_string().as_bytes()).to_hex().to_string();
        Ok(plan)
    }
}

/// A text on its way into a shard.
struct RawText<'a> {
    id: String,
    text: String,
    kind: &'a str,
    package: &'a str,
    version: &'a str,
    license: &'a str,
    path: &'a str,
}

struct Collector<'a> {
    config: &'a CorpusConfig,
    plan: Plan,
    shards: ShardWriter,
    manifest: CorpusManifest,
    packages_seen: BTreeSet<String>,
    progress: &'a dyn Progress,
}

impl<'a> Collector<'a> {
    fn new(
        config: &'a CorpusConfig,
        mut plan: Plan,
        out_dir: &Path,
        progress: &'a dyn Progress,
    ) -> Result<Self, DataError> {
        let manifest = CorpusManifest {
            format: manifest::FORMAT,
            settings_hash: plan.settings_hash.clone(),
            lock_hash: plan.lock_hash.clone(),
            max_bytes: config.max_bytes,
            max_bytes_per_package: config.max_bytes_per_package,
            missing: std::mem::take(&mut plan.missing),
            skipped: plan.skipped,
            ..CorpusManifest::default()
        };
        let shards = ShardWriter::create(out_dir)?;
        Ok(Self { config, plan, shards, manifest, packages_seen: BTreeSet::new(), progress })
    }

    fn run(mut self, environment: &Environment) -> Result<CorpusManifest, DataError> {
        let cap = cap(self.config.max_bytes);
        if self.config.inputs.is_empty() {
            if self.config.rust_docs {
                let share = if self.plan.packages.is_empty() { 1.0 } else { DOCS_SHARE };
                let budget = if self.config.max_bytes == 0 { cap } else { (cap as f64 * share) as u64 };
                self.collect_docs(environment, budget)?;
            }
            let left = cap - self.manifest.bytes;
            self.collect_packages(environment, left)?;
        } else {
            self.collect_inputs(cap)?;
        }
        if self.manifest.documents == 0 {
            return Err(DataError::EmptyCorpus { looked_for: self.looked_for(environment) });
        }
        self.manifest.shards = self.shards.finish()?;
        Ok(self.manifest)
    }

    fn collect_docs(&mut self, environment: &Environment, budget: u64) -> Result<(), DataError> {
        let Some(html) = &environment.rust_docs else {
            self.manifest.missing.push("Rust's HTML documentation (rustup component add rust-docs)".into());
            self.progress
                .message("corpus: no HTML documentation is installed with this toolchain; going on without it");
            return Ok(());
        };
        let version = environment.rust_version.as_str();
        let mut left = budget;
        for page in rust_docs::pages(html, &mut self.manifest.skipped)? {
            if page.bytes > left {
                self.manifest.skipped.over_cap += 1;
                break;
            }
            let Some(text) = rust_docs::read_page(html, &page, &mut self.manifest.skipped)? else { continue };
            left -= text.len() as u64;
            let (package, license) = (format!("rust-docs/{}", page.book), rust_docs::LICENSE);
            let id = format!("rust-docs-{version}/{}", page.path);
            let raw = RawText { id, text, kind: "html", package: &package, version, license, path: &page.path };
            self.add("rust_docs", raw)?;
        }
        self.announce("rust_docs");
        Ok(())
    }

    fn collect_packages(&mut self, environment: &Environment, budget: u64) -> Result<(), DataError> {
        let mut left = budget;
        let mut full = false;
        let packages = std::mem::take(&mut self.plan.packages);
        for package in &packages {
            let source = environment.cargo_home.as_deref().and_then(|home| packages::locate(home, package));
            match source {
                None => self.manifest.missing.push(package.folder()),
                Some(_) if full => self.manifest.over_cap_packages += 1,
                Some(source) => {
                    let (files, license) = packages::read_package(&source, &mut self.manifest.skipped)?;
                    full = self.add_package(package, files, &license, &mut left)?;
                }
            }
        }
        if !packages.is_empty() {
            self.announce("packages");
        }
        Ok(())
    }

    /// Adds a package's files under its cap; true once the whole cap is reached.
    fn add_package(
        &mut self,
        package: &LockedPackage,
        files: Vec<PackageFile>,
        license: &str,
        left: &mut u64,
    ) -> Result<bool, DataError> {
        let mut share = cap(self.config.max_bytes_per_package);
        for PackageFile { path, kind, text } in files {
            let bytes = text.len() as u64;
            if bytes > share {
                self.manifest.skipped.over_cap += 1;
                continue;
            }
            if bytes > *left {
                self.manifest.skipped.over_cap += 1;
                return Ok(true);
            }
            share -= bytes;
            *left -= bytes;
            let id = format!("{}/{path}", package.folder());
            let (name, version) = (package.name.as_str(), package.version.as_str());
            self.add("packages", RawText { id, text, kind: kind.name, package: name, version, license, path: &path })?;
        }
        Ok(false)
    }

    fn collect_inputs(&mut self, budget: u64) -> Result<(), DataError> {
        let mut left = budget;
        for input in std::mem::take(&mut self.plan.inputs) {
            let full = match input.kind {
                None => self.add_jsonl(&input, &mut left)?,
                Some(kind) => {
                    let Some(text) = packages::text_of(storage::read(&input.path)?, &mut self.manifest.skipped) else {
                        continue;
                    };
                    let full = text.len() as u64 > left;
                    if !full {
                        left -= text.len() as u64;
                        let label = input.label.as_str();
                        let id = label.to_owned();
                        let raw = RawText {
                            id,
                            text,
                            kind: kind.name,
                            package: label,
                            version: "",
                            license: "",
                            path: label,
                        };
                        self.add("inputs", raw)?;
                    }
                    full
                }
            };
            if full {
                self.manifest.skipped.over_cap += 1;
                self.progress.message("corpus: `corpus.max_bytes` is reached, the remaining inputs are left out");
                break;
            }
        }
        for broken in &self.manifest.broken_lines {
            self.progress.message(&format!("corpus: left out {broken}"));
        }
        self.announce("inputs");
        Ok(())
    }

    /// Passes the documents of a JSONL input through, with their own fields; true once the cap is reached. A document
    /// without a `package` is its own package, so that the split can take single documents.
    fn add_jsonl(&mut self, input: &InputFile, left: &mut u64) -> Result<bool, DataError> {
        let (documents, bytes) = (self.manifest.documents, self.manifest.bytes);
        let mut full = false;
        let mut reader = LineReader::open(&input.path)?;
        let mut line = Vec::new();
        loop {
            let parsed = match reader.next_record(&mut line)? {
                RawRecord::End => break,
                RawRecord::Damaged(fault) => Err(fault),
                RawRecord::Record => Document::from_line(&line, || default_id(&input.path, reader.record())),
            };
            let mut document = match parsed {
                Ok(document) => document,
                Err(fault) => {
                    self.note_broken(input, reader.record(), &fault);
                    continue;
                }
            };
            if document.text.len() as u64 > *left {
                full = true;
                break;
            }
            *left -= document.text.len() as u64;
            if !document.meta.contains_key("package") {
                document.meta.insert("package".into(), Value::from(document.id.clone()));
            }
            let license = document.field("license").unwrap_or_default();
            self.count(document.text.len() as u64, license)?;
            self.shards.write(&document)?;
        }
        self.note_jsonl(&input.label, self.manifest.documents - documents, self.manifest.bytes - bytes);
        Ok(full)
    }

    fn note_jsonl(&mut self, label: &str, documents: u64, bytes: u64) {
        let total = self.manifest.sources.entry("inputs".into()).or_default();
        total.packages += 1;
        total.documents += documents;
        total.bytes += bytes;
        let (id, package, kind) = (label.to_owned(), label.to_owned(), "jsonl".to_owned());
        self.manifest.files.push(ManifestFile { id, package, kind, bytes, ..Default::default() });
    }

    fn note_broken(&mut self, input: &InputFile, line: u64, fault: &LineFault) {
        self.manifest.skipped.broken_line += 1;
        if self.manifest.broken_lines.len() < BROKEN_LINES_NAMED {
            self.manifest.broken_lines.push(format!("{}:{line}: {fault}", input.path.display()));
        }
    }

    fn add(&mut self, source: &str, raw: RawText<'_>) -> Result<(), DataError> {
        let bytes = raw.text.len() as u64;
        self.count(bytes, raw.license)?;
        let new_package = self.packages_seen.insert(raw.package.to_owned());
        let total = self.manifest.sources.entry(source.to_owned()).or_default();
        total.packages += u64::from(new_package);
        total.documents += 1;
        total.bytes += bytes;
        self.manifest.files.push(ManifestFile {
            id: raw.id.clone(),
            package: raw.package.to_owned(),
            kind: raw.kind.to_owned(),
            license: raw.license.to_owned(),
            bytes,
            blake3: blake3::hash(raw.text.as_bytes()).to_hex().to_string(),
        });
        let mut meta = Map::new();
        let fields = [
            ("type", raw.kind),
            ("package", raw.package),
            ("version", raw.version),
            ("license", raw.license),
            ("path", raw.path),
        ];
        for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            meta.insert(key.to_owned(), Value::from(value));
        }
        self.shards.write(&Document { id: raw.id, text: raw.text, meta })
    }

    /// Counts a document that is about to be written.
    fn count(&mut self, bytes: u64, license: &str) -> Result<(), DataError> {
        if self.progress.cancelled() {
            return Err(DataError::Interrupted { stage: "corpus".into() });
        }
        self.manifest.documents += 1;
        self.manifest.bytes += bytes;
        *self.manifest.licenses.entry(license.to_owned()).or_default() += bytes;
        self.progress.advance(bytes, 1, 1);
        Ok(())
    }

    fn announce(&self, source: &str) {
        let total = self.manifest.sources.get(source).copied().unwrap_or_default();
        self.progress.message(&format!(
            "corpus: {source}: {} documents, {:.1} MB, from {} packages",
            total.documents,
            total.bytes as f64 / 1e6,
            total.packages
        ));
    }

    fn looked_for(&self, environment: &Environment) -> String {
        if !self.config.inputs.is_empty() {
            return format!("text in the inputs {:?}", self.config.inputs);
        }
        let registry = match &environment.cargo_home {
            Some(home) => format!("packages below {}", home.join("registry").display()),
            None => "a CARGO_HOME".to_owned(),
        };
        let missing = self.manifest.missing.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        format!("{registry}, rust-docs; missing: {missing}")
    }
}

/// A cap of 0 is no cap.
fn cap(bytes: u64) -> u64 {
    if bytes == 0 { u64::MAX } else { bytes }
}

#[cfg(test)]
mod tests;
