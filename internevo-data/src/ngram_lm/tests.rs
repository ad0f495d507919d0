//! KenLM's models and scores (`xtask/peers/data/golden_kenlm.py`), and what training owes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    LmReport, LmSettings, LmTokens, NgramModel, Perplexity, Score, Weights, arpa::Arpa, batch::FULL, convert, train,
};
use crate::{Document, Features, Measure, testing};

/// What two implementations in 32-bit floats may differ by, log10.
const TOLERANCE: f32 = 1e-5;
/// Held-out lines that KenLM scored.
const LINES: usize = 60;

#[derive(Deserialize)]
struct Scored {
    model: String,
    line: String,
    log10: Vec<f32>,
    perplexity: f64,
}

fn golden(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ngram_lm");
    let bytes = fs::read(folder.join(name)).expect("golden file");
    if name.ends_with(".zst") { zstd::decode_all(&*bytes).expect("zstd") } else { bytes }
}

fn put(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, golden(&format!("{name}.zst"))).expect("written");
    path
}

fn scored() -> Vec<Scored> {
    let text = String::from_utf8(golden("scores.jsonl.zst")).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a score")).collect()
}

#[track_caller]
fn assert_scores(model: &NgramModel, scored: &[Scored], name: &str) {
    let mut compared = 0;
    for expected in scored.iter().filter(|expected| expected.model == name) {
        let found = model.line(&expected.line, &LmTokens::Spaces);
        assert_eq!(found.len(), expected.log10.len(), "{name}: {:?}", expected.line);
        for (at, (found, expected_log10)) in found.iter().zip(&expected.log10).enumerate() {
            let difference = (found - expected_log10).abs();
            assert!(
                difference <= TOLERANCE,
                "{name}: token {at} of {:?}: {found}, not {expected_log10}",
                expected.line
            );
        }
        let total: f64 = found.iter().map(|log10| f64::from(*log10)).sum();
        let perplexity = 10f64.powf(-total / found.len() as f64);
        assert!((perplexity / expected.perplexity - 1.0).abs() < 1e-5, "{name}: {perplexity}");
        if !expected.line.is_empty() {
            assert_eq!(model.score(&expected.line, &LmTokens::Spaces).perplexity(), Some(perplexity));
        }
        compared += 1;
    }
    assert!(compared > LINES / 2, "{name}: {compared} lines");
}

#[test]
fn every_kind_of_model_scores_as_kenlm_does() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let scored = scored();
    let arpa = ["order2", "order3", "order5", "pruned", "small"].map(|name| format!("{name}.arpa"));
    let binary = ["probing", "trie", "trie_quantised", "trie_array", "trie_both"].map(|name| format!("{name}.binary"));
    for name in arpa.iter().chain(&binary) {
        let model = NgramModel::load(&put(dir.path(), name)).expect("a model of KenLM");
        assert_scores(&model, &scored, name.split('.').next().expect("a stem"));
    }
}

#[test]
fn many_lines_at_once_score_as_word_by_word_to_the_bit() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let lines: Vec<String> = scored().into_iter().map(|scored| scored.line).filter(|line| !line.is_empty()).collect();
    let text = lines.join("\n").repeat(3);
    for name in ["order2.arpa", "pruned.arpa", "probing.binary", "trie.binary", "trie_both.binary"] {
        let model = NgramModel::load(&put(dir.path(), name)).expect("a model of KenLM");
        let (mut log10, mut tokens) = (0.0, 0);
        for line in LmTokens::lines(&text) {
            let mut state = model.nothing();
            model.advance(&mut state, model.word("<s>"));
            let mut words = Vec::new();
            LmTokens::Spaces.for_each(line, |word| words.push(model.word(word)));
            for word in words.into_iter().chain([model.word("</s>")]) {
                log10 += f64::from(model.advance(&mut state, word));
                tokens += 1;
            }
        }
        assert_eq!(model.score(&text, &LmTokens::Spaces), Score { log10, tokens }, "{name}");
        assert!(tokens > 2 * FULL as u64, "{tokens} tokens are one batch");
    }
}

#[test]
fn a_converted_arpa_file_is_the_file_that_build_binary_makes() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let built = dir.path().join("built.binary");
    let model = convert(&put(dir.path(), "small.arpa"), &built, 1.5).expect("converted");
    let (found, expected) = (fs::read(&built).expect("file"), golden("probing.binary.zst"));
    assert_eq!(found.len(), expected.len());
    assert_eq!((0..found.len()).find(|at| found[*at] != expected[*at]), None, "the first byte that differs");
    let wide = convert(&dir.path().join("small.arpa"), &dir.path().join("wide"), 3.0).expect("converted");
    assert!(wide.bytes() > model.bytes());
    assert_scores(&wide, &scored(), "small");
}

type Ngrams = BTreeMap<(usize, String), Weights>;

fn ngrams(path: &Path) -> Ngrams {
    let mut all = Ngrams::new();
    let arpa = Arpa::open(path).expect("ARPA");
    arpa.for_each(|order, words, weights| {
        all.insert((order, words.to_owned()), weights);
        Ok(())
    })
    .expect("ARPA");
    all
}

