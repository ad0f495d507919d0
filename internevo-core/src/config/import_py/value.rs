//! Python values of the literal subset, and their arithmetic.

/// A value, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    List(Vec<Value>),
    Dict(Vec<Item>),
    /// Not a literal: the reason. Everything computed from it is unknown as well.
    Unknown(String),
}

/// An entry of a dictionary, with the line of its key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub key: String,
    pub line: usize,
    pub value: Value,
}

impl Value {
    pub(super) fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown(reason.into())
    }

    /// A dictionary; of entries with the same key the last one stays.
    pub(super) fn dict(items: Vec<Item>) -> Self {
        let mut kept: Vec<Item> = Vec::with_capacity(items.len());
        for item in items {
            kept.retain(|k| k.key != item.key);
            kept.push(item);
        }
        Self::Dict(kept)
    }

    /// The entry `key` of a dictionary or the element of a list.
    pub(super) fn subscript(&self, index: &Self) -> Self {
        match (self, index) {
            (Self::Unknown(_), _) => self.clone(),
            (_, Self::Unknown(_)) => index.clone(),
            (Self::Dict(items), Self::Str(key)) => match items.iter().find(|i| i.key == *key) {
                Some(item) => item.value.clone(),
                None => Self::unknown(format!("there is no entry `{key}`")),
            },
            (Self::List(items), Self::Int(at)) => {
                let at = if *at < 0 { at + items.len() as i64 } else { *at };
                usize::try_from(at)
                    .ok()
                    .and_then(|at| items.get(at))
                    .cloned()
                    .unwrap_or_else(|| Self::unknown("no such element"))
            }
            _ => Self::unknown("only dictionaries and lists have elements"),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(*n as f64),
            Self::Float(x) => Some(*x),
            Self::Bool(b) => Some(f64::from(*b)),
            _ => None,
        }
    }

    /// `self op other` as Python computes it.
    pub(super) fn binary(&self, op: &str, other: &Self) -> Self {
        match (self, other) {
            (Self::Unknown(_), _) => self.clone(),
            (_, Self::Unknown(_)) => other.clone(),
            (Self::Int(a), Self::Int(b)) if op != "/" => integers(*a, op, *b),
            (Self::Str(a), Self::Str(b)) if op == "+" => Self::Str(format!("{a}{b}")),
            (Self::List(a), Self::List(b)) if op == "+" => Self::List([a.as_slice(), b].concat()),
            _ => match (self.number(), other.number()) {
                (Some(a), Some(b)) => floats(a, op, b),
                _ => Self::unknown(format!("`{op}` of these values is not supported")),
            },
        }
    }

    pub(super) fn negated(&self) -> Self {
        match self {
            Self::Float(x) => Self::Float(-x),
            other => Self::Int(0).binary("-", other),
        }
    }

    /// `int(x)`, `float(x)` or `str(x)`.
    pub(super) fn converted(&self, function: &str) -> Self {
        let failed = || Self::unknown(format!("`{function}` of this value is not supported"));
        match (function, self) {
            (_, Self::Unknown(_)) => self.clone(),
            ("int", Self::Int(n)) => Self::Int(*n),
            ("int", Self::Str(s)) => s.trim().parse().map_or_else(|_| failed(), Self::Int),
            // Beyond 2^63 the cast would saturate silently.
            ("int", _) => match self.number() {
                Some(x) if x.abs() < i64::MAX as f64 => Self::Int(x.trunc() as i64),
                _ => failed(),
            },
            ("float", Self::Str(s)) => s.trim().parse().map_or_else(|_| failed(), Self::Float),
            ("float", _) => self.number().map_or_else(failed, Self::Float),
            _ => self.text().map_or_else(failed, Self::Str),
        }
    }

    /// `str(x)` of a scalar.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::None => Some("None".to_owned()),
            Self::Bool(b) => Some(if *b { "True" } else { "False" }.to_owned()),
            Self::Int(n) => Some(n.to_string()),
            Self::Float(x) => Some(format!("{x:?}")),
            Self::Str(s) => Some(s.clone()),
            _ => None,
        }
    }

    /// Whether a condition holds; `None` for what is unknown.
    pub(super) fn truth(&self) -> Option<bool> {
        match self {
            Self::None => Some(false),
            Self::Str(s) => Some(!s.is_empty()),
            Self::List(items) => Some(!items.is_empty()),
            Self::Dict(items) => Some(!items.is_empty()),
            Self::Unknown(_) => None,
            number => number.number().map(|x| x != 0.0),
        }
    }
}

fn integers(a: i64, op: &str, b: i64) -> Value {
    let result = match op {
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "//" => a.checked_div_euclid(b).map(|q| if b < 0 && a.rem_euclid(b) != 0 { q - 1 } else { q }),
        "%" => a.checked_rem_euclid(b).map(|r| if b < 0 && r != 0 { r + b } else { r }),
        "**" if b < 0 => return floats(a as f64, op, b as f64),
        "**" => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        _ => return Value::unknown(format!("`{op}` is not supported")),
    };
    result.map_or_else(|| Value::unknown(format!("{a} {op} {b} has no value in 64 bits")), Value::Int)
}

fn floats(a: f64, op: &str, b: f64) -> Value {
    let result = match op {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "//" => (a / b).floor(),
        "%" => a - b * (a / b).floor(),
        "**" => a.powf(b),
        _ => return Value::unknown(format!("`{op}` is not supported")),
    };
    if result.is_finite() { Value::Float(result) } else { Value::unknown(format!("{a} {op} {b} is not finite")) }
}
