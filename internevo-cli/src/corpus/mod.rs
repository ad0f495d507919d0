//! From settings to token stores: collect → stages → tokenizer → encode. Every finished part is reused by the next launch.
//!
//! | file | holds |
//! |---|---|
//! | `part.rs` | what makes tokenizer and token stores reusable (stages know by themselves) |
//! | `progress.rs` | the data crate's progress on the terminal |
//! | `split.rs` | which packages are held out for validation |
//! | `texts.rs` | documents of the files that a user names |
//!
//! Not here: what the stages do (internevo-data).

mod part;
mod progress;
mod split;
pub mod texts;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use internevo_core::{
    config::{Config, CorpusConfig, HUGGING_FACE, TokenizerConfig},
    storage,
};
use internevo_data::{
    Document,
    corpus::{self as collection, CorpusManifest},
    quality,
    stage::{self, StageReport, StageRequest, run_stage},
    store::TokenStore,
    tokenizer::{self, EncodeReport, EncodeRequest, TextEncoder, Tokenizer},
};
use serde_json::json;

use self::part::{Part, key_of};
pub use self::progress::StageProgress;
use crate::{
    commands::tokenizer::train_on,
    context::Context,
    error::OrUser as _,
    interrupt::Interrupt,
    phases::{Outcome, Phases},
    report::{FunnelStage, SourceCount},
    run_dir, terminal, user_bail,
};

/// Name of the folder of corpora beside the jobs' folders; no job can have it.
pub const FOLDER: &str = "corpus";

/// Name of the tokenizer file in a corpus folder.
const TOKENIZER: &str = "tokenizer.json";

/// The stage whose filters are trained on its input.
const QUALITY: &str = "quality";

/// Name of the folder of trained filters in a corpus folder.
pub const MODELS: &str = "models";

/// Data that a model can be trained on.
#[derive(Debug)]
pub struct Prepared {
    /// Training tokens.
    pub train: Arc<TokenStore>,
    /// Validation tokens, if any were held out.
    pub valid: Option<Arc<TokenStore>>,
    /// `tokenizer.json`, if it is known.
    pub tokenizer: Option<PathBuf>,
    /// Token ids in use.
    pub vocab_size: usize,
    /// Identifies the training tokens: equal identity, equal tokens.
    pub identity: String,
    /// Stages of the pipeline.
    pub funnel: Vec<FunnelStage>,
    /// Where the text came from.
    pub sources: BTreeMap<String, SourceCount>,
    /// What was looked for and not found.
    pub missing: Vec<String>,
}

/// Text after the last stage.
pub struct Text {
    /// Folder of the corpus.
    pub folder: PathBuf,
    /// Folder of the last stage's output.
    pub output: PathBuf,
    /// What was collected.
    pub manifest: CorpusManifest,
    /// Reports of the stages, in order.
    pub reports: Vec<StageReport>,
    _lock: run_dir::Lock,
}

/// Which part of the raw text to process; see `internevo data run --shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

/// Prepares the data of `config`: its own token stores, or the corpus it describes.
///
/// # Errors
/// Bad settings or files, a full disk, or an interruption; the same call goes on where it stopped.
pub fn prepare(cx: &Context, config: &Config, interrupt: &Interrupt, phases: &mut Phases) -> anyhow::Result<Prepared> {
    if !config.data.train_folder.is_empty() {
        return own_stores(config, phases);
    }
    let text = process(cx, config, interrupt, phases, None)?;
    let tokenizer = make_tokenizer(cx, config, &text, phases)?;
    encode(cx, config, &text, &tokenizer, phases)
}

/// Collects raw text and runs the stages, on one shard of it if asked to.
///
/// # Errors
/// As [`prepare`].
pub fn process(
    cx: &Context,
    config: &Config,
    interrupt: &Interrupt,
    phases: &mut Phases,
    shard: Option<Shard>,
) -> anyhow::Result<Text> {
    let _polling = interrupt.polling();
    let mut folder = corpus_folder(config)?;
    let progress = StageProgress::new(&cx.console, interrupt);
    let waiting = || cx.console.note(&format!("waiting for another process that works on {}", folder.display()));
    let lock = run_dir::lock_waiting(&folder, waiting)?;
    let manifest = phases.run("corpus", || collect(&config.corpus, &folder, &progress))?;
    let mut output = folder.join("raw");
    if let Some(shard) = shard {
        folder = folder.join(format!("shard-{}-of-{}", shard.index, shard.of));
        output = link_shard(&output, &folder, shard)?;
    }
    let (output, reports) = run_stages(config, None, output, &folder, &progress, phases)?;
    Ok(Text { folder, output, manifest, reports, _lock: lock })
}

