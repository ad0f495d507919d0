//! C4's rules (Raffel et al. 2020, section 2.2), in datatrove's meaning: lines that are no prose do not count, and what is left must
//! have five sentences.
//!
//! A line does not count if a word is longer than 1 000 characters, if it does not end with a terminal mark, has fewer than three
//! words, mentions JavaScript or a policy. A document goes if a line that counts so far has `lorem ipsum` or a `{`.
//!
//! datatrove knows Latin marks and words between spaces only, and so keeps no line of Chinese. Here, for languages written without
//! spaces, full-width marks are terminal too and words are the language's. [`C4::kept_lines`] has the lines that count.

use std::{borrow::Cow, sync::LazyLock};

use aho_corasick::AhoCorasick;
use internevo_core::plugin::{Plugin, PluginError};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::language;
use crate::{
    features::{
        Features, Split, Word,
        classes::{Class, Classes},
        python_trim_end, python_trim_start, words,
    },
    filter::{Filter, FilterContext, FilterPlugin, Verdict},
};

/// What lines end with; in languages without spaces the full-width ones too.
const TERMINAL: [char; 5] = ['.', '?', '!', '"', '\''];
const FULL_WIDTH_TERMINAL: [char; 9] = ['。', '？', '！', '；', '”', '’', '」', '』', '…'];

/// Lower case. The first drops the document, the others the line.
const PHRASES: [&str; 8] = [
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
];
/// Their bits.
const LOREM_IPSUM: u8 = 1;
const JAVASCRIPT: u8 = 2;
const POLICIES: u8 = !(LOREM_IPSUM | JAVASCRIPT);

static FINDER: LazyLock<AhoCorasick> =
    LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build(PHRASES).expect("eight short phrases"));

/// Wikipedia's.
static CITATION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\[\d*\]|\[edit\]|\[citation needed\]").expect("the pattern is constant"));

/// Settings of [`C4`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct C4Config {
    /// Do lines without a terminal mark at their end not count? FineWeb sets this to false.
    pub terminal_marks: bool,
    /// Fewest sentences in lines that count.
    pub min_sentences: usize,
    /// Fewest words of a line that counts.
    pub min_words_per_line: usize,
    /// Longest word of a line that counts, characters.
    pub max_word_length: usize,
    /// Does `lorem ipsum` drop the document?
    pub lorem_ipsum: bool,
    /// Do lines with `javascript` not count?
    pub javascript: bool,
    /// Does a `{` drop the document?
    pub curly_brackets: bool,
    /// Do lines that mention terms of use, cookies or privacy policies not count?
    pub policies: bool,
    /// Are marks like `[1]` and `[citation needed]` cut out of lines?
    pub citations: bool,
    /// mC4: at least three lines must have this many characters. 0: not asked for.
    pub long_line: usize,
}

impl Default for C4Config {
    fn default() -> Self {
        Self {
            terminal_marks: true,
            min_sentences: 5,
            min_words_per_line: 3,
            max_word_length: 1000,
            lorem_ipsum: true,
            javascript: true,
            curly_brackets: true,
            policies: true,
            citations: true,
            long_line: 0,
        }
    }
}

/// Long lines that mC4 wants.
const LONG_LINES: usize = 3;

/// The filter `c4`. Source code is kept untouched.
pub struct C4 {
    config: C4Config,
    lang: Option<String>,
}

/// The lines of a document that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptLines<'a> {
    /// In order, trimmed and without citations.
    pub lines: Vec<Cow<'a, str>>,
    /// Sentences in them.
    pub sentences: usize,
}

impl Plugin for C4 {
    const NAME: &'static str = "c4";
    const ABOUT: &'static str =
        "C4's rules: enough sentences in lines that are prose; no placeholders, no curly brackets.";
    type Config = C4Config;
}

impl FilterPlugin for C4 {
    fn build(config: C4Config, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        Ok(Box::new(Self::new(config, cx.lang)))
    }
}

crate::register_filter!(C4);

