//! Repeated parts: lines, paragraphs, sentences or any run of tokens that occurred before in the corpus are cut out of later
//! documents.
//!
//! Every part gets a number and a 72-bit key; sorted by key, all but the first occurrence of each are marked; a second pass cuts.
//! Keys and marks go to disk beyond their memory, so the corpus may be of any size. For substrings the parts are all windows of
//! `min_tokens` tokens: a run of at least that many tokens repeats exactly when its windows do, so this finds what a suffix array
//! over the corpus finds (the tests compare with one), without holding the corpus. White space and punctuation between tokens do not
//! count. What the first occurrence of a window covers is never cut, so a text that repeats itself keeps its first period.

use std::{ops::Range, path::Path};

use internevo_core::storage::StorageError;
use rayon::prelude::*;
use unicode_segmentation::UnicodeSegmentation as _;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    report::{DuplicateReport, write_duplicates},
    settings::{Part, Settings},
    shingle::shingles,
    stage::{SCRATCH, STAGE, for_chunks, keep_document, place, token_rule},
    tokens::{TokenRule, Tokens, is_unspaced},
};
use crate::{
    DataError, Document,
    document::LineFault,
    spill::{Scratch, Sorted, Sorter},
    stage::{Chunk, ChunkOutput, InputFile, Item, Progress, Rejection, StageReport, StageWriter},
};

/// Bits of a part's number at the end of a sort item; the key is above.
const NUMBER_BITS: u32 = 56;
/// Items per task of the thread pool.
const TASK_ITEMS: usize = 16;
/// Reason of a document of which nothing is left.
const REASON: &str = "repeated_text";

/// Cuts repeated parts out of the documents of `inputs`.
///
/// # Errors
/// A file that cannot be read or written, an input that changes while it is read, a stop request.
pub(super) fn run(
    inputs: &[InputFile],
    mut writer: StageWriter,
    output: &Path,
    settings: &Settings,
    part: Part,
    progress: &dyn Progress,
) -> Result<StageReport, DataError> {
    let scratch = Scratch::new(output.join(SCRATCH))?;
    let run = Run { inputs, progress, part, min_tokens: settings.min_tokens, chunk_bytes: settings.chunk_bytes() };
    let mut keys = Sorter::new(&scratch, settings.memory / 2);
    let mut report = DuplicateReport { parts: run.first_pass(&mut keys)?, ..DuplicateReport::default() };
    let marks = marks(&keys.finish()?, Sorter::new(&scratch, settings.memory / 4), &mut report)?;
    run.second_pass(&marks, &mut report, &mut writer)?;
    write_duplicates(output, &report)?;
    writer.finish()
}

/// The repeated parts, ascending: twice the number of each, plus one for a first occurrence.
fn marks(keys: &Sorted, mut marks: Sorter<'_>, report: &mut DuplicateReport) -> Result<Sorted, StorageError> {
    let number = |item: u128| item & ((1 << NUMBER_BITS) - 1);
    let (mut first, mut repeats) = (None::<u128>, false);
    for item in keys.iter()? {
        let item = item?;
        match first {
            Some(first) if first >> NUMBER_BITS == item >> NUMBER_BITS => {
                if !std::mem::replace(&mut repeats, true) {
                    marks.push(number(first) << 1 | 1)?;
                }
                marks.push(number(item) << 1)?;
                report.repeated_parts += 1;
            }
            _ => (first, repeats) = (Some(item), false),
        }
    }
    marks.finish()
}

/// The parts of one text that can repeat.
struct Parts {
    /// Ascending; substrings' windows overlap.
    ranges: Vec<Range<usize>>,
    /// The key of each, in the high 72 bits.
    keys: Vec<u128>,
}

/// An item after its parts were found.
enum Read {
    Broken(LineFault),
    Document { document: Document, named: bool, parts: Parts },
}

impl Read {
    /// The keys of its parts.
    fn into_keys(self) -> Vec<u128> {
        match self {
            Self::Broken(_) => Vec::new(),
            Self::Document { parts, .. } => parts.keys,
        }
    }
}

struct Run<'a> {
    inputs: &'a [InputFile],
    progress: &'a dyn Progress,
    part: Part,
    min_tokens: usize,
    chunk_bytes: usize,
}

