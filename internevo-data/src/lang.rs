//! Which language a text is in: by script where the script decides, by trigrams (whatlang) elsewhere.
//!
//! Codes are ISO 639-1 where there is one (`en`, `zh`, `ja`), else ISO 639-3. Source code is not judged here: its `lang` is
//! `code:<language>`, by the file's name.

use whatlang::Lang;

/// Bytes of text that are looked at: trigram counts settle long before.
const SAMPLE_BYTES: usize = 16_384;

/// Fewest letters that a guess is based on.
const MIN_LETTERS: usize = 20;

/// Share of a script's letters from which it decides.
const SCRIPT_SHARE: f64 = 0.3;

/// Kana is rarely more than this share of Chinese text, and rarely less of Japanese.
const KANA_SHARE: f64 = 0.05;

/// A language and how sure it is, 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// `en`, `zh`, …
    pub lang: &'static str,
    /// 1 where the script decided.
    pub confidence: f64,
}

/// Guesses the language of `text`; `None` for too few letters. Markdown's code blocks, URLs and markup do not count.
pub fn detect(text: &str) -> Option<Guess> {
    let sample = prose_sample(text);
    let scripts = Scripts::count(&sample);
    if scripts.letters < MIN_LETTERS && scripts.han + scripts.kana + scripts.hangul < MIN_LETTERS / 4 {
        return None;
    }
    if let Some(lang) = scripts.decide() {
        return Some(Guess { lang, confidence: 1.0 });
    }
    let info = whatlang::detect(&sample)?;
    Some(Guess { lang: code(info.lang()), confidence: info.confidence() })
}

/// Letters by the scripts that name a language (or nearly).
#[derive(Default)]
struct Scripts {
    letters: usize,
    han: usize,
    kana: usize,
    hangul: usize,
}

impl Scripts {
    fn count(text: &str) -> Self {
        let mut scripts = Self::default();
        for c in text.chars().filter(|c| c.is_alphabetic()) {
            scripts.letters += 1;
            match u32::from(c) {
                0x3041..=0x30FF | 0x31F0..=0x31FF => scripts.kana += 1,
                0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x3134F => scripts.han += 1,
                0x1100..=0x11FF | 0xAC00..=0xD7A3 => scripts.hangul += 1,
                _ => {}
            }
        }
        scripts
    }

    fn decide(&self) -> Option<&'static str> {
        let share = |count: usize| count as f64 / self.letters as f64;
        let east_asian = self.han + self.kana;
        if share(self.hangul) > SCRIPT_SHARE {
            Some("ko")
        } else if share(east_asian) > SCRIPT_SHARE {
            let is_japanese = self.kana as f64 > KANA_SHARE * east_asian as f64;
            Some(if is_japanese { "ja" } else { "zh" })
        } else {
            None
        }
    }
}

/// The beginning of `text` without fenced code and without words that look like names of things (URLs, paths, identifiers).
fn prose_sample(text: &str) -> String {
    let (mut sample, mut fenced) = (String::new(), false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        for word in line.split_whitespace().filter(|word| !word.contains(['/', '_', '`', '=', '{', '<', '|', ':'])) {
            sample.push_str(word);
            sample.push(' ');
        }
        if sample.len() >= SAMPLE_BYTES {
            break;
        }
    }
    sample
}

/// ISO 639-1 where there is one.
fn code(lang: Lang) -> &'static str {
    match lang {
        Lang::Eng => "en",
        Lang::Cmn => "zh",
        Lang::Jpn => "ja",
        Lang::Kor => "ko",
        Lang::Deu => "de",
        Lang::Fra => "fr",
        Lang::Spa => "es",
        Lang::Por => "pt",
        Lang::Ita => "it",
        Lang::Rus => "ru",
        Lang::Ukr => "uk",
        Lang::Nld => "nl",
        Lang::Pol => "pl",
        Lang::Tur => "tr",
        Lang::Vie => "vi",
        Lang::Ara => "ar",
        Lang::Heb => "he",
        Lang::Hin => "hi",
        Lang::Tha => "th",
        Lang::Swe => "sv",
        Lang::Dan => "da",
        Lang::Nob => "no",
        Lang::Fin => "fi",
        Lang::Ces => "cs",
        Lang::Hun => "hu",
        Lang::Ron => "ro",
        Lang::Ell => "el",
        Lang::Ind => "id",
        Lang::Lat => "la",
        other => other.code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_told_apart() {
        for (lang, text) in [
            ("en", "The quick brown fox jumps over the lazy dog, and nobody in the village was surprised by that."),
            ("de", "Der schnelle braune Fuchs springt über den faulen Hund, und niemand im Dorf war davon überrascht."),
            ("zh", "所有权是 Rust 最独特的特性，它让 Rust 无需垃圾回收器即可保证内存安全。"),
            ("ja", "所有権は Rust の最もユニークな機能であり、メモリ安全性を保証します。"),
            ("ko", "소유권은 러스트의 가장 독특한 기능으로 메모리 안전성을 보장합니다."),
        ] {
            assert_eq!(detect(text).map(|guess| guess.lang), Some(lang), "{text}");
        }
    }

    #[test]
    fn code_does_not_decide_and_too_little_text_is_no_guess() {
        let text = "```\nthe and of that have with the and of that\n```\nDieser Abschnitt beschreibt die Speicherverwaltung und ihre Regeln.";
        assert_eq!(detect(text).map(|guess| guess.lang), Some("de"));
        assert_eq!(detect("12 + 30 = 42; OK"), None);
    }
}
