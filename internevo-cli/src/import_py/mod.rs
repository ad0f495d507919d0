//! InternEvo's Python configurations → our TOML. The file is never executed: its literal subset is read (`eval`), keys that
//! exist here are taken over, and everything else is listed with its line.

mod eval;
mod lexer;

use std::collections::BTreeMap;

use internevo_core::config::Config;

use eval::Value;
use lexer::TokenKind;

/// What became of a Python configuration.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The configuration that was understood.
    pub config: toml::Table,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

/// A statement or key that has no counterpart here.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Line of the statement, from 1.
    pub line: usize,
    /// The key or statement.
    pub what: String,
    /// Why it was left out.
    pub why: String,
}

/// Top-level names whose spelling differs here.
const RENAMED: [(&str, &str); 2] = [("JOB_NAME", "job_name"), ("SEED", "seed")];

/// Reads a Python configuration.
pub fn import(source: &str) -> Imported {
    let known = toml::Table::try_from(Config::default()).expect("the default configuration is a table");
    let mut names: BTreeMap<String, Value> = BTreeMap::new();
    let mut out = Imported { config: toml::Table::new(), skipped: Vec::new() };
    for statement in lexer::statements(source) {
        let line = statement.line;
        let mut skip = |what: String, why: &str| out.skipped.push(Skipped { line, what, why: why.to_owned() });
        let tokens = match statement.tokens {
            Ok(tokens) => tokens,
            Err(why) => {
                skip("statement".to_owned(), &why);
                continue;
            }
        };
        let [name, equals, value @ ..] = tokens.as_slice() else {
            continue;
        };
        let (TokenKind::Name(name), TokenKind::Op("="), false) = (&name.kind, &equals.kind, statement.indented) else {
            if !matches!(&name.kind, TokenKind::Str(_)) {
                skip("statement".to_owned(), "only `NAME = value` at the top level is read");
            }
            continue;
        };
        match eval::evaluate(value, &names) {
            Ok(value) => {
                names.insert(name.clone(), value.clone());
                let key = RENAMED.iter().find(|(theirs, _)| theirs == name).map_or(name.as_str(), |(_, ours)| ours);
                // An upper-case name is a constant of the file, used by the sections below it.
                let constant = key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
                if !constant {
                    let adapted = adapt(key, value);
                    merge(&mut out.config, &known, key, key, adapted, line, &mut out.skipped);
                }
            }
            Err(why) => skip(name.clone(), &why),
        }
    }
    out
}

/// Where the shape of a section differs here.
fn adapt(section: &str, value: Value) -> Value {
    let Value::Dict(entries) = value else { return value };
    let adapted = entries.into_iter().flat_map(|(key, value)| match (section, key.as_str(), value) {
        ("ckpt", "load_ckpt_info", Value::Dict(info)) => info
            .into_iter()
            .map(|(k, v)| match (k.as_str(), v) {
                ("path", v) => ("load_ckpt_folder".to_owned(), v),
                ("content", Value::Str(s)) => ("load_ckpt_content".to_owned(), Value::List(vec![Value::Str(s)])),
                ("content", v) => ("load_ckpt_content".to_owned(), v),
                (_, v) => (format!("load_ckpt_info.{k}"), v),
            })
            .collect(),
        // `zero1 = 8` is short for `zero1 = dict(size=8)`.
        ("parallel", _, Value::Int(size)) => vec![(key, Value::Dict(vec![("size".to_owned(), Value::Int(size))]))],
        ("parallel", "tensor" | "weight" | "pipeline" | "zero1", value) => vec![(key, value)],
        (_, _, value) => vec![(key, value)],
    });
    Value::Dict(adapted.collect())
}

fn merge(
    into: &mut toml::Table,
    known: &toml::Table,
    key: &str,
    path: &str,
    value: Value,
    line: usize,
    skipped: &mut Vec<Skipped>,
) {
    // `None` means the default in both systems.
    if value == Value::None {
        return;
    }
    let mut skip = |why: &str| skipped.push(Skipped { line, what: path.to_owned(), why: why.to_owned() });
    match (known.get(key), value) {
        (None, _) => skip("has no counterpart here"),
        (Some(toml::Value::Table(inner)), Value::Dict(entries)) => {
            let mut table = toml::Table::new();
            for (k, v) in entries {
                merge(&mut table, inner, &k, &format!("{path}.{k}"), v, line, skipped);
            }
            if !table.is_empty() {
                into.insert(key.to_owned(), toml::Value::Table(table));
            }
        }
        (Some(like), value) => match convert(like, value) {
            Some(value) => {
                into.insert(key.to_owned(), value);
            }
            None => skip("has another type here"),
        },
    }
}

