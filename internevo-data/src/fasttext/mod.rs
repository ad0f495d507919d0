//! Text classifiers trained by fastText: reading its `.bin` and `.ftz` files and predicting as it does.
//!
//! Language identification (`lid.176.bin`, GlotLID) and quality classifiers (DCLM's `openhermes_reddit_eli5_vs_rw_v2`) come as such
//! files. Every loss (softmax, hierarchical softmax, negative sampling, one against all) and every way to quantise is read;
//! training is fastText's business, ours is `internevo data classifier train`.
//!
//! Probabilities are those that fastText prints, its constant of 1e-5 and its table of sigmoids included: a threshold that
//! somebody published means the same here.
//!
//! | file | holds |
//! |---|---|
//! | `dictionary.rs` | words, labels, and the rows of a text: subwords and word n-grams by hash |
//! | `matrix.rs` | dense and product-quantised rows |
//! | `output.rs` | from the hidden vector to the probability of every label |
//! | `plugin.rs` | the classifier `fasttext` |

mod dictionary;
mod matrix;
mod output;
mod plugin;
#[cfg(test)]
mod tests;

use std::path::Path;

use internevo_core::storage;

pub use self::dictionary::Label;
use self::{dictionary::Dictionary, matrix::Matrix, output::Output};
use crate::{DataError, model_file::Cursor};

/// First word of every model file.
const MAGIC: i32 = 793_712_314;
/// The newest version of the format.
const VERSION: i32 = 12;
/// Models of this version know no subwords, whatever their settings say.
const VERSION_WITHOUT_SUBWORDS: i32 = 11;
/// `model` of a classifier; the others are word vectors.
const SUPERVISED: i32 = 3;

/// The settings of a model that predicting needs.
#[derive(Clone, Copy, Debug)]
struct Settings {
    /// Length of a vector.
    dim: usize,
    /// Longest word n-gram.
    word_ngrams: usize,
    /// Which loss.
    loss: i32,
    /// Rows that n-grams share by hash.
    bucket: u32,
    /// Shortest and longest subword, characters; no subwords when the longest is 0.
    subwords: [usize; 2],
}

/// A classifier.
#[derive(Debug)]
pub struct FastText {
    dictionary: Dictionary,
    input: Matrix,
    output: Output,
    fingerprint: String,
}

impl FastText {
    /// Reads a `.bin` or `.ftz` file.
    ///
    /// # Errors
    /// A file that cannot be read, is no fastText classifier, or is damaged: [`DataError::Model`] names the place.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let bytes = storage::read(path)?;
        let mut file = Cursor::new(path, &bytes);
        let settings = Settings::read(&mut file)?;
        let dictionary = Dictionary::read(&mut file, &settings)?;
        let quantised = file.u8("the kind of the input matrix")? != 0;
        let input = Matrix::read(&mut file, quantised, settings.dim)?;
        if input.rows() < dictionary.rows_needed() {
            let (found, needed) = (input.rows(), dictionary.rows_needed());
            return Err(file.fail(format!("the input matrix has {found} rows, the dictionary needs {needed}")));
        }
        let quantised_output = file.u8("the kind of the output matrix")? != 0;
        let matrix = Matrix::read(&mut file, quantised && quantised_output, settings.dim)?;
        let output = Output::new(settings.loss, matrix, dictionary.labels()).map_err(|reason| file.fail(reason))?;
        let fingerprint = blake3::hash(&bytes).to_hex()[..16].to_owned();
        Ok(Self { dictionary, input, output, fingerprint })
    }

    /// The labels, in the order of [`FastText::scores`].
    pub fn labels(&self) -> &[Label] {
        self.dictionary.labels()
    }

    /// Place of the label called `name`, with or without `__label__`, in [`FastText::labels`].
    pub fn label(&self, name: &str) -> Option<usize> {
        let bare = |name: &str| name.strip_prefix(dictionary::LABEL_PREFIX).unwrap_or(name).to_owned();
        self.labels().iter().position(|label| bare(&label.name) == bare(name))
    }

    /// Hash of the file.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The probability of every label for `text`, as fastText gives it for the text in one line: line ends count as spaces. `None`
    /// where nothing of the text is known to the model.
    pub fn scores(&self, text: &str) -> Option<Vec<f32>> {
        let rows = self.dictionary.rows(text);
        if rows.is_empty() {
            return None;
        }
        let mut hidden = vec![0.0; self.input.dim()];
        rows.iter().for_each(|row| self.input.add_row(*row as usize, &mut hidden));
        let scale = 1.0 / rows.len() as f32;
        hidden.iter_mut().for_each(|value| *value *= scale);
        Some(self.output.scores(&hidden))
    }
}

impl Settings {
    fn read(file: &mut Cursor<'_>) -> Result<Self, DataError> {
        let (magic, version) = (file.i32("the header")?, file.i32("the header")?);
        if magic != MAGIC {
            return Err(file.fail("this is no fastText model: the file begins with another number"));
        }
        if version > VERSION {
            return Err(file.fail(format!("version {version} of the format; {VERSION} is the newest known")));
        }
        let mut next = |what| file.i32(what);
        let dim = next("dim")?;
        let [_ws, _epoch, _min_count, _neg] = [next("ws")?, next("epoch")?, next("minCount")?, next("neg")?];
        let (word_ngrams, loss, model) = (next("wordNgrams")?, next("loss")?, next("model")?);
        let (bucket, minn, maxn) = (next("bucket")?, next("minn")?, next("maxn")?);
        let _lr_update_rate = next("lrUpdateRate")?;
        file.take(8, "t")?;
        if model != SUPERVISED {
            return Err(file.fail("this model holds word vectors; a classifier (`fasttext supervised`) is needed"));
        }
        let maxn = if version == VERSION_WITHOUT_SUBWORDS { 0 } else { maxn };
        let settings = Self {
            dim: file.count(dim.into(), "dimensions")?,
            word_ngrams: file.count(word_ngrams.into(), "words in an n-gram")?,
            loss,
            bucket: u32::try_from(bucket).map_err(|_| file.fail(format!("{bucket} buckets")))?,
            subwords: [file.count(minn.into(), "as minn")?, file.count(maxn.into(), "as maxn")?],
        };
        if settings.bucket == 0 && (maxn > 0 || word_ngrams > 1) {
            return Err(file.fail("n-grams without buckets"));
        }
        Ok(settings)
    }
}