/// The text as one document.
fn corpus(dir: &Path) -> PathBuf {
    let text = String::from_utf8(golden("text.txt")).expect("UTF-8");
    let mut lines = Vec::new();
    for (at, passage) in text.lines().collect::<Vec<_>>().chunks(20).enumerate() {
        Document::new(at.to_string(), passage.join("\n")).write_line(&mut lines);
    }
    let path = dir.join("text.jsonl");
    fs::write(&path, lines).expect("written");
    path
}

fn settings(order: usize, prune: &[u64]) -> LmSettings {
    LmSettings {
        order,
        tokens: LmTokens::Spaces,
        prune: prune.to_vec(),
        discount_fallback: order > 3,
        ..LmSettings::default()
    }
}

#[test]
fn training_gives_the_model_of_lmplz() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let files = [corpus(dir.path())];
    for (name, settings) in [
        ("order2", settings(2, &[])),
        ("order3", settings(3, &[])),
        ("order5", settings(5, &[])),
        ("pruned", settings(4, &[0, 0, 1])),
    ] {
        let expected = ngrams(&put(dir.path(), &format!("{name}.arpa")));
        let out = dir.path().join(format!("own-{name}.arpa"));
        let report = train(&files, &out, &settings, &()).expect("trained");
        assert_eq!(report.ngrams.iter().sum::<u64>(), expected.len() as u64);
        let found = ngrams(&out);
        assert!(found.keys().eq(expected.keys()), "{name}: other n-grams");
        for (ngram, expected) in &expected {
            let found = found[ngram];
            let difference = (found.log10 - expected.log10).abs().max((found.backoff - expected.backoff).abs());
            assert!(difference <= TOLERANCE, "{name}: {ngram:?}: {found:?}, not {expected:?}");
        }
    }
}

#[test]
fn the_model_depends_neither_on_memory_nor_on_how_documents_are_spread_over_files() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let whole = corpus(dir.path());
    let text = fs::read_to_string(&whole).expect("text");
    let middle = text.lines().take(9).map(|line| line.len() + 1).sum();
    let halves = [&text[..middle], &text[middle..]].map(|half| {
        let path = dir.path().join(format!("half-{}.jsonl", half.len()));
        fs::write(&path, half).expect("written");
        path
    });
    let model = |files: &[PathBuf], memory: usize| {
        let out = dir.path().join("model.arpa");
        let report = train(files, &out, &LmSettings { memory, ..settings(5, &[]) }, &()).expect("trained");
        assert!(!dir.path().join("model.arpa.tmp").exists());
        (fs::read(out).expect("model"), report.spilled_files)
    };
    let (expected, none) = model(&[whole], 1 << 30);
    let (found, some) = model(&halves, 0);
    assert!(none == 0 && some > 5, "{none}, {some}");
    assert!(found == expected, "the models differ");
}

#[test]
fn probabilities_of_all_words_after_any_context_add_up_to_one() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let out = dir.path().join("model.binary");
    train(&[corpus(dir.path())], &out, &settings(4, &[0, 1, 1]), &()).expect("trained");
    let model = NgramModel::load(&out).expect("loaded");
    let words: Vec<String> =
        String::from_utf8(golden("text.txt")).expect("UTF-8").split_whitespace().map(str::to_owned).collect();
    let vocabulary: std::collections::BTreeSet<u32> =
        words.iter().map(|word| model.word(word)).chain([0, model.word("</s>")]).collect();
    let mut state = model.nothing();
    model.advance(&mut state, model.word("<s>"));
    for context in words.iter().take(400).step_by(37).map(String::as_str).chain(["never seen"]) {
        let sum: f64 = vocabulary.iter().map(|word| 10f64.powf(model.advance(&mut state.clone(), *word).into())).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum} before {context}");
        model.advance(&mut state, model.word(context));
    }
}

#[test]
fn an_arpa_file_may_separate_by_spaces_and_lack_what_is_nothing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("hand.arpa");
    // A word that ends in an ideographic space is another word; `<unk>` and backoffs of zero are missing.
    let text = "# by hand\n\n\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-99\t<s>\t-0.5\n-1 </s>\n-0.7 a -0.25\n-0.9\ta\u{3000}\n\n\
                \\2-grams:\n-0.3\t<s> a\n-0.2 a </s>\n\n\\end\\\n";
    fs::write(&path, text).expect("written");
    let model = NgramModel::load(&path).expect("a model");
    assert_eq!(model.line("a", &LmTokens::Spaces), [-0.3, -0.2]);
    assert_eq!(model.line("a\u{3000}", &LmTokens::Spaces), [-0.5 - 0.9, -1.0]);
    assert_eq!(model.line("b", &LmTokens::Spaces), [-0.5 - 100.0, -1.0]);
    for (from, to, says) in [
        ("ngram 2=2", "ngram 2=1", ":15: "),
        ("-0.7 a -0.25", "-0.7 a x", "`x`"),
        ("<s> a", "<s> b", "`b` is not among the words"),
        ("-0.9\ta\u{3000}", "-0.9\ta", "`a` is there twice"),
        ("\\end\\", "", "`\\end\\`"),
    ] {
        fs::write(&path, text.replace(from, to)).expect("written");
        let message = NgramModel::load(&path).expect_err("refused").to_string();
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn a_model_of_single_words_can_be_trained_and_used() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let files = [corpus(dir.path())];
    let out = dir.path().join("words.arpa");
    train(&files, &out, &settings(1, &[]), &()).expect("trained");
    let model = NgramModel::load(&out).expect("loaded");
    let score = model.score("the reference", &LmTokens::Words);
    assert!(score.tokens == 3 && score.log10 < -3.0, "{score:?}");
    let message =
        train(&files, &dir.path().join("words.binary"), &settings(1, &[]), &()).expect_err("refused").to_string();
    assert!(message.contains(".arpa"), "{message}");
}

