//! How a line is cut into the tokens of a language model. Training and use must do it in the same way.

use std::{fmt, path::Path, sync::Arc};

use crate::quality::features::{Token, each_token};

/// Special words: a text that contains them says nothing about sentences.
const SPECIAL: [&str; 3] = ["<s>", "</s>", "<unk>"];

/// A way to cut a line into tokens.
#[derive(Clone, Default)]
pub enum LmTokens {
    /// `words`: words in lower case with digits as `0`, single characters of scripts without spaces (Chinese, Japanese, Thai, …), and
    /// single punctuation marks.
    #[default]
    Words,
    /// `spaces`: what stands between white space, as KenLM's own programs do it.
    Spaces,
    /// The tokens of a `tokenizer.json`, for example sentencepiece's as in CCNet.
    Pieces {
        /// The file.
        path: String,
        /// What it holds.
        tokenizer: Arc<tokenizers::Tokenizer>,
    },
}

impl LmTokens {
    /// `words`, `spaces`, or the path of a `tokenizer.json`.
    ///
    /// # Errors
    /// A file that is no tokenizer; the message says what else there is.
    pub fn parse(setting: &str) -> Result<Self, String> {
        match setting {
            "words" => Ok(Self::Words),
            "spaces" => Ok(Self::Spaces),
            path => tokenizers::Tokenizer::from_file(Path::new(path))
                .map(|tokenizer| Self::Pieces { path: path.to_owned(), tokenizer: Arc::new(tokenizer) })
                .map_err(|error| format!("tokens are `words`, `spaces` or a tokenizer.json, not `{path}`: {error}")),
        }
    }

    /// The lines of `text` that are sentences: those that are not blank.
    pub fn lines(text: &str) -> impl Iterator<Item = &str> {
        text.lines().filter(|line| !line.trim().is_empty())
    }

    /// Hands over the tokens of a line.
    pub fn for_each(&self, line: &str, mut take: impl FnMut(&str)) {
        match self {
            Self::Words => {
                let mut word = String::new();
                for token in each_token(line) {
                    match token {
                        Token::Word(text) if text.bytes().all(|byte| byte.is_ascii_lowercase()) => take(text),
                        Token::Word(text) => take(fold(text, &mut word)),
                        Token::Mark(mark) => take(mark.encode_utf8(&mut [0; 4])),
                    }
                }
            }
            Self::Spaces => {
                let words = line.split([' ', '\t', '\r', '\n', '\0']);
                words.filter(|word| !word.is_empty() && !SPECIAL.contains(word)).for_each(take);
            }
            Self::Pieces { tokenizer, .. } => {
                // A line that cannot be encoded has no tokens; tokenizers that were loaded fail only on broken rules.
                let encoded = tokenizer.encode_fast(line, false);
                let pieces = encoded.iter().flat_map(|encoded| encoded.get_tokens()).map(String::as_str);
                pieces.filter(|piece| !SPECIAL.contains(piece)).for_each(take);
            }
        }
    }
}

/// Lower case, digits as `0`, in a buffer of the caller's.
fn fold<'a>(text: &str, folded: &'a mut String) -> &'a str {
    folded.clear();
    for c in text.chars() {
        match c {
            _ if c.is_numeric() => folded.push('0'),
            _ if c.is_ascii() => folded.push(c.to_ascii_lowercase()),
            _ => folded.extend(c.to_lowercase()),
        }
    }
    folded
}

/// What [`LmTokens::parse`] reads.
impl fmt::Display for LmTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Words => "words",
            Self::Spaces => "spaces",
            Self::Pieces { path, .. } => path,
        })
    }
}

impl fmt::Debug for LmTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LmTokens({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(setting: &str, line: &str) -> Vec<String> {
        let mut found = Vec::new();
        LmTokens::parse(setting).expect("a setting").for_each(line, |token| found.push(token.to_owned()));
        found
    }

    #[test]
    fn words_are_folded_and_scripts_without_spaces_are_cut_into_characters() {
        assert_eq!(of("words", "Ünder 1.95, 使用Rust！"), ["ünder", "0", ".", "00", ",", "使", "用", "rust", "！"]);
    }

    #[test]
    fn spaces_leave_everything_as_it_is_but_the_special_words() {
        assert_eq!(of("spaces", "<s> Use\tIt,  now <unk> </s>"), ["Use", "It,", "now"]);
    }

    #[test]
    fn a_wrong_setting_is_told_what_there_is() {
        let message = LmTokens::parse("wörds").expect_err("no file").to_string();
        assert!(message.contains("`words`, `spaces` or a tokenizer.json"), "{message}");
    }
}
