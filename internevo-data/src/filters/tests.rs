//! Each rule on a text small enough to count by hand, and what the rules must leave alone.

use serde_json::Value;

use super::{C4, CharAnomaly, CodeQuality, FineWeb, GopherQuality, GopherRepetition};
use crate::{
    Document, Verdict,
    format::code_markdown,
    testing::{assert_drops, assert_keeps, assert_sound, judge_document},
};

/// Eleven words and a full stop, with four stop words.
const SENTENCE: &str = "The brown fox walked to the house of the old man. ";

fn document(lang: &str, text: &str) -> Document {
    let mut document = Document::new("test", text);
    document.meta.insert("lang".into(), Value::from(lang));
    document
}

#[test]
fn gopher_quality_measures_words_by_hand_counted_values() {
    let drops = assert_drops::<GopherQuality>;
    assert_keeps::<GopherQuality>("", &SENTENCE.repeat(5));
    assert_eq!(drops("", "Only three words, really.", "gopher_short_document"), 4.0);
    assert_eq!(drops("max_words = 54", &SENTENCE.repeat(5), "gopher_long_document"), 55.0);
    assert_keeps::<GopherQuality>("max_words = 55\nmin_words = 55", &SENTENCE.repeat(5));
    assert_eq!(drops("", &"a bc, ".repeat(25), "gopher_short_words"), 1.5);
    assert_eq!(drops("", &"abcdefghijk ".repeat(50), "gopher_long_words"), 11.0);
    assert_eq!(drops("", &"word 12 ".repeat(50).replace("12", "1234"), "gopher_few_letter_words"), 0.5);
    assert_eq!(drops("", &"word ".repeat(50), "gopher_few_stop_words"), 0.0);
    assert_eq!(drops("", &format!("the the {}", "word ".repeat(50)), "gopher_few_stop_words"), 1.0);
    assert_keeps::<GopherQuality>("", &format!("the of {}", "word ".repeat(50)));
}

#[test]
fn gopher_quality_measures_symbols_and_lines_by_hand_counted_values() {
    let drops = assert_drops::<GopherQuality>;
    assert_eq!(drops("", &"word #word ".repeat(30), "gopher_many_hashes"), 30.0 / 90.0);
    assert_keeps::<GopherQuality>("", &format!("the of {}{}", "word ".repeat(88), "# ".repeat(10)));
    assert_eq!(drops("", &"word word... ".repeat(30), "gopher_many_ellipses"), 30.0 / 90.0);
    assert_eq!(drops("", &"word word… ".repeat(30), "gopher_many_ellipses"), 30.0 / 90.0);
    let bullets = format!("the of\n{}", "  - word word\n• word word\n".repeat(15));
    assert_eq!(drops("", &bullets, "gopher_bullet_lines"), 30.0 / 31.0);
    let line = "the of word word word word word word word word word word";
    let ellipses = [line, line, line, &format!("{line}..."), &format!("{line}… ")].join("\n");
    assert_eq!(drops("", &ellipses, "gopher_ellipsis_lines"), 0.4);
}

#[test]
fn marks_count_as_words_in_plain_text_and_as_markup_in_markdown() {
    let text = format!("the of {}", "[`word`](other): ".repeat(60));
    // To spaCy, each link is `[`, a backtick, `word`](other` and `):`, an emoticon.
    let long_words = "max_mean_word_length = 20.0";
    let plain = judge_document::<GopherQuality>(long_words, &Document::new("test", text.as_str()));
    assert_eq!(plain, Verdict::drop("gopher_few_letter_words", 62.0 / 242.0));
    let mut markdown = Document::new("test", text);
    markdown.meta.insert("type".into(), Value::from("markdown"));
    assert_eq!(judge_document::<GopherQuality>(long_words, &markdown), Verdict::Keep);
    markdown.text = "the of word 1234 ".repeat(20) + "## 5678";
    assert_eq!(judge_document::<GopherQuality>("", &markdown), Verdict::drop("gopher_few_letter_words", 60.0 / 82.0));
}

#[test]
fn stop_words_are_asked_of_languages_that_have_a_list() {
    let none = Verdict::drop("gopher_few_stop_words", 0.0);
    let german = "Haus Garten Berg Fluss Stein Abend Mauer Wiese Wolke Sonne ".repeat(6);
    assert_eq!(judge_document::<GopherQuality>("", &document("de", &german)), none);
    assert_eq!(judge_document::<GopherQuality>("", &document("de", &(german.clone() + "die und"))), Verdict::Keep);
    assert_eq!(judge_document::<GopherQuality>("", &document("tlh", &german)), Verdict::Keep);
    let own = "[languages.tlh]\nstop_words = ['ghaH', 'je']";
    assert_eq!(judge_document::<GopherQuality>(own, &document("tlh", &german)), none);
    assert_eq!(judge_document::<GopherQuality>("", &document("en", &german)), none);
    let chinese = "他在花园里和朋友们走了很久，看见山上的石头与河水。".repeat(8);
    assert_eq!(judge_document::<GopherQuality>("", &document("zh", &chinese)), Verdict::Keep);
    // Without spaces, English rules see one word and a mark.
    let long = Verdict::drop("gopher_short_document", 1.0);
    assert_eq!(judge_document::<GopherQuality>("", &document("en", &chinese)), long);
    let without = "花园朋友们走很久看见山石头河水".repeat(12);
    assert_eq!(judge_document::<GopherQuality>("", &document("zh", &without)), none);
}