impl Filter for C4 {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn judge(&self, document: &Features<'_>) -> Verdict {
        if document.is_code() {
            return Verdict::Keep;
        }
        match self.kept_lines(document) {
            Err(verdict) => verdict,
            Ok(kept) if kept.sentences < self.config.min_sentences => {
                Verdict::drop("c4_few_sentences", kept.sentences as f64)
            }
            Ok(_) => self.long_lines(document.text()),
        }
    }
}

impl C4 {
    /// A filter outside a chain, for [`C4::kept_lines`].
    pub fn new(config: C4Config, lang: Option<&str>) -> Self {
        Self { config, lang: lang.map(str::to_owned) }
    }

    /// The lines that count.
    ///
    /// # Errors
    /// The verdict, where a line drops the whole document.
    pub fn kept_lines<'a>(&self, document: &Features<'a>) -> Result<KeptLines<'a>, Verdict> {
        let split = Split::of(language(self.lang.as_deref(), document));
        let (text, mut rest) = (document.text(), document.words_by(split));
        let mut phrases = FINDER.find_iter(text).peekable();
        let mut kept = KeptLines::default();
        for whole in document.lines() {
            let end = whole.as_ptr() as usize - text.as_ptr() as usize + whole.len();
            let count = rest.iter().take_while(|word| word.start(text) < end).count();
            let (own, after) = rest.split_at(count);
            rest = after;
            let mut line = Line { text: trimmed(whole).into(), words: own, phrases: 0 };
            while let Some(found) = phrases.next_if(|found| found.start() < end) {
                line.phrases |= 1 << found.pattern().as_u32();
            }
            if self.counts(&mut line, split)? {
                kept.sentences += match &line.text {
                    Cow::Borrowed(text) => sentences(text, line.words),
                    Cow::Owned(cut) => sentences(cut, &words(cut, split)),
                };
                kept.lines.push(line.text);
            }
        }
        Ok(kept)
    }

    /// Does the line count? Cuts its citations.
    fn counts(&self, line: &mut Line<'_, '_>, split: Split) -> Result<bool, Verdict> {
        let config = &self.config;
        if has_long_word(&line.text, config.max_word_length) {
            return Ok(false);
        }
        let unspaced = matches!(split, Split::Chinese | Split::Characters);
        let least = config.min_words_per_line;
        let few_words = if unspaced { line.words.len() } else { spaced(&line.text).take(least).count() } < least;
        if config.citations && line.text.contains('[') {
            line.cut_citations();
        }
        if config.terminal_marks && !ends_well(&line.text, unspaced) || few_words {
            return Ok(false);
        }
        if config.lorem_ipsum && line.phrases & LOREM_IPSUM != 0 {
            return Err(Verdict::drop("c4_lorem_ipsum", 1.0));
        }
        if config.javascript && line.phrases & JAVASCRIPT != 0 {
            return Ok(false);
        }
        if config.curly_brackets && line.text.contains('{') {
            return Err(Verdict::drop("c4_curly_bracket", 1.0));
        }
        Ok(!config.policies || line.phrases & POLICIES == 0)
    }

    /// mC4's rule.
    fn long_lines(&self, text: &str) -> Verdict {
        let wanted = self.config.long_line;
        if wanted == 0 {
            return Verdict::Keep;
        }
        let long = text.split('\n').filter(|line| line.chars().count() >= wanted).take(LONG_LINES).count();
        if long < LONG_LINES { Verdict::drop("c4_few_long_lines", long as f64) } else { Verdict::Keep }
    }
}

/// A line on its way through the rules.
struct Line<'a, 'b> {
    /// Owned once something is cut out.
    text: Cow<'a, str>,
    /// Its words, before anything is cut out.
    words: &'b [Word<'a>],
    /// A bit for each of [`PHRASES`].
    phrases: u8,
}

impl Line<'_, '_> {
    fn cut_citations(&mut self) {
        if let Cow::Owned(cut) = CITATION.replace_all(&self.text, "") {
            self.phrases = FINDER.find_iter(&cut).fold(0, |bits, found| bits | 1 << found.pattern().as_u32());
            self.text = Cow::Owned(cut);
        }
    }
}

