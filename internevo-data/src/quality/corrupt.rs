//! Negative examples: passages made worse on purpose, and passages that were never prose.
//!
//! Every real passage gets one corrupted twin, so the two classes share their topics and the model can only learn form.
//! The order of lines is *not* among the corruptions: a bag of n-grams cannot see it, such examples would only teach
//! noise.

use internevo_core::rng::CounterRng;

use super::features::Token;

/// A way to make a passage worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// The tokens in random order.
    ShuffledWords,
    /// A quarter of all letters replaced by random ones.
    CharacterNoise,
    /// A few fragments of the passage repeated as a list: menus, tables of contents, test fixtures.
    Boilerplate,
    /// A table of hexadecimal numbers of the same length.
    HexTable,
}

impl Corruption {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ShuffledWords, Self::CharacterNoise, Self::Boilerplate, Self::HexTable];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ShuffledWords => "shuffled_words",
            Self::CharacterNoise => "character_noise",
            Self::Boilerplate => "boilerplate",
            Self::HexTable => "hex_table",
        }
    }

    /// The corrupted text of `passage`; depends on `seed` and the passage only.
    pub fn apply(self, passage: &[Token<'_>], seed: u64) -> String {
        let rng = CounterRng::new(seed, "corruption");
        match self {
            Self::ShuffledWords => {
                let order = rng.permutation(passage.len());
                join(order.iter().map(|at| passage[*at as usize]))
            }
            Self::CharacterNoise => noise(&join(passage.iter().copied()), &rng),
            Self::Boilerplate => boilerplate(passage, &rng),
            Self::HexTable => hex_table(passage.len(), &rng),
        }
    }
}

/// Tokens as text again: spaces between words, none before a mark.
pub fn join<'a>(tokens: impl IntoIterator<Item = Token<'a>>) -> String {
    let mut text = String::new();
    for token in tokens {
        match token {
            Token::Word(word) => {
                if text.chars().next_back().is_some_and(char::is_alphanumeric) {
                    text.push(' ');
                }
                text.push_str(word);
            }
            Token::Mark(mark) => text.push(mark),
        }
    }
    text
}

fn noise(text: &str, rng: &CounterRng) -> String {
    let letters: Vec<char> = text.chars().filter(|c| c.is_alphabetic()).collect();
    text.chars()
        .enumerate()
        .map(|(at, c)| {
            let words = rng.words(at as u64);
            // Letters of the same passage, so that the script stays what it is.
            if c.is_alphabetic() && words[0] < u32::MAX / 4 { letters[words[1] as usize % letters.len()] } else { c }
        })
        .collect()
}

fn boilerplate(passage: &[Token<'_>], rng: &CounterRng) -> String {
    let fragments: Vec<&[Token<'_>]> = (0..3)
        .map(|i| {
            let length = 1 + rng.below(2 * i, 4) as usize;
            let start = rng.below(2 * i + 1, passage.len().saturating_sub(length).max(1) as u64) as usize;
            &passage[start..passage.len().min(start + length)]
        })
        .collect();
    let bullet = ["", "- ", "* ", "| "][rng.below(99, 4) as usize];
    let mut text = String::new();
    let mut written = 0;
    for line in 100u64.. {
        if written >= passage.len() {
            break;
        }
        let fragment = fragments[rng.below(line, 3) as usize];
        text.push_str(bullet);
        text.push_str(&join(fragment.iter().copied()));
        text.push('\n');
        written += fragment.len() + 2;
    }
    text
}

fn hex_table(tokens: usize, rng: &CounterRng) -> String {
    let digits = 2 << rng.below(0, 4);
    let columns = 1 + rng.below(1, 8) as usize;
    let prefix = ["", "0x"][rng.below(2, 2) as usize];
    let separator = [" ", ", "][rng.below(3, 2) as usize];
    let mut text = String::new();
    for at in 0..tokens / separator.len() {
        let word = format!("{:016x}", rng.word64(10 + at as u64));
        text.push_str(prefix);
        text.push_str(&word[..digits]);
        text.push_str(if at % columns == columns - 1 { "\n" } else { separator });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::features::tokens, *};

    const TEXT: &str =
        "The borrow checker accepts this program because the reference lives long enough. It is freed later.";

    #[test]
    fn a_shuffled_passage_has_the_same_words_in_another_order() {
        let original = tokens(TEXT);
        let shuffled = Corruption::ShuffledWords.apply(&original, 4);
        let words = |text: &str| {
            let mut words: Vec<String> = text.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect();
            words.retain(|w| !w.is_empty());
            words.sort();
            words
        };
        assert_eq!(words(TEXT), words(&shuffled));
        assert_ne!(join(original), shuffled);
    }

    #[test]
    fn every_corruption_is_a_pure_function_of_passage_and_seed_and_changes_the_text() {
        let original = tokens(TEXT);
        for corruption in Corruption::ALL {
            let a = corruption.apply(&original, 7);
            assert_eq!(a, corruption.apply(&original, 7));
            assert_ne!(a, corruption.apply(&original, 8), "{corruption:?}");
            assert_ne!(a, join(original.iter().copied()), "{corruption:?}");
            assert!(!a.trim().is_empty());
        }
    }

    #[test]
    fn a_passage_of_one_token_survives_every_corruption() {
        for corruption in Corruption::ALL {
            corruption.apply(&tokens("x"), 1);
        }
    }
}
