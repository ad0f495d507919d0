//! Which keys exist and what type each wants; what to say about a key or a value that does not fit.
//!
//! The known keys are those of the serialised default configuration, so the typed schema is their only list. Rules between
//! values are in `validate/`.

use serde::Deserialize as _;
use toml::{Table, Value};

use super::{
    internevo,
    layer::{Leaf, dotted},
    schema::Config,
};
use crate::plugin::nearest;

/// Tables whose entries are checked by plugins: one table per plugin name.
const PLUGIN_TABLES: [&[&str]; 6] = [
    &["pipeline", "filter"],
    &["pipeline", "format", "settings"],
    &["pipeline", "dedup", "settings"],
    &["tokenizer", "settings"],
    &["optimizer", "settings"],
    &["monitor", "sink"],
];

/// How many names lead to the table of the plugin that `path` is inside of.
fn plugin_depth(path: &[String]) -> Option<usize> {
    let holds =
        |table: &&&[&str]| path.len() > table.len() && path.iter().zip(**table).all(|(name, known)| name == known);
    PLUGIN_TABLES.iter().find(holds).map(|table| table.len() + 1)
}

/// The keys of [`Config`] with their defaults.
pub(super) struct KnownKeys {
    defaults: Table,
}

/// Why a leaf is refused.
pub(super) struct Refusal {
    /// The key that is wrong: the leaf's, or the section above it that does not exist.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl KnownKeys {
    pub(super) fn new() -> Self {
        Self { defaults: Table::try_from(Config::default()).expect("the default configuration is a TOML table") }
    }

    /// All defaults.
    pub(super) fn defaults(&self) -> &Table {
        &self.defaults
    }

    /// Whether the key is a string, so that `--set job_name=7` is no type error.
    pub(super) fn wants_string(&self, path: &[String]) -> bool {
        let mut value = None;
        let mut table = Some(&self.defaults);
        for name in path {
            value = table.and_then(|t| t.get(name));
            table = value.and_then(Value::as_table);
        }
        value.is_some_and(Value::is_str)
    }

    /// Whether `name` is a top-level key or a likely misspelling of one.
    pub(super) fn is_nearly_top_level(&self, name: &str) -> bool {
        nearest(name, self.defaults.keys().map(String::as_str)).is_some()
    }

    /// Checks that the leaf's key exists and that its value has the right type.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub(super) fn check(&self, leaf: &Leaf) -> Result<(), Refusal> {
        let refuse = |message: String| Err(Refusal { key: dotted(&leaf.path), message });
        if let Some(depth) = plugin_depth(&leaf.path) {
            return match &leaf.value {
                value if leaf.path.len() == depth && !value.is_table() => {
                    let name = &leaf.path[depth - 1];
                    refuse(format!("expected a table with the settings of `{name}`, found {}", kind(value)))
                }
                value => match not_finite(value) {
                    Some(number) => refuse(format!("{number} is not a finite number")),
                    None => Ok(()),
                },
            };
        }
        match self.default_of(&leaf.path)? {
            Value::Table(_) if leaf.value.as_table().is_some_and(Table::is_empty) => Ok(()),
            Value::Table(_) => refuse(format!("expected a section, found {}", kind(&leaf.value))),
            _ => match not_finite(&leaf.value) {
                Some(number) => refuse(format!("{number} is not a finite number")),
                None => type_check(leaf).or_else(refuse),
            },
        }
    }

    /// The default at `path`, or why there is none.
    fn default_of(&self, path: &[String]) -> Result<&Value, Refusal> {
        let mut table = &self.defaults;
        for (depth, name) in path.iter().enumerate() {
            let here = &path[..=depth];
            match table.get(name) {
                None => return Err(self.unknown(path, here, table)),
                Some(Value::Table(inner)) if depth + 1 < path.len() => table = inner,
                Some(value) if depth + 1 == path.len() => return Ok(value),
                Some(value) => {
                    let message = format!("is {}, not a section", kind(value));
                    return Err(Refusal { key: dotted(here), message });
                }
            }
        }
        unreachable!("a path has at least one element")
    }

    fn unknown(&self, path: &[String], here: &[String], siblings: &Table) -> Refusal {
        // InternEvo's table may name the leaf or a section above it; the longest known name is the most precise.
        for end in (here.len()..=path.len()).rev() {
            let key = dotted(&path[..end]);
            if let Some(message) = internevo::unsupported(&key) {
                return Refusal { key, message };
            }
        }
        let name = here.last().expect("a path has at least one element");
        let above = &here[..here.len() - 1];
        let hint = match nearest(name, siblings.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{}`?", dotted(&[above, &[near.to_owned()]].concat())),
            None => match self.same_name_elsewhere(name) {
                Some(key) => format!("did you mean `{key}`?"),
                None => {
                    let names: Vec<_> = siblings.keys().map(String::as_str).collect();
                    let place =
                        if above.is_empty() { "at the top".to_owned() } else { format!("in `{}`", dotted(above)) };
                    format!("known {place}: {}", names.join(", "))
                }
            },
        };
        Refusal { key: dotted(here), message: format!("unknown key; {hint}") }
    }

    fn same_name_elsewhere(&self, name: &str) -> Option<String> {
        let section = |(section, value): (&String, &Value)| {
            value.as_table().filter(|t| t.contains_key(name)).map(|_| format!("{section}.{name}"))
        };
        self.defaults.iter().find_map(section)
    }
}

/// A number that is NaN or infinite, also inside an array or a table.
fn not_finite(value: &Value) -> Option<f64> {
    match value {
        Value::Float(x) => (!x.is_finite()).then_some(*x),
        Value::Array(items) => items.iter().find_map(not_finite),
        Value::Table(table) => table.values().find_map(not_finite),
        _ => None,
    }
}

/// Reads a configuration that holds nothing but this leaf.
fn type_check(leaf: &Leaf) -> Result<(), String> {
    let wrap = |inner: Value, name: &String| Value::Table(Table::from_iter([(name.clone(), inner)]));
    let document = leaf.path.iter().rev().fold(leaf.value.clone(), wrap);
    let Err(error) = serde_path_to_error::deserialize::<_, Config>(document) else { return Ok(()) };
    let item = match error.path().iter().next_back() {
        Some(serde_path_to_error::Segment::Seq { index }) => format!("item {}: ", index + 1),
        _ => String::new(),
    };
    let message = error.inner().message();
    let (found, wanted) = message.trim_end().rsplit_once(", expected ").unwrap_or((message.trim_end(), ""));
    let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    Err(match in_words(wanted) {
        "" => format!("{item}{found}"),
        wanted => format!("{item}expected {wanted}, found {found}"),
    })
}

fn in_words(rust_type: &str) -> &str {
    match rust_type {
        "usize" | "u64" => "a whole number, 0 or more",
        "i64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        other => other,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// Reads a merged document whose leaves have been checked one by one.
pub(super) fn read(document: Table) -> Config {
    Config::deserialize(Value::Table(document)).expect("every leaf was read on its own, and every key has a default")
}