/// Runs the stages over documents of the caller's own, as single stages would: any kind of file that `format` reads, nothing
/// copied first. Stages go to folders of their names below `folder`.
///
/// # Errors
/// As [`process`].
pub fn process_own(
    cx: &Context,
    config: &Config,
    lang: Option<&str>,
    (input, folder): (PathBuf, &Path),
    interrupt: &Interrupt,
) -> anyhow::Result<(PathBuf, Vec<StageReport>)> {
    let _polling = interrupt.polling();
    let progress = StageProgress::new(&cx.console, interrupt);
    let waiting = || cx.console.note(&format!("waiting for another process that works on {}", folder.display()));
    let _lock = run_dir::lock_waiting(folder, waiting)?;
    run_stages(config, lang, input, folder, &progress, &mut Phases::new(&cx.console))
}

/// The stages of the configuration one after the other, from `input` on: the last one's folder, and their reports.
fn run_stages(
    config: &Config,
    lang: Option<&str>,
    input: PathBuf,
    folder: &Path,
    progress: &StageProgress,
    phases: &mut Phases,
) -> anyhow::Result<(PathBuf, Vec<StageReport>)> {
    let (mut output, mut reports) = (input, Vec::new());
    for stage in &config.pipeline.stages {
        let request = StageRequest {
            stage,
            input: output,
            output: folder.join(stage),
            lang,
            threads: config.launch.threads,
            artifacts: folder.join(MODELS),
            pipeline: &config.pipeline,
        };
        let report = phases.run(stage, || run_one(&request, progress))?;
        output = request.output;
        if report.documents_kept == 0 {
            user_bail!(
                "no document is left after stage `{stage}`: it read {} and kept none; {} says why",
                report.documents_in,
                output.join("report.json").display()
            );
        }
        reports.push(report);
    }
    Ok((output, reports))
}

/// `corpus.folder`, or a folder named by a hash of what decides its content.
fn corpus_folder(config: &Config) -> anyhow::Result<PathBuf> {
    if !config.corpus.folder.is_empty() {
        return Ok(PathBuf::from(&config.corpus.folder));
    }
    let lock = match config.corpus.cargo_lock.as_str() {
        "" => String::new(),
        path => fs::read(path).map_or_else(|_| String::new(), |bytes| blake3::hash(&bytes).to_hex().to_string()),
    };
    let mut folder = std::path::absolute(".")?.display().to_string();
    if config.corpus.inputs.is_empty() {
        // The bundled corpus is the same from wherever it is collected; own inputs are relative to the working directory.
        folder.clear();
    }
    let settings = json!([config.corpus, config.pipeline, config.tokenizer, folder]);
    Ok(Path::new(&config.run_dir).join(FOLDER).join(&key_of(&lock, &settings)[..16]))
}

fn collect(config: &CorpusConfig, folder: &Path, progress: &StageProgress) -> anyhow::Result<Outcome<CorpusManifest>> {
    let manifest_time = || fs::metadata(folder.join(collection::MANIFEST)).and_then(|m| m.modified()).ok();
    let before = manifest_time();
    let manifest = collection::collect(config, Path::new("."), folder, progress)?;
    let note = format!(
        "{} documents, {} of text from {}",
        terminal::count(manifest.documents),
        terminal::bytes(manifest.bytes),
        manifest.sources.keys().cloned().collect::<Vec<_>>().join(" and ")
    );
    let missing = match manifest.missing.as_slice() {
        [] => String::new(),
        [one] => format!("; not found: {one}"),
        [first, rest @ ..] => format!("; not found: {first} and {} more ({})", rest.len(), collection::MANIFEST),
    };
    let reused = before.is_some() && before == manifest_time();
    Ok(Outcome { value: manifest, reused, note: note + &missing })
}

