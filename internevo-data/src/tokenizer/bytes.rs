//! GPT-2's spelling of bytes as printable characters, which byte-level vocabularies are written in.
//! Origin: `bytes_to_unicode` in openai/gpt-2 `src/encoder.py`.

use std::collections::HashMap;

/// Byte → character and back.
#[derive(Clone, Debug)]
pub(crate) struct ByteAlphabet {
    chars: [char; 256],
    bytes: HashMap<char, u8>,
}

impl ByteAlphabet {
    pub(crate) fn new() -> Self {
        let mut chars = ['\0'; 256];
        let mut replacement = 256u32;
        for byte in 0..=255u8 {
            chars[usize::from(byte)] = if matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
                char::from(byte)
            } else {
                replacement += 1;
                char::from_u32(replacement - 1).expect("256..512 has no surrogates")
            };
        }
        let bytes = chars.iter().zip(0..=255u8).map(|(c, b)| (*c, b)).collect();
        Self { chars, bytes }
    }

    /// The 256 bytes in the order of their characters: the order in which trainers number them.
    pub(crate) fn bytes_by_char(&self) -> Vec<u8> {
        let mut order: Vec<u8> = (0..=255).collect();
        order.sort_by_key(|b| self.chars[usize::from(*b)]);
        order
    }

    /// `bytes` in the spelling of the vocabulary.
    pub(crate) fn spell(&self, bytes: &[u8]) -> String {
        bytes.iter().map(|b| self.chars[usize::from(*b)]).collect()
    }

    /// The bytes a token stands for; `None` when it has a character outside the alphabet.
    pub(crate) fn bytes(&self, token: &str) -> Option<Vec<u8>> {
        token.chars().map(|c| self.bytes.get(&c).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_alphabet_is_that_of_hugging_face() {
        let ours: BTreeSet<char> = ByteAlphabet::new().chars.into_iter().collect();
        let theirs: BTreeSet<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(ours, theirs);
        assert_eq!(ByteAlphabet::new().spell("é\n x".as_bytes()), "Ã©ĊĠx");
    }
}
