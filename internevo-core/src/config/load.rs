//! Merging the layers: defaults < preset < files in order < environment < `--set`, leaf by leaf.
//!
//! Mistakes are collected, never returned one at a time. A leaf that is refused does not take part in the merge, and rules
//! that read its key are not reported on top.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use toml::{Table, Value};

use super::{
    error::{ConfigError, ConfigErrors},
    known::{self, KnownKeys},
    layer::{self, Leaf, dotted},
    origin::{Layer, Origin},
    preset::{self, presets},
    resolved::Resolved,
    validate::validate,
};
use crate::plugin::nearest;

/// What to merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadRequest {
    /// Name of a built-in preset.
    pub preset: Option<String>,
    /// Configuration files; later ones win.
    pub files: Vec<PathBuf>,
    /// `a.b=v` arguments; later ones win.
    pub sets: Vec<String>,
    /// Environment variables; those that do not start with `INTERNEVO_` are ignored.
    pub env: Vec<(String, String)>,
}

/// Reads, merges and checks all layers.
///
/// # Errors
/// Every mistake of every layer: unreadable files, syntax, unknown keys, types, and broken rules between values.
pub fn load(request: &LoadRequest) -> Result<Resolved, ConfigErrors> {
    let known = KnownKeys::new();
    let mut errors = Vec::new();
    let leaves = gather(request, &known, &mut errors);
    // Rules between values make no sense when part of the values could not be read.
    let complete = errors.is_empty();
    let mut merge = Merge::of_defaults(&known);
    for leaf in leaves {
        merge.add(&known, leaf, &mut errors);
    }
    let resolved = merge.finish();
    if complete {
        errors.extend(broken_rules(&resolved, &merge));
    }
    if errors.is_empty() { Ok(resolved) } else { Err(ConfigErrors(errors)) }
}

/// The leaves of all layers, weakest first.
fn gather(request: &LoadRequest, known: &KnownKeys, errors: &mut Vec<ConfigError>) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    if let Some(name) = &request.preset {
        match presets().iter().find(|p| p.name == name) {
            Some(preset) => leaves.extend(preset::leaves(preset)),
            None => errors.push(unknown_preset(name)),
        }
    }
    for file in &request.files {
        match layer::of_file(file) {
            Ok(read) => leaves.extend(read),
            Err(mistakes) => errors.extend(mistakes),
        }
    }
    leaves.extend(layer::of_environment(known, &request.env));
    for argument in &request.sets {
        match layer::of_set(known, argument) {
            Ok(read) => leaves.extend(read),
            Err(mistake) => errors.push(mistake),
        }
    }
    leaves
}

fn unknown_preset(name: &str) -> ConfigError {
    let names = || presets().iter().map(|p| p.name);
    let hint = nearest(name, names()).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    let all = names().collect::<Vec<_>>().join(", ");
    layer::whole(&Layer::Preset(name.to_owned()), format!("no such preset{hint} (presets: {all})"))
}

struct Merge {
    /// Winning leaf of each key, with its place in the order of layers.
    winners: BTreeMap<String, (Leaf, usize)>,
    /// Keys whose strongest leaf was refused.
    refused: BTreeSet<String>,
    /// The layer of the last leaf, and its place in the order of layers.
    layer: (Layer, usize),
}

impl Merge {
    fn of_defaults(known: &KnownKeys) -> Self {
        let mut merge = Self { winners: BTreeMap::new(), refused: BTreeSet::new(), layer: (Layer::Default, 0) };
        merge.add_defaults(&mut Vec::new(), known.defaults());
        merge
    }

    fn add_defaults(&mut self, path: &mut Vec<String>, table: &Table) {
        for (name, value) in table {
            path.push(name.clone());
            match value {
                Value::Table(inner) if !inner.is_empty() => self.add_defaults(path, inner),
                value => {
                    let leaf = Leaf { path: path.clone(), value: value.clone(), origin: Origin::of(Layer::Default) };
                    self.winners.insert(dotted(path), (leaf, 0));
                }
            }
            path.pop();
        }
    }

    /// Puts a leaf over what is there, or reports it.
    fn add(&mut self, known: &KnownKeys, leaf: Leaf, errors: &mut Vec<ConfigError>) {
        if self.layer.0 != leaf.origin.layer {
            self.layer = (leaf.origin.layer.clone(), self.layer.1 + 1);
        }
        let key = dotted(&leaf.path);
        if let Err(refusal) = known.check(&leaf) {
            // One unknown section is one mistake, however many keys it holds.
            let told = |e: &ConfigError| e.key == refusal.key && self.refused_in(&refusal.key, &leaf.origin.layer);
            if !errors.iter().any(told) {
                let (key, message) = (refusal.key.clone(), refusal.message);
                errors.push(ConfigError { location: leaf.origin.to_string(), key, message });
            }
            self.refused.extend([key, marker(&refusal.key, &leaf.origin.layer)]);
            return;
        }
        self.refused.remove(&key);
        let empty_section = leaf.value.as_table().is_some_and(Table::is_empty);
        if empty_section && self.winners.keys().any(|k| k.starts_with(&format!("{key}."))) {
            return;
        }
        // In plugins' tables a value may replace a table and the other way round.
        self.winners.retain(|_, (other, _)| {
            !(other.path.starts_with(&leaf.path) || leaf.path.starts_with(&other.path)) || other.path == leaf.path
        });
        self.winners.insert(key, (leaf, self.layer.1));
    }

    fn refused_in(&self, key: &str, layer: &Layer) -> bool {
        self.refused.contains(&marker(key, layer))
    }

    fn finish(&self) -> Resolved {
        let mut document = Table::new();
        for (leaf, _) in self.winners.values() {
            let (last, above) = leaf.path.split_last().expect("a path has at least one element");
            let mut table = &mut document;
            for name in above {
                let entry = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
                table = entry.as_table_mut().expect("no winner lies above another");
            }
            table.insert(last.clone(), leaf.value.clone());
        }
        let origins = self.winners.iter().map(|(key, (leaf, _))| (key.clone(), leaf.origin.clone())).collect();
        Resolved::new(known::read(document), origins)
    }
}

/// Remembers that a key was reported for a layer; no key contains a line break.
fn marker(key: &str, layer: &Layer) -> String {
    format!("{key}\n{layer}")
}

/// Broken rules, each at the strongest of the keys it reads.
fn broken_rules(resolved: &Resolved, merge: &Merge) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for violation in validate(&resolved.config) {
        if violation.keys.iter().any(|key| merge.refused.contains(*key)) {
            continue;
        }
        let strength = |key: &str| merge.winners.get(key).map_or(0, |(_, place)| *place);
        // `max_by_key` returns the last of equals; the rule's first key is its subject.
        let key = violation.keys.iter().rev().max_by_key(|key| strength(key)).expect("a rule reads a key");
        let location = resolved.location(key).unwrap_or_else(|| Layer::Default.to_string());
        errors.push(ConfigError { location, key: (*key).to_owned(), message: violation.message });
    }
    errors
}
