//! From trained merges to the `tokenizer.json` that Hugging Face tokenizers read, and the two files `transformers` wants
//! beside it. Not here: how the merges are found (`train.rs`).

use serde_json::{Map, Value, json};

use super::{BOS, EOS, SPECIAL_TOKENS, Tokenizer, TokenizerError, UNK, bytes::ByteAlphabet, merges::Pair, split};

/// A tokenizer of `vocabulary` (bytes by id, special tokens first and empty) and `merges` by rank.
pub(super) fn tokenizer(
    alphabet: &ByteAlphabet,
    vocabulary: &[Vec<u8>],
    merges: &[Pair],
) -> Result<Tokenizer, TokenizerError> {
    let mut spelled: Vec<String> = SPECIAL_TOKENS.iter().map(|t| (*t).to_owned()).collect();
    spelled.extend(vocabulary[SPECIAL_TOKENS.len()..].iter().map(|bytes| alphabet.spell(bytes)));
    let merges: Vec<Value> =
        merges.iter().map(|(left, right)| json!([spelled[*left as usize], spelled[*right as usize]])).collect();
    let added: Vec<Value> = (0u32..).zip(SPECIAL_TOKENS).map(|(id, content)| added_token(id, content)).collect();
    let vocab: Map<String, Value> = (0u32..).zip(spelled).map(|(id, token)| (token, id.into())).collect();
    let document = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer(),
        "post_processor": byte_level(),
        "decoder": byte_level(),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    });
    Tokenizer::from_json(&document.to_string(), None)
}

/// The split into words, then GPT-2's spelling of bytes.
fn pre_tokenizer() -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": split::PATTERN}, "behavior": "Isolated", "invert": false},
        byte_level(),
    ]})
}

fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false})
}

fn added_token(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": true})
}

/// `tokenizer_config.json` for `transformers.AutoTokenizer`: a fast tokenizer that adds no token by itself.
/// `max_length` is the longest sequence of the model.
pub fn tokenizer_config(max_length: usize) -> Value {
    let specials: Map<String, Value> = (0u32..)
        .zip(SPECIAL_TOKENS)
        .map(|(id, content)| {
            let mut token = added_token(id, content);
            token.as_object_mut().expect("an added token is an object").remove("id");
            (id.to_string(), token)
        })
        .collect();
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS, "eos_token": EOS, "unk_token": UNK, "pad_token": EOS,
        "clean_up_tokenization_spaces": false,
        "model_max_length": max_length,
        "added_tokens_decoder": specials,
    })
}

/// `special_tokens_map.json`, which older versions of `transformers` ask for.
pub fn special_tokens_map() -> Value {
    json!({"bos_token": BOS, "eos_token": EOS, "unk_token": UNK, "pad_token": EOS})
}