fn convert(like: &toml::Value, value: Value) -> Option<toml::Value> {
    Some(match (like, value) {
        (toml::Value::Float(_), Value::Int(i)) => toml::Value::Float(i as f64),
        (toml::Value::Float(_), Value::Float(f)) => toml::Value::Float(f),
        (toml::Value::Integer(_), Value::Int(i)) => toml::Value::Integer(i),
        (toml::Value::Integer(_), Value::Float(f)) if f.fract() == 0.0 => toml::Value::Integer(f as i64),
        (toml::Value::Boolean(_), Value::Bool(b)) => toml::Value::Boolean(b),
        (toml::Value::String(_), Value::Str(s)) => toml::Value::String(s),
        (toml::Value::Array(_), Value::List(items)) => {
            let strings = items.into_iter().map(|item| match item {
                Value::Str(s) => Some(toml::Value::String(s)),
                _ => None,
            });
            toml::Value::Array(strings.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
# InternEvo style
JOB_NAME = "7b_train"
SEQ_LEN = 2048  # tokens
CHECKPOINT_EVERY = 50
MODEL_FOLDER = "local:llm_ckpts/xxxx"
ckpt = dict(
    enable_save_ckpt=True,
    save_ckpt_folder=f"local:ckpts/{JOB_NAME}",
    load_ckpt_info=dict(path=MODEL_FOLDER, content=("model",), ckpt_type="internevo"),
    checkpoint_every=CHECKPOINT_EVERY,
    oss_snapshot_freq=int(CHECKPOINT_EVERY / 2),  # snapshot
)
data = dict(seq_len=SEQ_LEN, micro_bsz=2 ** 1, micro_num=4, total_steps=50_000, train_folder=None)
lr_scheduler = dict(total_steps=data["total_steps"], warmup_ratio=0.01, eta_min=1e-5)
model = dict(hidden_size=4096, mlp_ratio=3.5, rope_base=1000000, dtype="torch.bfloat16", no_bias=True)
parallel = dict(zero1=8, tensor=dict(size=2, mode="isp"), weight=dict(size=4, overlap=True))
import os
if os.environ.get("X"):
    data = 1
hybrid_zero_optimizer = {"clip_grad_norm": -(-1.0), "overlap_sync_grad": True}
"#;

    #[test]
    fn known_keys_are_taken_and_everything_else_is_listed_with_its_line() {
        let imported = import(SOURCE);
        let expected: toml::Table = toml::from_str(
            r#"
            job_name = "7b_train"
            ckpt = { enable_save_ckpt = true, save_ckpt_folder = "local:ckpts/7b_train", load_ckpt_folder = "local:llm_ckpts/xxxx", load_ckpt_content = ["model"], checkpoint_every = 50 }
            data = { seq_len = 2048, micro_bsz = 2, micro_num = 4, total_steps = 50000 }
            lr_scheduler = { total_steps = 50000, warmup_ratio = 0.01, eta_min = 1e-5 }
            model = { hidden_size = 4096, mlp_ratio = 3.5, rope_base = 1000000.0, dtype = "torch.bfloat16" }
            parallel = { zero1 = { size = 8 }, tensor = { size = 2, mode = "isp" }, weight = { size = 4 } }
            hybrid_zero_optimizer = { clip_grad_norm = 1.0 }
            "#,
        )
        .expect("toml");
        assert_eq!(imported.config, expected);
        let lines: Vec<(usize, &str)> = imported.skipped.iter().map(|s| (s.line, s.what.as_str())).collect();
        for expected in [(7, "ckpt.oss_snapshot_freq"), (16, "model.no_bias"), (18, "statement"), (20, "statement")] {
            assert!(lines.contains(&expected), "{expected:?} is missing in {lines:?}");
        }
    }

    #[test]
    fn an_expression_that_is_not_understood_skips_its_statement_only() {
        let imported = import("seed = open('x').read()\njob_name = 'a' 'b'\nmodel = dict(num_layers=[i for i in x])\n");
        assert_eq!(imported.config, toml::from_str::<toml::Table>("job_name = 'ab'").expect("toml"));
        assert_eq!(imported.skipped.iter().map(|s| s.line).collect::<Vec<_>>(), [1, 3]);
    }
}
