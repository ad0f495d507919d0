//! Training a model on documents: settings, the steps in order, the report.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use internevo_core::storage::{self, AtomicFile, StorageError};
use serde::{Deserialize, Serialize};

use super::{
    LmTokens,
    adjust::{self, Statistic},
    arpa::{self, ArpaWriter},
    count::{self, Packing},
    estimate::{self, Interpolation, Shares},
};
use crate::{DataError, interner::Interner, spill::Scratch, stage::Progress};

/// The longest n-gram that is trained: five words fit into a sortable number of 128 bits.
const LONGEST: usize = 5;
/// Buckets per entry of the hash tables of a binary model, as KenLM's.
const MULTIPLIER: f32 = 1.5;
/// What a message says was interrupted.
pub(super) const INTERRUPTED: &str = "lm train";
/// Extension of text models.
const ARPA: &str = "arpa";

/// How a model is trained.
#[derive(Clone, Debug)]
pub struct LmSettings {
    /// Words of the longest n-gram, 1 to 5.
    pub order: usize,
    /// How lines are cut.
    pub tokens: LmTokens,
    /// n-grams of `i + 1` words go that occur this often or less; the last number counts for all longer ones. Numbers do not fall, and
    /// the first is 0. Empty: all stay.
    pub prune: Vec<u64>,
    /// Fixed discounts (0.5, 1, 1.5) where the corpus is too small to estimate them.
    pub discount_fallback: bool,
    /// Memory for n-grams, bytes; what does not fit is sorted on disk. The model does not depend on it. The vocabulary comes on top.
    pub memory: usize,
}

impl Default for LmSettings {
    fn default() -> Self {
        Self { order: 5, tokens: LmTokens::Words, prune: Vec::new(), discount_fallback: false, memory: 1 << 30 }
    }
}

impl LmSettings {
    /// Pruning thresholds of all orders.
    fn thresholds(&self) -> Result<Vec<u64>, DataError> {
        let wrong = |key: &str, reason: String| Err(DataError::Setting { key: key.into(), reason });
        if !(1..=LONGEST).contains(&self.order) {
            return wrong("order", format!("{} is not between 1 and {LONGEST}", self.order));
        }
        let last = self.prune.last().copied().unwrap_or(0);
        let prune: Vec<u64> = (0..self.order).map(|at| self.prune.get(at).copied().unwrap_or(last)).collect();
        match prune {
            _ if self.prune.len() > self.order => {
                wrong("prune", format!("{} numbers for {} orders", self.prune.len(), self.order))
            }
            prune if prune[0] != 0 => wrong("prune", "words themselves are not pruned: the first number is 0".into()),
            prune if !prune.is_sorted() => wrong("prune", format!("{prune:?} must not fall")),
            prune => Ok(prune),
        }
    }
}

/// Discounts of one order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discounts {
    /// For an adjusted count of 1, of 2, of 3 or more.
    pub discount: [f64; 3],
}

/// What a training did; stored beside the model with `.json` after its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LmReport {
    /// Words of the longest n-gram.
    pub order: usize,
    /// How lines were cut: what [`LmTokens::parse`] reads. The filter takes it from here.
    pub tokens: String,
    /// Documents with text.
    pub documents: u64,
    /// Lines that are not blank.
    pub lines: u64,
    /// Tokens, ends of lines not counted.
    pub token_count: u64,
    /// n-grams of each order in the model.
    pub ngrams: Vec<u64>,
    /// Discounts of each order.
    pub discounts: Vec<Discounts>,
    /// Temporary files: 0 when everything fitted into memory.
    pub spilled_files: u32,
    /// Memory of the vocabulary, bytes.
    pub vocabulary_bytes: usize,
}

impl LmReport {
    /// Where the report of the model at `path` is.
    pub fn path(model: &Path) -> PathBuf {
        let mut name = model.as_os_str().to_owned();
        name.push(".json");
        name.into()
    }

    /// The report of the model at `path`; `None` where there is none, as for models from elsewhere.
    pub fn of(model: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(model)).ok()?).ok()
    }
}

