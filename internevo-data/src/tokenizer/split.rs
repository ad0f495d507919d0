//! Cutting text into words before the merges, by the patterns that byte-level tokenizers use: GPT-2's, and GPT-4's as Qwen2 (single
//! digits) and LLaMA 3 (up to three) write it.
//!
//! A regular expression engine spends more time on the cut than the merges take, and the patterns need a look-ahead that a linear-time
//! engine does not have. [`Splitter`] cuts by hand with the same character classes; a test holds it to what Hugging Face tokenizers
//! do with the patterns themselves.

use std::sync::LazyLock;

use regex_syntax::{
    hir::{Class as HirClass, HirKind},
    parse,
};

/// The split of a tokenizer trained here, as it stands in `tokenizer.json`: GPT-4's with single digits.
pub const PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// LLaMA 3's: the same with up to three digits.
const THREE_DIGITS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Characters beyond this are in no class.
const CHARACTERS: usize = 0x11_0000;

/// Class of a character that is neither letter, number nor white space.
const OTHER: u8 = 0;
const LETTER: u8 = 1;
const NUMBER: u8 = 2;
const SPACE: u8 = 3;

/// The class of every character, from the tables of the regular expression engine.
static CLASSES: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut classes = vec![OTHER; CHARACTERS].into_boxed_slice();
    for (pattern, class) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)] {
        let hir = parse(pattern).expect("a constant pattern");
        let HirKind::Class(HirClass::Unicode(ranges)) = hir.kind() else { unreachable!("{pattern} is a class") };
        for range in ranges.iter() {
            classes[range.start() as usize..=range.end() as usize].fill(class);
        }
    }
    classes
});

/// A way to cut text into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Splitter {
    /// GPT-2's: a space goes with the word, the number or the marks behind it.
    Gpt2,
    /// GPT-4's: any one character goes with the letters behind it; numbers are cut into pieces.
    Gpt4 {
        /// Digits of a piece.
        digits: usize,
    },
}

impl Splitter {
    /// The cut of [`PATTERN`].
    pub(crate) const OURS: Self = Self::Gpt4 { digits: 1 };

    /// The splitter of a pattern that is known.
    pub(crate) fn of_pattern(pattern: &str) -> Option<Self> {
        match pattern {
            PATTERN => Some(Self::OURS),
            THREE_DIGITS => Some(Self::Gpt4 { digits: 3 }),
            _ => None,
        }
    }

    /// The words of `text`, in order; joined they are `text` again.
    pub(crate) fn words(self, text: &str) -> Words<'_> {
        Words { splitter: self, cursor: Cursor { text, classes: &CLASSES }, start: 0 }
    }
}

/// Iterator over the words of a text.
pub(crate) struct Words<'a> {
    splitter: Splitter,
    cursor: Cursor<'a>,
    start: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let first = self.cursor.at(self.start)?;
        let end = match self.splitter {
            Splitter::Gpt2 => self.cursor.gpt2(self.start, first),
            Splitter::Gpt4 { digits } => self.cursor.gpt4(self.start, first, digits),
        };
        let word = &self.cursor.text[self.start..end];
        self.start = end;
        Some(word)
    }
}

/// A character: its class and where the next one begins.
#[derive(Clone, Copy)]
struct Char {
    class: u8,
    end: usize,
}

/// A text with the classes of its characters.
struct Cursor<'a> {
    text: &'a str,
    classes: &'static [u8],
}

