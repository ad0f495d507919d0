//! One layer into its leaves: (path, value, origin). Texts keep line and column of every key.
//!
//! Not here: whether a key exists or a value fits (`known.rs`), and which layer wins (`load.rs`).

use std::path::Path;

use toml::{
    Spanned, Value,
    de::{DeTable, DeValue},
};

use super::{
    error::ConfigError,
    known::KnownKeys,
    origin::{Layer, Origin, position},
};

/// Prefix of the environment variables that are a layer.
const ENVIRONMENT_PREFIX: &str = "INTERNEVO_";

/// Sections of `parallel` that InternEvo lets be written as their size: `zero1 = 8`.
const SIZE_SHORTHAND: [&str; 4] = ["zero1", "tensor", "pipeline", "weight"];

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// Key, one element per table.
    pub path: Vec<String>,
    /// The value; never a table with content.
    pub value: Value,
    /// Where the key was written.
    pub origin: Origin,
}

/// A key as it is written in TOML: bare where possible, else quoted.
pub(super) fn dotted(path: &[String]) -> String {
    let bare = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let quoted = |s: &String| if bare(s) { s.clone() } else { Value::String(s.clone()).to_string() };
    path.iter().map(quoted).collect::<Vec<_>>().join(".")
}

/// The leaves of a TOML text.
///
/// # Errors
/// Every syntax error.
pub(super) fn of_text(text: &str, layer: &Layer) -> Result<Vec<Leaf>, Vec<ConfigError>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let mut leaves = Vec::new();
        flatten(text, layer, table.get_ref(), &mut Vec::new(), &mut leaves);
        // A table has no order of its own; errors are easier to follow in the order of the text.
        leaves.sort_by_key(|leaf| leaf.origin.position);
        return Ok(leaves);
    }
    let error = |e: &toml::de::Error| ConfigError {
        location: {
            let position = Some(position(text, e.span().map_or(0, |s| s.start)));
            Origin { layer: layer.clone(), position }.to_string()
        },
        key: String::new(),
        message: format!("not valid TOML: {}", e.message()),
    };
    Err(errors.iter().map(error).collect())
}

/// The leaves of a file.
///
/// # Errors
/// When it cannot be read, or every syntax error.
pub(super) fn of_file(path: &Path) -> Result<Vec<Leaf>, Vec<ConfigError>> {
    let layer = Layer::File(path.to_owned());
    let bytes = std::fs::read(path).map_err(|e| vec![whole(&layer, format!("cannot read the file: {e}"))])?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let (line, column) = position(&String::from_utf8_lossy(e.as_bytes()), e.utf8_error().valid_up_to());
        vec![whole(&layer, format!("not UTF-8 (line {line}, column {column})"))]
    })?;
    of_text(&text, &layer)
}

/// An error about a layer as a whole.
pub(super) fn whole(layer: &Layer, message: String) -> ConfigError {
    ConfigError { location: layer.to_string(), key: String::new(), message }
}

fn flatten(text: &str, layer: &Layer, table: &DeTable<'_>, path: &mut Vec<String>, out: &mut Vec<Leaf>) {
    for (key, value) in table.iter() {
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(text, layer, inner, path, out),
            _ => {
                let position = Some(position(text, key.span().start));
                out.push(leaf(path.clone(), owned(value), Origin { layer: layer.clone(), position }));
            }
        }
        path.pop();
    }
}

/// A leaf; an integer in place of a section that has a size becomes that size.
pub(super) fn leaf(mut path: Vec<String>, value: Value, origin: Origin) -> Leaf {
    let shorthand = matches!(path.as_slice(), [a, b] if a == "parallel" && SIZE_SHORTHAND.contains(&b.as_str()));
    if shorthand && value.is_integer() {
        path.push("size".to_owned());
    }
    Leaf { path, value, origin }
}

/// A parsed value without its spans.
fn owned(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(s) => Value::String(s.to_string()),
        DeValue::Integer(i) => match i64::from_str_radix(i.as_str(), i.radix()) {
            Ok(number) => Value::Integer(number),
            // Beyond 64 bits: a float keeps the magnitude for keys that want one; keys that count reject it.
            Err(_) => Value::Float(i.as_str().parse().unwrap_or(f64::NAN)),
        },
        DeValue::Float(f) => Value::Float(f.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(d) => Value::Datetime(*d),
        DeValue::Array(items) => Value::Array(items.iter().map(owned).collect()),
        DeValue::Table(t) => Value::Table(t.iter().map(|(k, v)| (k.get_ref().to_string(), owned(v))).collect()),
    }
}

/// The leaves of `INTERNEVO_A__B=v` variables, in the order of their names.
///
/// A name without `__` is a layer only when it is, or is nearly, a key: others (`INTERNEVO_PEERS`) belong to tools.
pub(super) fn of_environment(known: &KnownKeys, variables: &[(String, String)]) -> Vec<Leaf> {
    let mut variables: Vec<_> = variables.iter().collect();
    variables.sort();
    let mut leaves = Vec::new();
    for (name, text) in variables {
        let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        let path: Vec<String> = key.to_lowercase().split("__").map(str::to_owned).collect();
        if path.len() == 1 && !known.is_nearly_top_level(&path[0]) {
            continue;
        }
        let origin = Origin::of(Layer::Environment(name.clone()));
        leaves.extend(of_typed_text(known, &path, text, &origin));
    }
    leaves
}

/// The leaves of one `a.b=v` argument.
///
/// # Errors
/// When it has no `=` or an empty key.
pub(super) fn of_set(known: &KnownKeys, argument: &str) -> Result<Vec<Leaf>, ConfigError> {
    let layer = Layer::Set(argument.to_owned());
    let wrong = || whole(&layer, "expected KEY=VALUE, for example `data.seq_len=512`".to_owned());
    let (key, text) = argument.split_once('=').ok_or_else(wrong)?;
    let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok(of_typed_text(known, &path, text.trim(), &Origin::of(layer.clone())))
}

/// `text` as a TOML value, or as a string where it is none or where the key wants a string.
fn of_typed_text(known: &KnownKeys, path: &[String], text: &str, origin: &Origin) -> Vec<Leaf> {
    let value = match DeValue::parse(text) {
        Ok(value) => owned(&value),
        Err(_) => Value::String(text.to_owned()),
    };
    let value = if known.wants_string(path) && !value.is_str() { Value::String(text.to_owned()) } else { value };
    let mut leaves = Vec::new();
    spread(path.to_vec(), value, origin, &mut leaves);
    leaves
}

fn spread(path: Vec<String>, value: Value, origin: &Origin, out: &mut Vec<Leaf>) {
    match value {
        Value::Table(table) if !table.is_empty() => {
            for (key, value) in table {
                spread([path.as_slice(), &[key]].concat(), value, origin, out);
            }
        }
        value => out.push(leaf(path, value, origin.clone())),
    }
}