fn trimmed(line: &str) -> &str {
    python_trim_start(python_trim_end(line))
}

fn spaced(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c| Classes::get().of(c).has(Class::SPACE)).filter(|word| !word.is_empty())
}

fn has_long_word(line: &str, most: usize) -> bool {
    line.len() > most && spaced(line).any(|word| word.len() > most && word.chars().count() > most)
}

fn ends_well(line: &str, unspaced: bool) -> bool {
    let ends = line.ends_with(TERMINAL) || unspaced && line.ends_with(FULL_WIDTH_TERMINAL);
    ends && !line.ends_with("...")
}

/// Sentences of a line, by spaCy's sentencizer: after a mark that ends one, the next word that is no punctuation (white space of
/// more than one space counts as such) begins another. A line is one sentence at least.
fn sentences(line: &str, words: &[Word<'_>]) -> usize {
    let (mut count, mut ended, mut end) = (1, false, 0);
    for word in words {
        let start = word.start(line);
        if ended && (is_wide(&line[end..start]) || !word.is_punctuation && !word.ends_sentence) {
            count += 1;
            ended = false;
        }
        ended |= word.ends_sentence;
        end = start + word.text.len();
    }
    count + usize::from(ended && is_wide(&line[end..]))
}

/// Is this gap between words a token in spaCy? One space is none.
fn is_wide(gap: &str) -> bool {
    !matches!(gap, "" | " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Document,
        testing::{assert_drops, assert_keeps},
    };

    const PROSE: &str = "This line has enough words. And it ends well!\n";

    #[test]
    fn lines_that_are_no_prose_do_not_count() {
        let text = format!(
            "{PROSE}Too short.\nNo mark at the end of this\nEnable JavaScript to read this page.\n\
             We use cookies on this site.\nIt goes on...\nSee the source[12] of this [citation needed].\n"
        );
        let document = Document::new("a", text.as_str());
        let kept = C4::new(C4Config::default(), None).kept_lines(&Features::new(&document)).expect("no placeholder");
        assert_eq!(kept.lines, ["This line has enough words. And it ends well!", "See the source of this ."]);
        assert_eq!(kept.sentences, 3);
        assert_eq!(assert_drops::<C4>("", &text, "c4_few_sentences"), 3.0);
        assert_keeps::<C4>("", &PROSE.repeat(3));
        assert_keeps::<C4>("min_sentences = 3", &text);
    }

    #[test]
    fn placeholders_and_brackets_drop_the_document_if_their_line_counts() {
        let prose = PROSE.repeat(3);
        assert_drops::<C4>("", &format!("{prose}Lorem Ipsum dolor sit amet."), "c4_lorem_ipsum");
        assert_drops::<C4>("", &format!("{prose}A function {{ of code."), "c4_curly_bracket");
        assert_keeps::<C4>("", &format!("{prose}fn main() {{\n{{ short.\n"));
        assert_drops::<C4>("terminal_marks = false", &format!("{prose}fn main() {{"), "c4_curly_bracket");
        assert_keeps::<C4>("curly_brackets = false", &format!("{prose}A function {{ of code."));
        assert_eq!(assert_drops::<C4>("long_line = 200", &prose, "c4_few_long_lines"), 0.0);
    }

    #[test]
    fn chinese_lines_end_with_full_width_marks_and_have_words_without_spaces() {
        let text = "所有权是这门语言最独特的特性。它保证内存安全！\n这一行没有标点\n".repeat(3);
        let mut document = Document::new("a", text);
        assert_eq!(
            C4::new(C4Config::default(), None).judge(&Features::new(&document)),
            Verdict::drop("c4_few_sentences", 0.0)
        );
        document.meta.insert("lang".into(), "zh".into());
        assert_eq!(C4::new(C4Config::default(), None).judge(&Features::new(&document)), Verdict::Keep);
    }
}