impl Run<'_> {
    /// Collects the keys of all parts; gives their number.
    fn first_pass(&self, keys: &mut Sorter<'_>) -> Result<u64, DataError> {
        let mut number = 0u128;
        let read = |chunk: &Chunk| Ok(self.read(chunk).into_iter().map(Read::into_keys).collect());
        for_chunks(self.inputs, self.chunk_bytes, self.progress, read, |chunk, found: Vec<Vec<u128>>| {
            for key in found.into_iter().flatten() {
                keys.push(key | number)?;
                number += 1;
            }
            self.progress.advance(chunk.stored / 2, 0, 0);
            Ok(())
        })?;
        Ok(number as u64)
    }

    fn read(&self, chunk: &Chunk) -> Vec<Read> {
        let read = |item| match chunk.document(item, self.inputs) {
            Err(fault) => Read::Broken(fault),
            Ok((document, named)) => {
                let parts = find_parts(&document.text, self.part, self.min_tokens, token_rule(&document));
                Read::Document { document, named, parts }
            }
        };
        chunk.items.par_iter().map(read).collect()
    }

    fn second_pass(
        &self,
        marks: &Sorted,
        report: &mut DuplicateReport,
        writer: &mut StageWriter,
    ) -> Result<(), DataError> {
        let (mut marks, mut number) = (marks.iter()?.peekable(), 0u128);
        let cut = |chunk: &Chunk| -> Result<Vec<Cut>, DataError> {
            let mut items: Vec<(&Item, Read, Marked)> = Vec::with_capacity(chunk.items.len());
            for (item, read) in chunk.items.iter().zip(self.read(chunk)) {
                let mut marked = Marked::default();
                if let Read::Document { parts, .. } = &read {
                    let end = number + parts.ranges.len() as u128;
                    while let Some(mark) = marks.next_if(|mark| mark.as_ref().map_or(true, |mark| mark >> 1 < end)) {
                        let mark = mark?;
                        let side = if mark & 1 == 1 { &mut marked.first } else { &mut marked.again };
                        side.push((mark >> 1).saturating_sub(number) as usize);
                    }
                    number = end;
                }
                items.push((item, read, marked));
            }
            let cut = |items: &mut [(&Item, Read, Marked)]| {
                let mut out = Cut::default();
                items.iter_mut().for_each(|(item, read, marked)| self.cut(chunk, item, read, marked, &mut out));
                out
            };
            Ok(items.par_chunks_mut(TASK_ITEMS).map(cut).collect())
        };
        for_chunks(self.inputs, self.chunk_bytes, self.progress, cut, |chunk, tasks| {
            writer.begin_part(chunk.part)?;
            for task in tasks {
                writer.append(&task.lines)?;
                report.shortened += task.shortened;
                report.bytes_removed += task.bytes_removed;
            }
            writer.tell(self.progress, chunk.stored - chunk.stored / 2);
            Ok(())
        })
    }

    fn cut(&self, chunk: &Chunk, item: &Item, read: &mut Read, marked: &Marked, out: &mut Cut) {
        let (document, named, parts) = match read {
            Read::Broken(fault) => {
                return out.lines.reject_broken(chunk.bytes(item), &place(self.inputs, item), fault);
            }
            Read::Document { document, named, parts } => (document, *named, parts),
        };
        let before = document.text.len();
        let cuts = marked.cuts(&parts.ranges);
        if cuts.is_empty() {
            return if named {
                out.lines.keep(chunk.bytes(item), before);
            } else {
                keep_document(document, before, &mut out.lines);
            };
        }
        let (mut left, mut at) = (String::with_capacity(before), 0);
        for cut in &cuts {
            left.push_str(&document.text[at..cut.start]);
            at = cut.end;
        }
        left.push_str(&document.text[at..]);
        let removed = before - left.len();
        if !left.contains(char::is_alphanumeric) {
            let place = place(self.inputs, item);
            let share = removed as f64 / before as f64;
            return out.lines.reject(&Rejection::of(document, &place, STAGE, REASON, share));
        }
        out.shortened += 1;
        out.bytes_removed += removed as u64;
        document.text = left;
        keep_document(document, before, &mut out.lines);
    }
}

/// What became of some items.
#[derive(Default)]
struct Cut {
    lines: ChunkOutput,
    shortened: u64,
    bytes_removed: u64,
}

/// Which parts of a text repeat, by index.
#[derive(Debug, Default)]
struct Marked {
    /// They occur again later.
    first: Vec<usize>,
    /// They occurred before.
    again: Vec<usize>,
}

