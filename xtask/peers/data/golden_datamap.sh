#!/bin/sh
# golden_datamap.sh DATAMAP_CHECKOUT documents.jsonl > datamap.jsonl      (needs cargo)
#
# datamap-rs' verdicts, at f7717942d556. The whole tool needs a yanked crate; its Gopher filters do not. So their source, unchanged, is
# built alone: the structs from PageLenFilter to MassiveWebRepetitionFilter of src/map_fxn.rs, with the trait and the two helpers
# that they use. Settings are those of configs/dclm/dclm_config.yaml. A list names the filters that drop the document.
set -eu
peer=$1 documents=$2 build=${BUILD:-$(mktemp -d)}
mkdir -p "$build/src"
cat > "$build/Cargo.toml" <<'T'
[package]
name = "datamap-gopher"
version = "0.1.0"
edition = "2021"
[dependencies]
anyhow = "1"
fxhash = "0.2.1"
serde = { version = "1", features = ["derive"] }
serde_json = "1"
unicode-segmentation = "1.12.0"
[workspace]
T
{
  cat <<'R'
#![allow(unused)]
use anyhow::{anyhow, Error};
use fxhash::{FxHashMap, FxHasher};
use serde::Serialize;
use serde_json::{json, Value};
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use unicode_segmentation::UnicodeSegmentation;
R
  awk '/^pub trait DataProcessor/{on=1} on{print} on&&/^}/{exit}' "$peer/src/map_fxn.rs"
  awk '/^pub trait FromValue/{on=1} /^pub fn json_set/{exit} on{print}' "$peer/src/utils.rs"
  echo '#[derive(Serialize, Debug)]'
  awk '/^pub struct PageLenFilter/{on=1} /^pub struct WordCountAdder/{exit} on{print}' "$peer/src/map_fxn.rs" | sed '$d'
  cat <<'R'
fn main() {
    fn make<T: DataProcessor + 'static>(name: &'static str, config: Value) -> (&'static str, Box<dyn Fn(Value) -> bool>) {
        let filter = T::new(&config).unwrap();
        (name, Box::new(move |data| filter.process(data).unwrap().is_none()))
    }
    let quality = [
        make::<PageLenFilter>("page_len", json!({"length_type": "word", "lower_bound": 50, "upper_bound": 100000, "ignore_punctuation": true})),
        make::<WordLenFilter>("word_len", json!({"lower_bound": 3, "upper_bound": 10})),
        make::<SymbolRatioFilter>("symbol_ratio", json!({"max_symbol_to_word_ratio": 0.1})),
        make::<BulletFilter>("bullet", json!({"max_bullet_ratio": 0.9})),
        make::<EllipsisLineRatioFilter>("ellipsis_line", json!({"max_ratio": 0.3})),
        make::<AlphabeticWordRatioFilter>("alphabetic_word", json!({"max_ratio": 0.2})),
        make::<StopWordFilter>("stop_word", json!({"count_unique": false, "min_stop_word": 2})),
    ];
    let repetition = [make::<MassiveWebRepetitionFilter>("massive_web_repetition", json!({}))];
    println!("{}", json!({"peer": "datamap-rs", "packages": {"datamap-rs": "f7717942d556"}, "made_by": "xtask/peers/data/golden_datamap.sh"}));
    for line in std::io::stdin().lines() {
        let document: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let violated = |filters: &[(&'static str, Box<dyn Fn(Value) -> bool>)]| -> Vec<&'static str> {
            filters.iter().filter(|(_, drops)| drops(document.clone())).map(|(name, _)| *name).collect()
        };
        println!("{}", json!({"id": document["id"], "gopher_quality": violated(&quality), "gopher_repetition": violated(&repetition)}));
    }
}
R
} > "$build/src/main.rs"
cargo run --quiet --release --manifest-path "$build/Cargo.toml" < "$documents"
