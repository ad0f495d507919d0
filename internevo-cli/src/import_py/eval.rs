//! The literal subset of Python that InternEvo's configuration files use: names, `dict(..)`, lists, tuples, arithmetic,
//! `int()`, f-strings, subscripts. Anything else is an error for that statement, never a guess.

use std::collections::BTreeMap;

use super::lexer::{self, Token, TokenKind};

/// A Python value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Str(String),
    /// A list or tuple.
    List(Vec<Value>),
    /// A dict, in order.
    Dict(Vec<(String, Value)>),
}

/// Evaluates the tokens of one expression with the names defined so far.
///
/// # Errors
/// Says what is not understood.
pub fn evaluate(tokens: &[Token], names: &BTreeMap<String, Value>) -> Result<Value, String> {
    let mut parser = Parser { tokens, at: 0, names };
    let value = parser.sum()?;
    match parser.peek() {
        None => Ok(value),
        Some(other) => Err(format!("{} is not understood here", show(other))),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    names: &'a BTreeMap<String, Value>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&TokenKind> {
        self.tokens.get(self.at).map(|t| &t.kind)
    }

    fn next(&mut self) -> Option<TokenKind> {
        let kind = self.peek().cloned();
        self.at += 1;
        kind
    }

    fn eat(&mut self, operator: &str) -> bool {
        let found = matches!(self.peek(), Some(TokenKind::Op(o)) if *o == operator);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, operator: &str) -> Result<(), String> {
        if self.eat(operator) { Ok(()) } else { Err(format!("`{operator}` expected")) }
    }

    fn operator(&mut self, among: &[&'static str]) -> Option<&'static str> {
        let found = among.iter().copied().find(|o| matches!(self.peek(), Some(TokenKind::Op(p)) if p == o))?;
        self.at += 1;
        Some(found)
    }

    fn sum(&mut self) -> Result<Value, String> {
        let mut left = self.product()?;
        while let Some(op) = self.operator(&["+", "-"]) {
            left = arithmetic(op, left, self.product()?)?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Value, String> {
        let mut left = self.signed()?;
        while let Some(op) = self.operator(&["*", "/", "//", "%"]) {
            left = arithmetic(op, left, self.signed()?)?;
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Value, String> {
        if self.eat("-") {
            return arithmetic("-", Value::Int(0), self.signed()?);
        }
        let base = self.postfix()?;
        if self.eat("**") { arithmetic("**", base, self.signed()?) } else { Ok(base) }
    }

    fn postfix(&mut self) -> Result<Value, String> {
        let mut value = self.atom()?;
        while self.eat("[") {
            let index = self.sum()?;
            self.expect("]")?;
            value = subscript(value, &index)?;
        }
        Ok(value)
    }

    fn atom(&mut self) -> Result<Value, String> {
        let line = self.tokens.get(self.at).map_or(1, |t| t.line);
        match self.next() {
            Some(TokenKind::Int(i)) => Ok(Value::Int(i)),
            Some(TokenKind::Float(f)) => Ok(Value::Float(f)),
            Some(TokenKind::Str(s)) => Ok(Value::Str(self.adjacent(s))),
            Some(TokenKind::Format(s)) => self.format(&s, line).map(Value::Str),
            Some(TokenKind::Op("[")) => self.items("]").map(|(items, _)| Value::List(items)),
            Some(TokenKind::Op("(")) => match self.items(")")? {
                (mut items, false) if items.len() == 1 => Ok(items.remove(0)),
                (items, _) => Ok(Value::List(items)),
            },
            Some(TokenKind::Op("{")) => self.braces(),
            Some(TokenKind::Name(name)) => self.name(&name),
            Some(other) => Err(format!("{} is not understood here", show(&other))),
            None => Err("the expression has no end".to_owned()),
        }
    }

    fn adjacent(&mut self, mut text: String) -> String {
        while let Some(TokenKind::Str(more)) = self.peek() {
            text.push_str(more);
            self.at += 1;
        }
        text
    }

    fn name(&mut self, name: &str) -> Result<Value, String> {
        match name {
            "None" => return Ok(Value::None),
            "True" => return Ok(Value::Bool(true)),
            "False" => return Ok(Value::Bool(false)),
            _ => {}
        }
        if !self.eat("(") {
            return self.names.get(name).cloned().ok_or_else(|| format!("`{name}` is not defined"));
        }
        if name == "dict" {
            return self.keywords();
        }
        let (arguments, _) = self.items(")")?;
        match (name, arguments.as_slice()) {
            ("int", [Value::Int(i)]) => Ok(Value::Int(*i)),
            ("int", [Value::Float(f)]) => Ok(Value::Int(*f as i64)),
            ("float", [Value::Int(i)]) => Ok(Value::Float(*i as f64)),
            ("float", [Value::Float(f)]) => Ok(Value::Float(*f)),
            ("str", [value]) => Ok(Value::Str(text(value))),
            ("list" | "tuple", [Value::List(items)]) => Ok(Value::List(items.clone())),
            _ => Err(format!("the call of `{name}` is not understood")),
        }
    }

    /// `a, b, c]`, and whether a comma was seen.
    fn items(&mut self, end: &str) -> Result<(Vec<Value>, bool), String> {
        let (mut items, mut comma) = (Vec::new(), false);
        while !self.eat(end) {
            items.push(self.sum()?);
            if self.eat(",") {
                comma = true;
            } else {
                self.expect(end)?;
                break;
            }
        }
        Ok((items, comma))
    }

    fn keywords(&mut self) -> Result<Value, String> {
        let mut entries = Vec::new();
        while !self.eat(")") {
            if self.eat("**") {
                let Value::Dict(more) = self.sum()? else { return Err("`**` needs a dict".to_owned()) };
                entries.extend(more);
            } else {
                let Some(TokenKind::Name(key)) = self.next() else { return Err("dict(key=value) expected".to_owned()) };
                self.expect("=")?;
                entries.push((key, self.sum()?));
            }
            if !self.eat(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(Value::Dict(entries))
    }

    fn braces(&mut self) -> Result<Value, String> {
        let mut entries = Vec::new();
        while !self.eat("}") {
            let key = text(&self.sum()?);
            self.expect(":")?;
            entries.push((key, self.sum()?));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Value::Dict(entries))
    }

    fn format(&self, template: &str, line: usize) -> Result<String, String> {
        let (mut out, mut rest) = (String::new(), template);
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').ok_or("an f-string has `{` without `}`")? + open;
            out.push_str(&rest[..open]);
            let inside = lexer::expression(&rest[open + 1..close], line)?;
            out.push_str(&text(&evaluate(&inside, self.names)?));
            rest = &rest[close + 1..];
        }
        Ok(out + rest)
    }
}

fn subscript(value: Value, index: &Value) -> Result<Value, String> {
    let found = match (&value, index) {
        (Value::Dict(entries), Value::Str(key)) => entries.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.clone()),
        (Value::List(items), Value::Int(i)) => {
            let at = if *i < 0 { *i + items.len() as i64 } else { *i };
            usize::try_from(at).ok().and_then(|at| items.get(at).cloned())
        }
        _ => None,
    };
    found.ok_or_else(|| format!("there is no element [{}]", text(index)))
}

fn arithmetic(op: &str, left: Value, right: Value) -> Result<Value, String> {
    if let (Value::Int(a), Value::Int(b)) = (&left, &right) {
        let whole = match op {
            "+" => a.checked_add(*b),
            "-" => a.checked_sub(*b),
            "*" => a.checked_mul(*b),
            "//" if *b != 0 => Some(floor_div(*a, *b)),
            "%" if *b != 0 => Some(a - b * floor_div(*a, *b)),
            "**" if *b >= 0 => u32::try_from(*b).ok().and_then(|b| a.checked_pow(b)),
            _ => None,
        };
        if let Some(whole) = whole {
            return Ok(Value::Int(whole));
        }
    }
    if let ("+", Value::Str(a), Value::Str(b)) = (op, &left, &right) {
        return Ok(Value::Str(format!("{a}{b}")));
    }
    let (Some(a), Some(b)) = (number(&left), number(&right)) else {
        return Err(format!("`{op}` between {} and {} is not understood", text(&left), text(&right)));
    };
    match op {
        "+" => Ok(Value::Float(a + b)),
        "-" => Ok(Value::Float(a - b)),
        "*" => Ok(Value::Float(a * b)),
        "**" => Ok(Value::Float(a.powf(b))),
        _ if b == 0.0 => Err("division by zero".to_owned()),
        "/" => Ok(Value::Float(a / b)),
        "//" => Ok(Value::Float((a / b).floor())),
        _ => Ok(Value::Float(a - b * (a / b).floor())),
    }
}

/// Python rounds the quotient towards minus infinity.
fn floor_div(a: i64, b: i64) -> i64 {
    a / b - i64::from(a % b != 0 && (a < 0) != (b < 0))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::None => "None".to_owned(),
        Value::Bool(b) => if *b { "True" } else { "False" }.to_owned(),
        Value::Int(i) => i.to_string(),
        Value::Float(f) => format!("{f:?}"),
        Value::Str(s) => s.clone(),
        Value::List(_) => "a list".to_owned(),
        Value::Dict(_) => "a dict".to_owned(),
    }
}

fn show(kind: &TokenKind) -> String {
    match kind {
        TokenKind::Name(s) | TokenKind::Str(s) | TokenKind::Format(s) => format!("`{s}`"),
        TokenKind::Int(i) => format!("`{i}`"),
        TokenKind::Float(f) => format!("`{f}`"),
        TokenKind::Op(o) => format!("`{o}`"),
    }
}