impl Marked {
    /// The byte ranges to cut: what repeats, without what a first occurrence covers; ascending and apart.
    fn cuts(&self, ranges: &[Range<usize>]) -> Vec<Range<usize>> {
        let mut cuts: Vec<Range<usize>> = Vec::new();
        let mut keep = self.first.iter().map(|index| ranges[*index].clone()).peekable();
        for range in self.again.iter().map(|index| ranges[*index].clone()) {
            let mut start = range.start.max(cuts.last().map_or(0, |cut| cut.end));
            while keep.next_if(|kept| kept.end <= start).is_some() {}
            // First occurrences may overlap each other and this range; look at all that begin within it without using them up.
            for kept in keep.clone().take_while(|kept| kept.start < range.end) {
                push_cut(&mut cuts, start..kept.start.max(start));
                start = start.max(kept.end);
            }
            push_cut(&mut cuts, start..range.end.max(start));
        }
        cuts
    }
}

fn push_cut(cuts: &mut Vec<Range<usize>>, cut: Range<usize>) {
    match cuts.last_mut() {
        _ if cut.is_empty() => {}
        Some(last) if last.end == cut.start => last.end = cut.end,
        _ => cuts.push(cut),
    }
}

/// The parts of `text` of at least `min_tokens` tokens.
fn find_parts(text: &str, part: Part, min_tokens: usize, rule: TokenRule) -> Parts {
    if part == Part::Substring {
        return windows(text, min_tokens);
    }
    let mut parts = Parts { ranges: Vec::new(), keys: Vec::new() };
    let mut tokens = Tokens::new();
    let mut take = |start: usize, slice: &str| {
        tokens.read(slice, rule);
        if tokens.hashes().len() >= min_tokens {
            parts.ranges.push(start..start + slice.len());
            parts.keys.push(tokens.identity(slice, rule) >> NUMBER_BITS << NUMBER_BITS);
        }
    };
    match part {
        Part::Line => lines(text).for_each(|(start, slice)| take(start, slice)),
        Part::Paragraph => paragraphs(text).for_each(|(start, slice)| take(start, slice)),
        Part::Sentence => text.split_sentence_bound_indices().for_each(|(start, slice)| take(start, slice)),
        Part::Substring => unreachable!("returned above"),
    }
    parts
}

/// Lines, with their line ends.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split_inclusive('\n').map(move |line| {
        at += line.len();
        (at - line.len(), line)
    })
}

/// Paragraphs, with the blank lines behind them.
fn paragraphs(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &text[at..];
        let (mut end, mut line_ends) = (rest.len(), 0);
        for (place, c) in rest.char_indices() {
            match c {
                '\n' => line_ends += 1,
                c if c.is_whitespace() => {}
                _ if line_ends >= 2 => {
                    end = place;
                    break;
                }
                _ => line_ends = 0,
            }
        }
        at += end;
        (end > 0).then(|| (at - end, &rest[..end]))
    })
}

/// All windows of `length` tokens. Case and digits count, what is between tokens does not.
fn windows(text: &str, length: usize) -> Parts {
    let tokens = exact_tokens(text);
    if tokens.len() < length {
        return Parts { ranges: Vec::new(), keys: Vec::new() };
    }
    let hashes: Vec<u64> = tokens.iter().map(|range| xxh3_64(&text.as_bytes()[range.clone()])).collect();
    let mut rolling = Vec::new();
    shingles(&hashes, length, &mut rolling);
    let key = |(at, hash): (usize, &u64)| {
        // Eight more bits of content beside the 64 of the rolling hash.
        let ends = (hashes[at] ^ hashes[at + length - 1].rotate_left(8)) >> 56;
        (u128::from(*hash) << 8 | u128::from(ends)) << NUMBER_BITS
    };
    let keys = rolling.iter().enumerate().map(key).collect();
    // A window reaches to the token behind it, so that a cut leaves no stray punctuation.
    let end = |at: usize| tokens.get(at + length).map_or(text.len(), |next| next.start);
    Parts { ranges: (0..rolling.len()).map(|at| tokens[at].start..end(at)).collect(), keys }
}