/// A folder that holds this shard's part of the raw files, as links.
fn link_shard(raw: &Path, folder: &Path, shard: Shard) -> anyhow::Result<PathBuf> {
    let target = folder.join("raw");
    storage::create_dir_all(&target)?;
    let mut files: Vec<PathBuf> = fs::read_dir(raw)?.filter_map(Result::ok).map(|e| e.path()).collect();
    files.sort();
    let own: Vec<&PathBuf> = files.iter().skip(shard.index).step_by(shard.of).collect();
    if own.is_empty() {
        user_bail!("shard {} of {} is empty: the raw text has only {} files", shard.index, shard.of, files.len());
    }
    for file in own {
        let link = target.join(file.file_name().expect("a listed file has a name"));
        if !link.exists() {
            fs::hard_link(file, &link).or_else(|_| fs::copy(file, &link).map(drop))?;
        }
    }
    Ok(target)
}

/// Runs one stage.
///
/// # Errors
/// As the stage.
pub fn run_one(request: &StageRequest<'_>, progress: &StageProgress) -> anyhow::Result<Outcome<StageReport>> {
    if request.stage == QUALITY {
        // Its filter judges with a model of this corpus; a model that is there already stays.
        let inputs = stage::find_inputs(&request.input, &request.output)?;
        if let Some(trained) = quality::ensure_trained(&inputs, &request.artifacts, request.pipeline, progress)? {
            tracing::info!(passages = trained.passages, accuracy = trained.accuracy, "quality classifier trained");
        }
    }
    let report = run_stage(request, progress)?;
    let mut reasons: Vec<(&String, &u64)> = report.reasons.iter().collect();
    reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), *reason));
    let reasons: Vec<String> = reasons.iter().take(3).map(|(reason, count)| format!("{reason} {count}")).collect();
    let mut note = format!(
        "{} of {} documents kept, {} of {}",
        terminal::count(report.documents_kept),
        terminal::count(report.documents_in),
        terminal::bytes(report.bytes_kept),
        terminal::bytes(report.bytes_in)
    );
    if !reasons.is_empty() {
        note.push_str(&format!("; rejected: {}", reasons.join(", ")));
    }
    Ok(Outcome { reused: report.reused, note, value: report })
}

/// The tokenizer, its `tokenizer.json` where it has one, and the key of the part.
struct MadeTokenizer {
    tokenizer: Box<dyn TextEncoder>,
    path: Option<PathBuf>,
    key: String,
}

fn make_tokenizer(cx: &Context, config: &Config, text: &Text, phases: &mut Phases) -> anyhow::Result<MadeTokenizer> {
    phases.run("tokenizer", || {
        if let Some((tokenizer, path)) = given_tokenizer(&config.tokenizer)? {
            let note = format!("{} tokens, given", tokenizer.vocab_size());
            let key = key_of(&tokenizer.fingerprint(), &json!([config.tokenizer.kind, config.tokenizer.settings]));
            return Ok(Outcome::reused(MadeTokenizer { tokenizer, path, key }, note));
        }
        let before = text.reports.last().map_or(&text.manifest.settings_hash, |r| &r.request);
        let key = key_of(before, &json!(config.tokenizer));
        let path = text.folder.join(TOKENIZER);
        let part = Part::new(&text.folder, "tokenizer", vec![path.clone()], &key);
        let reused = part.is_done();
        if !reused {
            part.begin()?;
            train_on(cx, &texts::files(std::slice::from_ref(&text.output))?, &config.tokenizer)?.save(&path)?;
            part.finish()?;
        }
        let tokenizer = Box::new(Tokenizer::load(&path)?);
        let note = format!("{} tokens", tokenizer.vocab_size());
        Ok(Outcome { value: MadeTokenizer { tokenizer, path: Some(path), key }, reused, note })
    })
}

/// A tokenizer that the configuration names, and its `tokenizer.json` if it has one.
type GivenTokenizer = (Box<dyn TextEncoder>, Option<PathBuf>);

/// The tokenizer that the configuration names; `None` where one is to be trained.
fn given_tokenizer(config: &TokenizerConfig) -> anyhow::Result<Option<GivenTokenizer>> {
    let is_own = config.kind == HUGGING_FACE;
    if is_own && config.file.is_empty() {
        return Ok(None);
    }
    let path = is_own.then(|| PathBuf::from(&config.file));
    Ok(Some((tokenizer::load(config).or_user()?, path)))
}

