//! ARPA files: the text form of n-gram models, with log10 probabilities and backoffs.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use super::{MAX_ORDER, Weights, build, model::NgramModel};
use crate::{
    DataError,
    format::{LineReader, RawRecord, RecordReader as _},
};

/// An ARPA file, plain or compressed (`.gz`, `.zst`), after its header.
pub(super) struct Arpa {
    path: PathBuf,
    reader: LineReader,
    line: Vec<u8>,
    counts: Vec<u64>,
}

impl Arpa {
    /// Opens `path` and reads how many n-grams there are.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let reader = LineReader::open(path)?;
        let mut file = Self { path: path.to_owned(), reader, line: Vec::new(), counts: Vec::new() };
        file.next()?;
        while file.line.starts_with(b"#") {
            file.next()?;
        }
        if file.text()?.trim_end() != "\\data\\" {
            return Err(file.invalid("this is neither an ARPA file (`\\data\\`) nor a model of KenLM"));
        }
        while let Some((order, count)) = file.next()?.and_then(count) {
            if order != file.counts.len() + 1 || order > MAX_ORDER || count >= 1 << 48 {
                return Err(file.invalid(format!("{count} n-grams of order {order} do not come here")));
            }
            file.counts.push(count);
        }
        if file.counts.is_empty() {
            return Err(file.invalid("`ngram 1=COUNT` expected"));
        }
        // A damaged count must not ask for all memory: no compressed n-gram takes a thousandth of a byte.
        let stored = std::fs::metadata(path).map_or(u64::MAX, |metadata| metadata.len());
        match file.counts.iter().sum::<u64>() {
            all if all > stored.saturating_mul(1000) => Err(file.invalid(format!("{all} n-grams in {stored} bytes"))),
            _ => Ok(file),
        }
    }

    /// n-grams of each order.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Hands over every n-gram, shorter ones first: its words as they are in the line (`\t` or spaces between them) and its weights.
    pub fn for_each(
        mut self,
        mut take: impl FnMut(usize, &str, Weights) -> Result<(), String>,
    ) -> Result<(), DataError> {
        for order in 1..=self.counts.len() {
            // The line is the one that ended the part before.
            if self.text()?.trim_end() != format!("\\{order}-grams:") {
                return Err(self.invalid(format!("`\\{order}-grams:` expected")));
            }
            for _ in 0..self.counts[order - 1] {
                self.next()?;
                let read = ngram(self.text()?, order).and_then(|(words, weights)| take(order, words, weights));
                read.map_err(|reason| self.invalid(reason))?;
            }
            self.next()?;
        }
        if self.text()?.trim_end() == "\\end\\" { Ok(()) } else { Err(self.invalid("`\\end\\` expected")) }
    }

    /// The next line that is not blank; none at the end.
    fn next(&mut self) -> Result<Option<&str>, DataError> {
        match self.reader.next_record(&mut self.line)? {
            RawRecord::Record => self.text().map(Some),
            RawRecord::Damaged(fault) => Err(self.invalid(fault.to_string())),
            RawRecord::End => {
                self.line.clear();
                Ok(None)
            }
        }
    }

    fn text(&self) -> Result<&str, DataError> {
        std::str::from_utf8(&self.line).map_err(|error| self.invalid(error.to_string()))
    }

    fn invalid(&self, reason: impl Into<String>) -> DataError {
        DataError::invalid(&self.path, self.reader.record(), reason)
    }
}

/// `ngram ORDER=COUNT`.
fn count(line: &str) -> Option<(usize, u64)> {
    let (order, count) = line.strip_prefix("ngram ")?.split_once('=')?;
    Some((order.trim().parse().ok()?, count.trim().parse().ok()?))
}

/// What separates: words may hold any other white space.
const BLANKS: [char; 2] = [' ', '\t'];

/// `LOG10 \t WORDS [\t BACKOFF]`.
fn ngram(line: &str, order: usize) -> Result<(&str, Weights), String> {
    let (log10, rest) = line.split_once(BLANKS).ok_or_else(|| format!("`{line}` is no {order}-gram"))?;
    let number = |text: &str| {
        let text = text.trim();
        let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| format!("`{text}` in a {order}-gram is no number"))
    };
    let log10 = number(log10)?.min(0.0);
    // Where everything is separated by spaces, the words are counted.
    let (words, backoff) = match rest.trim_end_matches(BLANKS).split_once('\t') {
        Some((words, backoff)) => (words, number(backoff)?),
        None => {
            let spaces = rest.match_indices(' ').nth(order - 1).map(|(at, _)| at);
            spaces.map_or(Ok((rest.trim_end_matches(BLANKS), 0.0)), |at| {
                number(&rest[at..]).map(|backoff| (&rest[..at], backoff))
            })?
        }
    };
    Ok((words, Weights { log10, backoff }))
}

/// Writes an ARPA file, shorter n-grams first.
pub(super) struct ArpaWriter<W> {
    out: W,
    orders: usize,
    order: usize,
}

impl<W: Write> ArpaWriter<W> {
    pub fn new(mut out: W, counts: &[u64]) -> std::io::Result<Self> {
        writeln!(out, "\\data\\")?;
        for (at, count) in counts.iter().enumerate() {
            writeln!(out, "ngram {}={count}", at + 1)?;
        }
        Ok(Self { out, orders: counts.len(), order: 0 })
    }

    pub fn ngram<'a>(
        &mut self,
        words: impl Iterator<Item = &'a [u8]>,
        order: usize,
        weights: Weights,
    ) -> std::io::Result<()> {
        while self.order < order {
            self.order += 1;
            writeln!(self.out, "\n\\{}-grams:", self.order)?;
        }
        write!(self.out, "{}", weights.log10)?;
        for (at, word) in words.enumerate() {
            self.out.write_all(if at == 0 { b"\t" } else { b" " })?;
            self.out.write_all(word)?;
        }
        if order < self.orders { writeln!(self.out, "\t{}", weights.backoff) } else { writeln!(self.out) }
    }

    pub fn finish(mut self) -> std::io::Result<W> {
        while self.order < self.orders {
            self.order += 1;
            writeln!(self.out, "\n\\{}-grams:", self.order)?;
        }
        writeln!(self.out, "\n\\end\\")?;
        Ok(self.out)
    }
}

/// Builds a model of KenLM's kind `probing` from the ARPA file at `from` and writes it to `to`. `multiplier`: buckets per entry of the
/// hash tables, 1.5 as KenLM unless memory is short.
///
/// # Errors
/// An ARPA file that cannot be read, one of single words (KenLM has no binary form for it), or a file that cannot be written.
pub fn convert(from: &Path, to: &Path, multiplier: f32) -> Result<NgramModel, DataError> {
    let bytes = build::probing(Arpa::open(from)?, multiplier)?;
    if bytes.order() < 2 {
        return Err(DataError::invalid(from, 1, "a model of single words has no binary form; use the ARPA file"));
    }
    bytes.save(to)?;
    NgramModel::load(to)
}