impl Cursor<'_> {
    #[inline]
    fn at(&self, place: usize) -> Option<Char> {
        let byte = *self.text.as_bytes().get(place)?;
        if byte < 0x80 {
            return Some(Char { class: self.classes[usize::from(byte)], end: place + 1 });
        }
        let char = self.text[place..].chars().next()?;
        Some(Char { class: self.classes[char as usize], end: place + char.len_utf8() })
    }

    fn byte(&self, place: usize) -> Option<u8> {
        self.text.as_bytes().get(place).copied()
    }

    /// Where a run of `class` that may begin at `place` ends.
    #[inline]
    fn run(&self, mut place: usize, class: u8) -> usize {
        while let Some(char) = self.at(place)
            && char.class == class
        {
            place = char.end;
        }
        place
    }

    /// `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    #[inline]
    fn gpt2(&self, start: usize, first: Char) -> usize {
        if self.byte(start) == Some(b'\'')
            && let Some(end) = self.contraction(start + 1, false)
        {
            return end;
        }
        if first.class != SPACE {
            return self.run(first.end, first.class);
        }
        if self.byte(start) == Some(b' ')
            && let Some(next) = self.at(first.end)
            && next.class != SPACE
        {
            return self.run(next.end, next.class);
        }
        self.spaces(start, first).0
    }

    /// [`PATTERN`] with up to `digits` digits.
    #[inline]
    fn gpt4(&self, start: usize, first: Char, digits: usize) -> usize {
        if self.byte(start) == Some(b'\'')
            && let Some(end) = self.contraction(start + 1, true)
        {
            return end;
        }
        match first.class {
            LETTER => return self.run(first.end, LETTER),
            NUMBER => return self.digits(first, digits),
            _ => {}
        }
        let is_line_end = matches!(self.byte(start), Some(b'\r' | b'\n'));
        let next = self.at(first.end).map_or(SPACE, |next| next.class);
        if next == LETTER && !is_line_end {
            return self.run(first.end, LETTER);
        }
        if first.class == OTHER || (next == OTHER && self.byte(start) == Some(b' ')) {
            return self.line_ends(self.run(first.end, OTHER));
        }
        let (end, line_end) = self.spaces(start, first);
        line_end.unwrap_or(end)
    }

    fn digits(&self, first: Char, digits: usize) -> usize {
        let mut end = first.end;
        for _ in 1..digits {
            match self.at(end) {
                Some(next) if next.class == NUMBER => end = next.end,
                _ => break,
            }
        }
        end
    }

    /// Behind the carriage returns and line feeds that may be at `place`.
    fn line_ends(&self, mut place: usize) -> usize {
        while matches!(self.byte(place), Some(b'\r' | b'\n')) {
            place += 1;
        }
        place
    }

    /// `\s+(?!\S)|\s+`: a run of white space without its last character, which goes with what follows, unless the run is that one
    /// character or ends the text. Also where the last line end of the run ends.
    fn spaces(&self, start: usize, first: Char) -> (usize, Option<usize>) {
        let (mut last, mut end, mut line_end) = (start, start, None);
        let mut char = Some(first);
        while let Some(Char { class: SPACE, end: next }) = char {
            (last, end) = (end, next);
            if matches!(self.byte(last), Some(b'\r' | b'\n')) {
                line_end = Some(end);
            }
            char = self.at(end);
        }
        (if end == self.text.len() || last == start { end } else { last }, line_end)
    }

    /// Where the contraction whose apostrophe is before `place` ends.
    fn contraction(&self, place: usize, any_case: bool) -> Option<usize> {
        const ENDINGS: [&[u8]; 7] = [b"s", b"t", b"re", b"ve", b"m", b"ll", b"d"];
        let rest = &self.text.as_bytes()[place..];
        let found = ENDINGS.iter().find(|ending| {
            rest.get(..ending.len())
                .is_some_and(|bytes| if any_case { bytes.eq_ignore_ascii_case(ending) } else { bytes == **ending })
        });
        match found {
            Some(ending) => Some(place + ending.len()),
            // The long s is an s without regard to case.
            None if any_case && rest.starts_with("ſ".as_bytes()) => Some(place + "ſ".len()),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
        pre_tokenizers::split::{Split, SplitPattern},
    };

    use super::*;

    /// `pre_tokenizers::byte_level` keeps its pattern to itself.
    const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    fn by_hugging_face(pattern: &str, text: &str) -> Vec<String> {
        let split = Split::new(SplitPattern::Regex(pattern.into()), SplitDelimiterBehavior::Isolated, false).unwrap();
        let mut text = PreTokenizedString::from(text);
        split.pre_tokenize(&mut text).unwrap();
        let words = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        words.into_iter().map(|(word, _, _)| word.to_owned()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn words_are_those_of_hugging_face(text in r"([ \t\n\r\u{a0}\u{85}\u{3000}]{0,3}([a-zA-Zé语ſ]{0,4}|'(s|RE|ll|ve|T|ſ)|[0-9²]{1,5}|[.,<|>_#/'-]{1,3}|\PC)){0,12}[ \n\t]{0,3}") {
            for (splitter, pattern) in
                [(Splitter::OURS, PATTERN), (Splitter::Gpt4 { digits: 3 }, THREE_DIGITS), (Splitter::Gpt2, GPT2)]
            {
                let words: Vec<String> = splitter.words(&text).map(str::to_owned).collect();
                prop_assert_eq!(words, by_hugging_face(pattern, &text), "{}", pattern);
            }
        }
    }

    #[test]
    fn every_character_is_in_the_class_that_the_engine_puts_it_in() {
        for (pattern, class) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)] {
            let engine = regex::Regex::new(pattern).unwrap();
            let wrong = ('\0'..=char::MAX)
                .step_by(7)
                .find(|c| engine.is_match(c.encode_utf8(&mut [0; 4])) != (CLASSES[*c as usize] == class));
            assert_eq!(wrong, None, "{pattern}");
        }
    }
}