#[test]
fn gopher_repetition_measures_blocks_by_hand_counted_values() {
    let drops = assert_drops::<GopherRepetition>;
    let long = "x".repeat(40);
    assert_eq!(drops("", "a\n\nb\n\na\n\n\nc\n\na\n", "duplicate_paragraphs"), 0.4);
    assert_eq!(drops("", &format!("{long}\n\nb\n\nc\n\nd\n\n{long}"), "duplicate_paragraph_chars"), 40.0 / 91.0);
    assert_eq!(drops("", "a\nb\na\nc\n\na", "duplicate_lines"), 0.4);
    assert_eq!(drops("", &format!("{long}\nb\nc\nd\n{long}"), "duplicate_line_chars"), 40.0 / 87.0);
}

#[test]
fn repeated_lines_of_code_blocks_do_not_count_in_markdown() {
    let text = format!("one two\n\n{}three four\n", "```\n}\n```\n".repeat(3));
    let lines_only = "top_ngram_chars = [9.0, 9.0, 9.0]\nduplicate_ngram_chars = [9.0, 9.0, 9.0, 9.0, 9.0, 9.0]";
    let with = |kind: &str| {
        let mut document = Document::new("test", text.as_str());
        document.meta.insert("type".into(), Value::from(kind));
        judge_document::<GopherRepetition>(lines_only, &document)
    };
    // Of the lines, nine are code; `}` and the fences repeat.
    assert_eq!(with("text"), Verdict::drop("duplicate_lines", 7.0 / 12.0));
    assert_eq!(with("markdown"), Verdict::Keep);
}

#[test]
fn gopher_repetition_measures_ngrams_by_hand_counted_values() {
    let drops = assert_drops::<GopherRepetition>;
    assert_eq!(drops("", "ab cd x1 ab cd x2 ab cd x3 ab cd", "top_2_gram"), 20.0 / 32.0);
    let only_three = "top_ngram_chars = [9.0, 0.18, 9.0]";
    assert_eq!(drops(only_three, "ab cd ef x1 ab cd ef", "top_3_gram"), 16.0 / 20.0);
    // Without a repetition the first n-gram is the most frequent one, as in datatrove.
    assert_eq!(drops(only_three, "ab cd ef g", "top_3_gram"), 8.0 / 10.0);
    let no_top = "top_ngram_chars = [9.0, 9.0, 9.0]";
    assert_eq!(drops(no_top, "a b c d e x a b c d e", "duplicate_5_grams"), 5.0 / 21.0);
    assert_eq!(drops(no_top, "a b c d e a b c d e a b c d e", "duplicate_5_grams"), 10.0 / 29.0);
    assert_keeps::<GopherRepetition>(no_top, "a b c d e f a b c d x");
    drops("", "", "gopher_empty");
    assert_keeps::<GopherRepetition>("", &(0..60).map(|i| format!("word{i} ")).collect::<String>());
}

#[test]
fn code_is_judged_by_its_own_rules_only_and_without_its_heading_and_fence() {
    let code = |text: &str| document("code:rust", &code_markdown(&"p".repeat(2000), "rust", text));
    let body = "let value = compute(first, second);\n".repeat(30);
    assert_eq!(judge_document::<CodeQuality>("", &code(&body)), Verdict::Keep);
    assert_eq!(judge_document::<GopherQuality>("", &code(&body)), Verdict::Keep);
    assert_eq!(judge_document::<GopherRepetition>("", &code(&body)), Verdict::Keep);
    let judge = |text: &str| judge_document::<CodeQuality>("", &code(text));
    assert_eq!(judge(&format!("{}\n", "a".repeat(1001))), Verdict::drop("code_long_line", 1001.0));
    assert_eq!(judge(&format!("{}\n", "ab ".repeat(34)).repeat(3)), Verdict::drop("code_long_lines", 102.0));
    assert_eq!(judge("ab......\n"), Verdict::drop("code_few_alphanumerics", 2.0 / 9.0));
    assert_eq!(judge("\n<?xml version=\"1.0\"?><aaaaaaaaaaaa/>\n"), Verdict::drop("code_xml", 1.0));
    assert_eq!(judge("\n\n"), Verdict::drop("code_empty", 0.0));
    assert_keeps::<CodeQuality>("", &"a".repeat(5000));
}

#[test]
fn every_filter_is_sound_on_awkward_texts_in_every_mode() {
    for mode in ["datatrove", "dolma", "datamap", "redpajama"] {
        let settings = format!("mode = '{mode}'");
        assert_sound::<GopherQuality>(&settings);
        assert_sound::<GopherRepetition>(&settings);
    }
    // With nothing asked of length, the ratios see texts without words.
    assert_sound::<GopherQuality>("min_words = 0");
    assert_sound::<C4>("");
    assert_sound::<C4>("long_line = 10");
    assert_sound::<FineWeb>("");
    assert_sound::<CharAnomaly>("");
    assert_sound::<CodeQuality>("");
}
