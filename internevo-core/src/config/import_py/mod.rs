//! InternEvo's Python configuration files → TOML. The file is read, never executed.
//!
//! `lexer.rs` cuts the source into statements, `expression.rs` evaluates the literal subset, `value.rs` computes. Here: which
//! assignment becomes which key, and what is said about the others.

mod expression;
mod lexer;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

use toml::Table;

use self::{
    lexer::{Statement, Token},
    value::{Item, Value},
};
use super::{
    known::KnownKeys,
    layer::{Leaf, leaf},
    origin::{Layer, Origin},
};

/// What became of a Python configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedPy {
    /// The keys that exist here, as TOML.
    pub toml: String,
    /// What was left out: `line 12: model.checkpoint: why`.
    pub skipped: Vec<String>,
}

/// A Python file whose statements cannot be told apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ImportError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl ImportError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// Top-level names with another spelling here.
const RENAMED: [(&str, &str); 2] = [("JOB_NAME", "job_name"), ("SEED", "seed")];

/// Reads InternEvo's Python configuration: `NAME = value` with numbers, strings, f-strings with names, containers, `dict(..)`,
/// `int(..)`, arithmetic and references to what was assigned before.
///
/// The TOML holds what exists here; rules between values are checked when it is loaded. Names in capitals are helpers of the
/// file and are not reported.
///
/// # Errors
/// An unclosed string or bracket, with its line. Statements outside the subset are listed as skipped instead.
pub fn import_py(source: &str) -> Result<ImportedPy, ImportError> {
    let mut import = Import { known: KnownKeys::new(), document: Table::new(), skipped: Vec::new() };
    let mut names: BTreeMap<String, (Value, usize)> = BTreeMap::new();
    for statement in lexer::statements(source)? {
        import.statement(&statement, &mut names);
    }
    // The last assignment of a name is the one that Python sees.
    for (name, (value, line)) in names {
        let renamed = RENAMED.iter().find(|(from, _)| *from == name).map(|(_, to)| (*to).to_owned());
        if renamed.is_none() && !name.chars().any(char::is_lowercase) {
            continue;
        }
        import.key(vec![renamed.unwrap_or(name)], value, line);
    }
    import.defaults();
    import.skipped.sort();
    let toml = toml::to_string(&import.document).expect("every checked leaf has a form in TOML");
    Ok(ImportedPy {
        toml,
        skipped: import.skipped.into_iter().map(|(line, text)| format!("line {line}: {text}")).collect(),
    })
}

struct Import {
    known: KnownKeys,
    document: Table,
    skipped: Vec<(usize, String)>,
}

impl Import {
    fn skip(&mut self, line: usize, what: &str, why: &str) {
        self.skipped.push((line, format!("{what}: {why}")));
    }

    fn statement(&mut self, statement: &Statement, names: &mut BTreeMap<String, (Value, usize)>) {
        let Some((_, line)) = statement.tokens.first() else { return };
        match statement.tokens.as_slice() {
            // A string on its own is a comment.
            [(Token::Str(..), _)] => {}
            [(Token::Name(name), _), (Token::Op("="), _), value @ ..] if !statement.indented => {
                let values = names.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect();
                let value = expression::evaluate(value, &values).unwrap_or_else(Value::Unknown);
                names.insert(name.clone(), (value, *line));
            }
            tokens => {
                let first = match &tokens[0].0 {
                    Token::Name(name) => name.as_str(),
                    _ => "statement",
                };
                self.skip(*line, first, "only `NAME = value` outside blocks is read");
            }
        }
    }

