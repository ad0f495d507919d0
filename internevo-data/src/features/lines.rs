//! Lines and paragraphs, by the three rules that datatrove's filters use.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

use super::{
    classes::{Class, Classes},
    repeats::{Table, number},
};

/// Repetition among lines or paragraphs. Tools count it in two ways: without the first occurrence, or with all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Blocks in all.
    pub count: usize,
    /// Blocks that an earlier one equals.
    pub duplicates: usize,
    /// Length of those.
    pub duplicate_length: usize,
    /// Blocks that another one equals, the first of them included.
    pub repeated: usize,
    /// Length of those.
    pub repeated_length: usize,
}

impl Blocks {
    /// Counts blocks that equal others; `length` is in the caller's unit and asked of those only.
    pub fn count<'a>(blocks: impl Iterator<Item = &'a str>, length: impl Fn(&str) -> usize) -> Self {
        let blocks: Vec<&str> = blocks.collect();
        let hashes = blocks.iter().map(|block| xxh3_64(block.as_bytes()));
        let (ids, counts) = number(hashes, &mut Table::default());
        let mut found = Self { count: blocks.len(), ..Self::default() };
        if counts.len() == blocks.len() {
            return found;
        }
        let mut seen = vec![false; counts.len()];
        for (block, &id) in blocks.into_iter().zip(&ids).filter(|(_, id)| counts[**id as usize] > 1) {
            let length = length(block);
            found.repeated += 1;
            found.repeated_length += length;
            if std::mem::replace(&mut seen[id as usize], true) {
                found.duplicates += 1;
                found.duplicate_length += length;
            }
        }
        found
    }
}

/// `text` without white space at the beginning, as Python's `str.lstrip`.
pub fn python_trim_start(text: &str) -> &str {
    text.trim_start_matches(|c| Classes::get().of(c).has(Class::SPACE))
}

/// `text` without white space at the end, as Python's `str.rstrip`.
pub fn python_trim_end(text: &str) -> &str {
    text.trim_end_matches(|c| Classes::get().of(c).has(Class::SPACE))
}

/// Lines as Python's `str.splitlines`: ended by LF, CR, CRLF, VT, FF, FS, GS, RS, NEL, LS or PS; no empty line at the end.
pub fn python_lines(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut lines, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(found) = bytes[at..].iter().position(|byte| MAY_END_LINE[usize::from(*byte)]) {
        at += found;
        let length = line_end_length(&bytes[at..]);
        if length > 0 {
            lines.push(&text[start..at]);
            start = at + length;
        }
        at += length.max(1);
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}

/// The bytes that begin a line end, and others.
static MAY_END_LINE: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < 256 {
        table[byte] = matches!(byte, 0x0a..=0x0d | 0x1c..=0x1e | 0xc2 | 0xe2);
        byte += 1;
    }
    table
};

/// Bytes of the line end that `bytes` begin with; 0 for none.
fn line_end_length(bytes: &[u8]) -> usize {
    match bytes {
        [b'\r', b'\n', ..] => 2,
        [0x0a..=0x0d | 0x1c..=0x1e, ..] => 1,
        [0xc2, 0x85, ..] => 2,
        [0xe2, 0x80, 0xa8 | 0xa9, ..] => 3,
        _ => 0,
    }
}

/// The text split at runs of one or more `\n`, as `re.split("\n+", text)`: a `\n` at either end leaves an empty block there.
pub fn line_blocks(text: &str) -> impl Iterator<Item = &str> {
    split_at_newlines(text, 1)
}

/// The trimmed text split at runs of two or more `\n`, as `re.split("\n{2,}", text.strip())`.
pub fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    split_at_newlines(python_trim_end(python_trim_start(text)), 2)
}

/// Markdown without its fenced code blocks. A fence ends with at least as many of the mark it began with; one that never ends
/// reaches to the end of the text.
pub fn without_fences(text: &str) -> Cow<'_, str> {
    if !text.contains("```") && !text.contains("~~~") {
        return Cow::Borrowed(text);
    }
    let mut prose = String::with_capacity(text.len());
    let mut open: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        let mark = if trimmed.starts_with('~') { '~' } else { '`' };
        let fence = &trimmed[..trimmed.len() - trimmed.trim_start_matches(mark).len()];
        match open {
            Some(opened) if fence.starts_with(opened) && trimmed.trim_end() == fence => open = None,
            None if fence.len() >= 3 => open = Some(fence),
            None => prose.push_str(line),
            Some(_) => {}
        }
    }
    Cow::Owned(prose)
}

/// The text split at every `\n`, as `str.split`.
pub fn newline_split(text: &str) -> impl Iterator<Item = &str> {
    let ends = memchr::memchr_iter(b'\n', text.as_bytes()).chain([text.len()]);
    let mut start = 0;
    ends.map(move |end| {
        let line = &text[start..end];
        start = end + 1;
        line
    })
}

fn split_at_newlines(text: &str, least: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let bytes = current.as_bytes();
        let mut from = 0;
        while let Some(found) = memchr::memchr(b'\n', &bytes[from..]) {
            let start = from + found;
            let run = bytes[start..].iter().take_while(|byte| **byte == b'\n').count();
            if run >= least {
                rest = Some(&current[start + run..]);
                return Some(&current[..start]);
            }
            from = start + run;
        }
        rest = None;
        Some(current)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_pythons_do() {
        assert_eq!(python_lines("a\r\nb\rc\n\nd\u{2028}e\u{85}f\u{c}"), ["a", "b", "c", "", "d", "e", "f"]);
        assert_eq!(python_lines(""), [""; 0]);
        assert_eq!(python_lines("\n"), [""]);
    }

    #[test]
    fn runs_of_newlines_split_once() {
        let split = |text| line_blocks(text).collect::<Vec<_>>();
        assert_eq!(split("\na\n\n\nb\n"), ["", "a", "b", ""]);
        assert_eq!(split(""), [""]);
        assert_eq!(paragraphs(" \na\nb\n\n\nc\n\n").collect::<Vec<_>>(), ["a\nb", "c"]);
    }

    #[test]
    fn fenced_code_is_left_out_whatever_its_fence() {
        assert_eq!(without_fences("a\n```rust\n}\n```\nb\n  ~~~~\n```\n~~~\nx\n~~~~ \nc `d`\n```\nx"), "a\nb\nc `d`\n");
        assert_eq!(without_fences("a `b`\n"), "a `b`\n");
    }

    #[test]
    fn a_first_occurrence_is_repeated_but_no_duplicate() {
        let found = Blocks::count(["ä", "b", "ä", "ä"].into_iter(), str::len);
        let expected = Blocks { count: 4, duplicates: 2, duplicate_length: 4, repeated: 3, repeated_length: 6 };
        assert_eq!(found, expected);
    }
}
