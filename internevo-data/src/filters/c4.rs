//! C4's rules (Raffel et al. 2020, section 2.2), in datatrove's meaning: lines that are no prose do not count, and what is left must
//! have five sentences.
//!
//! A line does not count if a word is longer than 1 000 characters, if it does not end with a terminal mark, has fewer than three
//! words, mentions JavaScript or a policy. A document goes if a line that counts so far has `lorem ipsum` or a `{`.
//!
//! datatrove knows Latin marks and words between spaces only, and so keeps no line of Chinese. Here, for languages written without
//! spaces, full-width marks are terminal too and words are the language's.
//!
//! C4 and datatrove cut out the lines that do not count; here `remove_lines` asks for it, because headings, lists and code of Markdown
//! are such lines.

use std::{borrow::Cow, iter, sync::LazyLock};

use aho_corasick::AhoCorasick;
use internevo_core::plugin::Plugin;
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
    filter::{Editor, Filter, Measure, Verdict},
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
    /// Are lines that do not count cut out of documents that stay? Those that count are then trimmed, and lose their citations.
    pub remove_lines: bool,
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
            remove_lines: false,
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

crate::register_filter!(C4 { config, lang });

impl Filter for C4 {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        if document.is_code() {
            return Verdict::Keep;
        }
        let lines = match self.lines(document) {
            Err(verdict) => return verdict,
            Ok(lines) => lines,
        };
        match Measure::verdict(self.rules(document.text(), &lines)) {
            Verdict::Keep if self.config.remove_lines => without_lines(document.text(), &lines),
            verdict => verdict,
        }
    }

    /// Nothing where a line drops the whole document, or it is source code.
    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        let lines = if document.is_code() { None } else { self.lines(document).ok() };
        lines.map(|lines| self.rules(document.text(), &lines).collect()).unwrap_or_default()
    }
}