fn encode(
    cx: &Context,
    config: &Config,
    text: &Text,
    tokenizer: &MadeTokenizer,
    phases: &mut Phases,
) -> anyhow::Result<Prepared> {
    let before = text.reports.last().map_or(&text.manifest.settings_hash, |r| &r.request);
    let key = key_of(before, &json!([tokenizer.key, config.corpus.valid_fraction]));
    let files = ["train.bin", "train.idx", "valid.bin", "valid.idx", "train.stats.json", "valid.stats.json"];
    let part = Part::new(&text.folder, "encode", files.map(|f| text.folder.join(f)).to_vec(), &key);
    let (train, valid) = phases.run("encode", || {
        let reused = part.is_done();
        if !reused {
            part.begin()?;
            encode_splits(cx, config, text, &*tokenizer.tokenizer)?;
            part.finish()?;
        }
        let open = |split: &str| {
            let exists = text.folder.join(split).with_extension("idx").is_file();
            exists.then(|| TokenStore::open_folder(&text.folder, split)).transpose()
        };
        let Some(train) = open("train")? else {
            user_bail!("every document was held out for validation; lower corpus.valid_fraction or use more text")
        };
        let valid = open("valid")?;
        let describe =
            |s: &TokenStore| format!("{} tokens in {} documents", terminal::count(s.tokens()), s.documents());
        let mut note = format!("training {}", describe(&train));
        if let Some(valid) = &valid {
            note.push_str(&format!(", validation {}", describe(valid)));
        }
        Ok(Outcome { value: (train, valid), reused, note })
    })?;
    Ok(Prepared {
        valid: valid.map(Arc::new),
        tokenizer: tokenizer.path.clone(),
        vocab_size: tokenizer.tokenizer.vocab_size(),
        identity: train.fingerprint().hash,
        train: Arc::new(train),
        funnel: text.reports.iter().map(funnel_stage).collect(),
        sources: sources(&text.manifest),
        missing: text.manifest.missing.clone(),
    })
}

fn encode_splits(
    cx: &Context,
    config: &Config,
    text: &Text,
    tokenizer: &dyn TextEncoder,
) -> anyhow::Result<EncodeReport> {
    let inputs = texts::files(std::slice::from_ref(&text.output))?;
    let package = |document: &Document| document.field("package").unwrap_or(&document.id).to_owned();
    let packages = tokenizer::text_bytes_by(&inputs, &package).or_user()?;
    let valid = split::held_out(&packages, config.corpus.valid_fraction);
    let split_of = |document: &Document| if valid.contains(package(document).as_str()) { "valid" } else { "train" };
    let total = text.reports.last().map(|r| r.bytes_kept);
    let progress = cx.console.progress("encode", total, "bytes");
    let request = EncodeRequest {
        inputs: &inputs,
        tokenizer,
        folder: &text.folder,
        sink: "megatron",
        sink_settings: &toml::Table::new(),
        split_of: &split_of,
    };
    Ok(tokenizer::encode_corpus(&request, &|bytes| progress.set(bytes))?)
}

fn own_stores(config: &Config, phases: &mut Phases) -> anyhow::Result<Prepared> {
    phases.run("data", || {
        let train = TokenStore::open_folder(&config.data.train_folder, "train").or_user()?;
        let valid = match config.data.valid_folder.as_str() {
            "" => None,
            folder => Some(Arc::new(TokenStore::open_folder(folder, "valid").or_user()?)),
        };
        let given = given_tokenizer(&config.tokenizer)?;
        let vocab_size = match &given {
            Some((tokenizer, _)) => tokenizer.vocab_size(),
            None if config.model.vocab_size > 0 => config.model.vocab_size,
            None => user_bail!(
                "data.train_folder needs tokenizer.file or model.vocab_size: the number of tokens is not known"
            ),
        };
        let note = format!("{} tokens in {} documents", terminal::count(train.tokens()), train.documents());
        let prepared = Prepared {
            identity: train.fingerprint().hash,
            train: Arc::new(train),
            valid,
            tokenizer: given.and_then(|(_, path)| path),
            vocab_size,
            funnel: Vec::new(),
            sources: BTreeMap::new(),
            missing: Vec::new(),
        };
        Ok(Outcome::reused(prepared, note))
    })
}

fn funnel_stage(report: &StageReport) -> FunnelStage {
    FunnelStage {
        stage: report.stage.clone(),
        documents_in: report.documents_in,
        documents_kept: report.documents_kept,
        bytes_in: report.bytes_in,
        bytes_kept: report.bytes_kept,
        reasons: report.reasons.clone(),
    }
}

fn sources(manifest: &CorpusManifest) -> BTreeMap<String, SourceCount> {
    let count = |total: &collection::SourceTotal| SourceCount { documents: total.documents, bytes: total.bytes };
    manifest.sources.iter().map(|(name, total)| (name.clone(), count(total))).collect()
}