/// Trains a model on the documents of `files` (JSONL, or one document each) and stores it at `out`: as ARPA if the name ends in
/// `.arpa`, else as KenLM's binary kind `probing`. Temporary files go to `OUT.tmp`, a folder that vanishes.
///
/// The model depends on the documents, their order and the settings; neither on threads nor on memory.
///
/// # Errors
/// Settings out of range, too little text ([`LmSettings::discount_fallback`]), a file that cannot be read or written.
pub fn train(
    files: &[PathBuf],
    out: &Path,
    settings: &LmSettings,
    progress: &dyn Progress,
) -> Result<LmReport, DataError> {
    let prune = settings.thresholds()?;
    let is_arpa = out.extension().is_some_and(|extension| extension == ARPA);
    if !is_arpa && settings.order < 2 {
        let reason = "a model of single words has no binary form; let the output end in .arpa".into();
        return Err(DataError::Setting { key: "order".into(), reason });
    }
    let mut folder = out.as_os_str().to_owned();
    folder.push(".tmp");
    let scratch = Scratch::new(PathBuf::from(folder))?;
    let counts = count::count(files, &settings.tokens, settings.order, &scratch, settings.memory / 2, progress)?;
    if counts.tokens == 0 {
        return Err(DataError::EmptyCorpus { looked_for: format!("lines of text in {} files", files.len()) });
    }
    progress.message(&format!("{} words, {} different ones", counts.tokens, counts.words.len()));
    let share = settings.memory / 2;
    let adjusted = adjust::adjust(&counts.grams, settings.order, &prune, &scratch, share)?;
    drop(counts.grams);
    let discounts = adjusted.statistics.iter().enumerate();
    let discounts = discounts
        .map(|(at, statistic)| estimate::discount(at + 1, statistic, settings.discount_fallback))
        .collect::<Result<Vec<_>, _>>()?;
    let packing = Packing::new(settings.order);
    let mut shares = Vec::new();
    for (at, grams) in adjusted.grams.into_iter().enumerate() {
        shares.push(estimate::shares(&grams, at + 1, packing, &discounts[at], &scratch, share / settings.order)?);
    }
    let arpa_path = if is_arpa { out.to_owned() } else { LmReport::path(out).with_extension(ARPA) };
    write_arpa(&arpa_path, &shares, &adjusted.statistics, &counts.words, &scratch, share)?;
    drop(shares);
    if !is_arpa {
        arpa::convert(&arpa_path, out, MULTIPLIER)?;
        std::fs::remove_file(&arpa_path).map_err(StorageError::at("remove", &arpa_path))?;
    }
    let report = LmReport {
        order: settings.order,
        tokens: settings.tokens.to_string(),
        documents: counts.documents,
        lines: counts.lines,
        token_count: counts.tokens,
        ngrams: adjusted.statistics.iter().map(|statistic| statistic.kept).collect(),
        discounts: discounts.into_iter().map(|discount| Discounts { discount }).collect(),
        spilled_files: scratch.files(),
        vocabulary_bytes: counts.words.memory(),
    };
    let json = serde_json::to_vec_pretty(&report).expect("numbers and strings are JSON");
    storage::write_atomic(LmReport::path(out), json)?;
    Ok(report)
}

fn write_arpa(
    path: &Path,
    shares: &[Shares],
    statistics: &[Statistic],
    words: &Interner,
    scratch: &Scratch,
    memory: usize,
) -> Result<(), DataError> {
    let failed = || StorageError::at("write", path);
    let counts: Vec<u64> = statistics.iter().map(|statistic| statistic.kept).collect();
    let mut file = AtomicFile::create(path)?;
    let out = ArpaWriter::new(&mut file, &counts).map_err(failed())?;
    let order = shares.len();
    let mut writer = Interpolation { packing: Packing::new(order), words, scratch, memory: memory / 2, out };
    // `<unk>` is one of the words that share what is left, `<s>` is not.
    let uniform = 1.0 / (counts[0] - 1) as f64;
    let mut shorter = None;
    for at in 0..order {
        shorter = Some(writer.order(at + 1, &shares[at], shorter.as_ref(), uniform, shares.get(at + 1))?);
    }
    writer.out.finish().and_then(Write::flush).map_err(failed())?;
    Ok(file.commit()?)
}