    /// Takes over one key, or everything below it.
    fn key(&mut self, path: Vec<String>, value: Value, line: usize) {
        match (path.join(".").as_str(), value) {
            (_, Value::None) => {}
            ("ckpt.load_ckpt_info" | "ckpt.load_ckpt_folder", Value::Dict(items)) => self.load_info(items),
            ("model.dtype", Value::Str(dtype)) if dtype != "torch.float32" => {
                self.skip(line, "model.dtype", &format!("`{dtype}`: this version trains in `torch.float32`"));
            }
            // Names of the family in older and newer versions.
            ("model_type", Value::Str(name)) if name == "INTERNLM2" => {
                self.key(path, Value::Str("INTERNLM2_PUBLIC".to_owned()), line);
            }
            (key, Value::Unknown(reason)) => self.skip(line, key, &reason),
            // A section that is not supported is told once, not for each of its keys.
            (key, Value::Dict(mut items)) => match super::internevo::unsupported(key) {
                Some(reason) => self.skip(line, key, &reason),
                None => {
                    // InternEvo prefers `load_ckpt_info` to the older `load_ckpt_folder`.
                    items.sort_by_key(|item| item.key == "load_ckpt_info");
                    for Item { key, line, value } in items {
                        self.key([path.as_slice(), &[key]].concat(), value, line);
                    }
                }
            },
            (key, value) => match to_toml(value) {
                Ok(value) => self.leaf(leaf(path, value, Origin::of(Layer::Default)), line),
                Err(reason) => self.skip(line, key, &reason),
            },
        }
    }

    /// `dict(path=.., content=(..), ckpt_type=..)` is two keys here.
    fn load_info(&mut self, items: Vec<Item>) {
        for Item { key, line, value } in items {
            let to = match key.as_str() {
                "path" => "load_ckpt_folder",
                "content" => "load_ckpt_content",
                _ => {
                    self.skip(
                        line,
                        &format!("ckpt.load_ckpt_info.{key}"),
                        "the form of a checkpoint is recognised from its files",
                    );
                    continue;
                }
            };
            let value = match value {
                Value::Str(one) if to == "load_ckpt_content" => Value::List(vec![Value::Str(one)]),
                other => other,
            };
            self.key(vec!["ckpt".to_owned(), to.to_owned()], value, line);
        }
    }

    /// Writes out what InternEvo assumes when a key is absent and we would assume something else.
    fn defaults(&mut self) {
        let value = |section: &str, key: &str| self.document.get(section).and_then(|s| s.get(key)).cloned();
        let assumed = [
            ("model", "multiple_of", Some(256.into())),
            ("model", "num_kv_attention_heads", value("model", "num_attention_heads")),
            ("data", "valid_micro_num", value("data", "micro_num")),
        ];
        for (section, key, value) in assumed {
            if let (Some(toml::Value::Table(table)), Some(value)) = (self.document.get_mut(section), value) {
                table.entry(key).or_insert(value);
            }
        }
    }

    fn leaf(&mut self, leaf: Leaf, line: usize) {
        if let Err(refusal) = self.known.check(&leaf) {
            return self.skip(line, &refusal.key, &refusal.message);
        }
        let (last, above) = leaf.path.split_last().expect("a path has at least one element");
        let mut table = &mut self.document;
        for name in above {
            let entry = table.entry(name.clone()).or_insert_with(|| Table::new().into());
            let Some(inner) = entry.as_table_mut() else { return };
            table = inner;
        }
        table.insert(last.clone(), leaf.value);
    }
}

fn to_toml(value: Value) -> Result<toml::Value, String> {
    Ok(match value {
        Value::Bool(b) => toml::Value::Boolean(b),
        Value::Int(n) => toml::Value::Integer(n),
        Value::Float(x) => toml::Value::Float(x),
        Value::Str(s) => toml::Value::String(s),
        Value::List(items) => toml::Value::Array(items.into_iter().map(to_toml).collect::<Result<_, _>>()?),
        Value::None => return Err("`None` inside a list has no form in TOML".to_owned()),
        Value::Dict(_) => return Err("a dictionary inside a list is not supported".to_owned()),
        Value::Unknown(reason) => return Err(reason),
    })
}