/// What a line that does not count is cut out for.
fn without_lines(text: &str, lines: &[JudgedLine<'_>]) -> Verdict {
    let mut editor = Editor::new(text);
    let start = |line: &JudgedLine<'_>| line.whole.as_ptr() as usize - text.as_ptr() as usize;
    for (at, line) in lines.iter().enumerate() {
        let bytes = start(line)..start(line) + line.whole.len();
        match (line.fault, &line.text) {
            // With its line end.
            (Some(rule), _) => editor.replace(bytes.start..lines.get(at + 1).map_or(text.len(), start), "", rule),
            (None, Cow::Owned(cut)) => editor.replace(bytes, cut, "c4_citation"),
            (None, Cow::Borrowed(trimmed)) if *trimmed != line.whole => editor.replace(bytes, trimmed, "c4_trimmed"),
            _ => {}
        }
    }
    editor.verdict()
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
        let lines = self.lines(document)?;
        let sentences = lines.iter().map(|line| line.sentences).sum();
        let counting = lines.into_iter().filter(|line| line.fault.is_none());
        Ok(KeptLines { lines: counting.map(|line| line.text).collect(), sentences })
    }

    /// All lines with what is wrong with them.
    fn lines<'a>(&self, document: &Features<'a>) -> Result<Vec<JudgedLine<'a>>, Verdict> {
        let split = Split::of(language(self.lang.as_deref(), document));
        let (text, mut rest) = (document.text(), document.words_by(split));
        let mut phrases = FINDER.find_iter(text).peekable();
        let mut judged = Vec::with_capacity(document.lines().len());
        for &whole in document.lines() {
            let end = whole.as_ptr() as usize - text.as_ptr() as usize + whole.len();
            let count = rest.iter().take_while(|word| word.start(text) < end).count();
            let (own, after) = rest.split_at(count);
            rest = after;
            let mut line = Line { text: trimmed(whole).into(), words: own, phrases: 0 };
            while let Some(found) = phrases.next_if(|found| found.start() < end) {
                line.phrases |= 1 << found.pattern().as_u32();
            }
            let fault = self.fault(&mut line, split)?;
            let sentences = match &line.text {
                _ if fault.is_some() => 0,
                Cow::Borrowed(text) => sentences(text, line.words),
                Cow::Owned(cut) => sentences(cut, &words(cut, split)),
            };
            judged.push(JudgedLine { whole, text: line.text, fault, sentences });
        }
        Ok(judged)
    }

    /// The rule by which the line does not count, if any. Cuts its citations.
    fn fault(&self, line: &mut Line<'_, '_>, split: Split) -> Result<Option<&'static str>, Verdict> {
        let config = &self.config;
        if has_long_word(&line.text, config.max_word_length) {
            return Ok(Some("c4_line_long_word"));
        }
        let unspaced = matches!(split, Split::Chinese | Split::Characters);
        let least = config.min_words_per_line;
        let few_words = if unspaced { line.words.len() } else { spaced(&line.text).take(least).count() } < least;
        if config.citations && may_cite(&line.text) {
            line.cut_citations();
        }
        if config.terminal_marks && !ends_well(&line.text, unspaced) {
            return Ok(Some("c4_line_no_terminal_mark"));
        }
        if few_words {
            return Ok(Some("c4_line_few_words"));
        }
        if config.lorem_ipsum && line.phrases & LOREM_IPSUM != 0 {
            return Err(Verdict::drop("c4_lorem_ipsum", 1.0));
        }
        if config.javascript && line.phrases & JAVASCRIPT != 0 {
            return Ok(Some("c4_line_javascript"));
        }
        if config.curly_brackets && memchr::memchr(b'{', line.text.as_bytes()).is_some() {
            return Err(Verdict::drop("c4_curly_bracket", 1.0));
        }
        Ok((config.policies && line.phrases & POLICIES != 0).then_some("c4_line_policy"))
    }

    /// The rules with a threshold: C4's, and mC4's where it is asked for.
    fn rules(&self, text: &str, lines: &[JudgedLine<'_>]) -> impl Iterator<Item = Measure> {
        let (wanted, sentences) = (self.config.long_line, lines.iter().map(|line| line.sentences).sum::<usize>());
        let sentences = Measure::at_least("c4_few_sentences", sentences as f64, self.config.min_sentences as f64);
        let long_lines = (wanted > 0).then(|| {
            let long = text.split('\n').filter(|line| line.chars().count() >= wanted).count();
            Measure::at_least("c4_few_long_lines", long as f64, LONG_LINES as f64)
        });
        iter::once(sentences).chain(long_lines)
    }
}

/// A line and what came of it.
struct JudgedLine<'a> {
    whole: &'a str,
    /// Trimmed; owned where citations were cut out.
    text: Cow<'a, str>,
    /// The rule by which it does not count.
    fault: Option<&'static str>,
    /// None where it does not count.
    sentences: usize,
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

/// Cheap: is there a `[` that may begin a citation? Says yes to more than that.
fn may_cite(line: &str) -> bool {
    let bytes = line.as_bytes();
    let begins = |byte: &u8| matches!(byte, b'0'..=b'9' | b']' | b'e' | b'c') || !byte.is_ascii();
    memchr::memchr_iter(b'[', bytes).any(|at| bytes.get(at + 1).is_some_and(begins))
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
        testing::{assert_drops, assert_keeps, assert_sound, judge},
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
    fn lines_that_do_not_count_are_cut_out_where_that_is_asked_for() {
        let text =
            format!("# Title\r\n\n  {PROSE}Menu | About\r\n{PROSE}See [1] this source.\nWe use cookies here too.");
        assert_keeps::<C4>("", &text);
        let Verdict::Edit(edit) = judge::<C4>("remove_lines = true", &text) else { panic!("lines were to be cut out") };
        assert_eq!(edit.text, format!("{PROSE}{PROSE}See  this source.\n"));
        let places: Vec<(&str, u64)> = edit.changes.iter().map(|(rule, change)| (&**rule, change.places)).collect();
        assert_eq!(
            places,
            [("c4_citation", 1), ("c4_line_no_terminal_mark", 3), ("c4_line_policy", 1), ("c4_trimmed", 1)]
        );
        assert_keeps::<C4>("remove_lines = true", &PROSE.repeat(3));
        assert_sound::<C4>("remove_lines = true\nmin_sentences = 0");
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