/// The places of tokens: runs of alphanumerics, single characters of scripts without spaces.
fn exact_tokens(text: &str) -> Vec<Range<usize>> {
    let (mut tokens, mut start) = (Vec::new(), None);
    for (at, c) in text.char_indices() {
        let alone = !c.is_ascii() && is_unspaced(c);
        if c.is_alphanumeric() && !alone {
            start = start.or(Some(at));
            continue;
        }
        tokens.extend(start.take().map(|start| start..at));
        if alone {
            tokens.push(at..at + c.len_utf8());
        }
    }
    tokens.extend(start.map(|start| start..text.len()));
    tokens
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use libsais::SuffixArrayConstruction;
    use proptest::prelude::*;

    use super::*;

    /// The marked windows of some texts, numbered through.
    fn marked(texts: &[String], length: usize, memory: usize) -> Vec<u128> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let scratch = Scratch::new(dir.path().join("scratch")).expect("scratch");
        let mut keys = Sorter::new(&scratch, memory);
        let all = texts.iter().flat_map(|text| windows(text, length).keys);
        all.zip(0..).try_for_each(|(key, number)| keys.push(key | number)).expect("disk");
        let mut report = DuplicateReport::default();
        let marks = marks(&keys.finish().expect("disk"), Sorter::new(&scratch, memory), &mut report).expect("disk");
        marks.iter().expect("disk").collect::<Result<_, _>>().expect("disk")
    }

    /// The numbers of windows that occur more than once, by a suffix array over the tokens of all texts.
    fn by_suffix_array(texts: &[Vec<u8>], length: usize) -> BTreeSet<u128> {
        let mut joined: Vec<u8> = Vec::new();
        let mut number = Vec::new();
        let mut next = 0u128;
        for text in texts {
            for at in 0..text.len() {
                let is_window = at + length <= text.len();
                number.push(is_window.then_some(next));
                next += u128::from(is_window);
            }
            joined.extend_from_slice(text);
            joined.push(0); // ends a text
            number.push(None);
        }
        let array =
            SuffixArrayConstruction::for_text(&joined).in_owned_buffer32().single_threaded().run().expect("array");
        let mut repeated = BTreeSet::new();
        for pair in array.suffix_array().windows(2) {
            let [a, b] = [pair[0] as usize, pair[1] as usize];
            if let (Some(x), Some(y)) = (number[a], number[b])
                && joined[a..a + length] == joined[b..b + length]
            {
                repeated.extend([x, y]);
            }
        }
        repeated
    }

    proptest! {
        #[test]
        fn repeated_windows_are_those_of_a_suffix_array(
            texts in proptest::collection::vec(proptest::collection::vec(1u8..4, 0..80), 1..6), length in 1usize..9,
        ) {
            let words: Vec<String> = texts
                .iter()
                .map(|text| text.iter().map(|token| format!("w{token}")).collect::<Vec<_>>().join(" , "))
                .collect();
            let marks = marked(&words, length, 1 << 20);
            let found: BTreeSet<u128> = marks.iter().map(|mark| mark >> 1).collect();
            prop_assert_eq!(&found, &by_suffix_array(&texts, length));
            // Of each repeated window exactly one is the first.
            let distinct: BTreeSet<&[u8]> = texts.iter().flat_map(|text| text.windows(length)).collect();
            let all: Vec<&[u8]> = texts.iter().flat_map(|text| text.windows(length)).collect();
            let repeated = distinct.iter().filter(|w| all.iter().filter(|x| x == w).count() > 1).count();
            prop_assert_eq!(marks.iter().filter(|mark| *mark & 1 == 1).count(), repeated);
        }

        #[test]
        fn cuts_are_what_repeats_without_what_first_occurrences_cover(
            kinds in proptest::collection::vec(0u8..3, 0..40), length in 1usize..6,
        ) {
            let ranges: Vec<Range<usize>> = (0..kinds.len()).map(|at| at..at + length).collect();
            let of = |kind: u8| (0..kinds.len()).filter(|at| kinds[*at] == kind).collect::<Vec<_>>();
            let marked = Marked { first: of(1), again: of(2) };
            let covers = |kind: u8, place: usize| of(kind).iter().any(|at| ranges[*at].contains(&place));
            let cuts = marked.cuts(&ranges);
            for place in 0..kinds.len() + length {
                let cut = cuts.iter().any(|cut| cut.contains(&place));
                prop_assert_eq!(cut, covers(2, place) && !covers(1, place), "place {} of {:?}", place, cuts);
            }
            prop_assert!(cuts.is_sorted_by(|a, b| a.end < b.start));
        }

        #[test]
        fn pieces_are_the_whole_text(text in "[a \n]{0,40}") {
            prop_assert_eq!(&lines(&text).map(|(_, piece)| piece).collect::<String>(), &text);
            prop_assert_eq!(&paragraphs(&text).map(|(_, piece)| piece).collect::<String>(), &text);
        }
    }

    #[test]
    fn lines_and_paragraphs_end_where_they_should() {
        let text = "one\ntwo\n \nthree\n\n\n  four";
        assert_eq!(lines(text).map(|(at, _)| at).collect::<Vec<_>>(), [0, 4, 8, 10, 16, 17, 18]);
        let paragraphs: Vec<&str> = paragraphs(text).map(|(_, piece)| piece).collect();
        assert_eq!(paragraphs, ["one\ntwo\n \n", "three\n\n\n  ", "four"]);
    }
}