#[test]
fn settings_and_corpora_that_give_no_model_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let files = [corpus(dir.path())];
    let refused = |files: &[PathBuf], settings: LmSettings| {
        train(files, &dir.path().join("x.arpa"), &settings, &()).expect_err("refused").to_string()
    };
    for (settings, says) in [
        (settings(6, &[]), "between 1 and 5"),
        (settings(3, &[1]), "the first number is 0"),
        (settings(3, &[0, 2, 1]), "must not fall"),
        (settings(2, &[0, 0, 1]), "3 numbers for 2 orders"),
        (LmSettings { discount_fallback: false, ..settings(5, &[]) }, "discount_fallback"),
    ] {
        let message = refused(&files, settings);
        assert!(message.contains(says), "{message}");
    }
    let empty = dir.path().join("empty.jsonl");
    fs::write(&empty, "{\"id\": \"a\", \"text\": \" \\n\"}\n").expect("written");
    assert!(refused(&[empty], settings(2, &[])).contains("no text"));
}

#[test]
fn the_filter_keeps_what_is_between_its_limits_and_cuts_as_the_model_was_trained() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let out = dir.path().join("en.binary");
    train(&[corpus(dir.path())], &out, &LmSettings { tokens: LmTokens::Words, ..settings(3, &[]) }, &())
        .expect("trained");
    let report = LmReport::of(&out).expect("beside the model");
    assert_eq!((report.tokens.as_str(), report.order), ("words", 3));
    let rule = |lang: &str, limits: &str| format!("['{lang}']\nmodel = {:?}\n{limits}", out.to_str().expect("UTF-8"));
    let text = "We can use the trait as a type.\nThis code will not compile.";
    let model = NgramModel::load(&out).expect("loaded");
    let perplexity = model.score(text, &LmTokens::Words).perplexity().expect("text");
    assert_eq!(testing::assert_drops::<Perplexity>(&rule("*", "high = 2.0"), text, "perplexity_high"), perplexity);
    assert_eq!(testing::assert_drops::<Perplexity>(&rule("*", "low = 1e6"), text, "perplexity_low"), perplexity);
    testing::assert_keeps::<Perplexity>(&rule("*", "low = 2.0\nhigh = 1e6"), text);
    testing::assert_keeps::<Perplexity>(&rule("zh", "high = 2.0"), text);
    let filter = testing::build::<Perplexity>(&rule("*", "high = 1e6"));
    let document = Document::new("a", text);
    assert_eq!(filter.measure(&Features::new(&document)), [Measure::at_most("perplexity_high", perplexity, 1e6)]);
    assert!(filter.fingerprint().contains(model.fingerprint()));
    let shuffled = "Trait the a use as can we type.\nWill code compile this not.";
    let judge = |text: &str| filter.measure(&Features::new(&Document::new("a", text)))[0].value;
    assert!(judge(shuffled) > 1.5 * judge(text), "{} and {}", judge(shuffled), judge(text));
    testing::assert_sound::<Perplexity>(&rule("*", "high = 500.0"));
}

/// Cuts and changed bytes in the parts that say where everything is: an error or a model that still scores.
#[test]
fn damaged_models_give_errors_and_never_a_panic() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("damaged");
    for name in ["probing.binary", "trie_both.binary", "trie.binary", "small.arpa"] {
        let whole = golden(&format!("{name}.zst"));
        for length in (0..whole.len()).step_by(whole.len() / 40) {
            fs::write(&path, &whole[..length]).expect("file");
            if let Ok(model) = NgramModel::load(&path) {
                // Only the words' text at the end is not needed.
                assert!(name.ends_with("binary") && length > whole.len() / 2, "{length} of {}", whole.len());
                model.score("the reference", &LmTokens::Spaces);
            }
        }
        let places = (0..160).chain((160..whole.len()).step_by(whole.len() / 60));
        for (at, flip) in places.flat_map(|at| [(at, 0xFF), (at, 0x01), (at, 0x40)]) {
            let mut changed = whole.clone();
            changed[at] ^= flip;
            fs::write(&path, changed).expect("file");
            if let Ok(model) = NgramModel::load(&path) {
                model.score("we can use the reference", &LmTokens::Spaces);
            }
        }
    }
}
