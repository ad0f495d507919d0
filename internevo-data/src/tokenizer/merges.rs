//! Applying merges to one word: the rules of Hugging Face's `BPE`, on bytes instead of on their spelling.
//! Not here: how merges are found (`train.rs`), how text is cut into words (`split.rs`).

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use serde_json::Value;

use super::bytes::ByteAlphabet;

/// Two neighbouring tokens.
pub(super) type Pair = (u32, u32);

/// Tables that are looked up by a pair.
pub(super) type PairMap<T> = HashMap<Pair, T, BuildHasherDefault<PairHasher>>;

/// Rank of a pair that is not merged.
const NEVER: u32 = u32::MAX;

/// What a pair becomes, and when: of several pairs the one of smallest rank is merged first.
#[derive(Clone, Copy, Debug)]
struct Merge {
    rank: u32,
    id: u32,
}

/// The merges of a vocabulary.
#[derive(Debug)]
pub(super) struct Merges {
    /// Token of each byte.
    of_byte: [u32; 256],
    /// Merge of each pair of bytes, by the two bytes: the first look-up of every word.
    of_bytes: Vec<Merge>,
    of_pair: PairMap<Merge>,
    /// Tokens by their bytes, for vocabularies in which a word that is a token needs no merges.
    whole: Option<HashMap<Vec<u8>, u32>>,
}

/// Buffers that one thread reuses.
#[derive(Debug, Default)]
pub(super) struct WordBuffers {
    ids: Vec<u32>,
    /// Of the pair that begins at each token; [`NEVER`] for the last.
    ranks: Vec<u32>,
}

impl Merges {
    /// The merges of the `model` of a `tokenizer.json`; `None` when it is no plain byte-level BPE.
    pub(super) fn of_model(model: &Value, alphabet: &ByteAlphabet) -> Option<Self> {
        let is_empty = |key: &str| model[key].is_null() || model[key] == "";
        let plain = model["type"] == "BPE"
            && model["dropout"].is_null()
            && is_empty("continuing_subword_prefix")
            && is_empty("end_of_word_suffix");
        if !plain {
            return None;
        }
        let vocab = model["vocab"].as_object()?;
        let id = |token: &str| vocab.get(token)?.as_u64().and_then(|id| u32::try_from(id).ok());
        let mut of_byte = [0; 256];
        for byte in 0..=255u8 {
            of_byte[usize::from(byte)] = id(&alphabet.spell(&[byte]))?;
        }
        let mut of_pair = PairMap::default();
        for (rank, merge) in (0u32..).zip(model["merges"].as_array()?) {
            let (left, right) = match merge {
                Value::Array(pair) => (pair.first()?.as_str()?, pair.get(1)?.as_str()?),
                other => other.as_str()?.split_once(' ')?,
            };
            of_pair.insert((id(left)?, id(right)?), Merge { rank, id: id(&format!("{left}{right}"))? });
        }
        let pairs = (0..=u16::MAX).map(|pair| {
            let [left, right] = pair.to_le_bytes().map(|byte| of_byte[usize::from(byte)]);
            of_pair.get(&(left, right)).copied().unwrap_or(Merge { rank: NEVER, id: 0 })
        });
        let of_bytes = pairs.collect();
        let bytes_of = |(token, id): (&String, &Value)| Some((alphabet.bytes(token)?, id.as_u64()? as u32));
        let whole =
            model["ignore_merges"].as_bool().unwrap_or(false).then(|| vocab.iter().filter_map(bytes_of).collect());
        Some(Self { of_byte, of_bytes, of_pair, whole })
    }

    /// Tokens of a word. Time grows with the square of its length: for words, not for texts.
    pub(super) fn apply<'b>(&self, word: &[u8], buffers: &'b mut WordBuffers) -> &'b [u32] {
        let WordBuffers { ids, ranks } = buffers;
        ids.clear();
        if let Some(id) = self.whole.as_ref().and_then(|whole| whole.get(word)) {
            ids.push(*id);
            return ids;
        }
        ids.extend(word.iter().map(|byte| self.of_byte[usize::from(*byte)]));
        ranks.clear();
        ranks.extend(
            word.windows(2).map(|pair| self.of_bytes[usize::from(u16::from_le_bytes([pair[0], pair[1]]))].rank),
        );
        ranks.push(NEVER);
        // The leftmost of the pairs of smallest rank, until none is left.
        while let Some(rank) = ranks.iter().copied().min().filter(|rank| *rank != NEVER) {
            let at = ranks.iter().position(|other| *other == rank).expect("it is among them");
            ids[at] = self.of_pair[&(ids[at], ids[at + 1])].id;
            ids.remove(at + 1);
            ranks.remove(at);
            let rank_at = |at: usize| match (ids.get(at), ids.get(at + 1)) {
                (Some(left), Some(right)) => self.of_pair.get(&(*left, *right)).map_or(NEVER, |merge| merge.rank),
                _ => NEVER,
            };
            ranks[at] = rank_at(at);
            if at > 0 {
                ranks[at - 1] = rank_at(at - 1);
            }
        }
        ids
    }
}

/// Multiplicative hash of a few small numbers: pairs are looked up far more often than anything else here.
#[derive(Default)]
pub(super) struct PairHasher(u64);

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        // 2^64 divided by the golden ratio (Knuth, TAOCP 6.4).
        self.0 = (self.0.rotate_left(26) ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
