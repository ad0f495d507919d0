//! Evaluating the literal subset of Python's expressions: constants, containers, `dict(..)`, `int(..)`, arithmetic, f-strings
//! with names, earlier names and their entries, and `a if b else c`.
//!
//! A name or a call that is not known makes its own value unknown, not the whole statement; grammar outside the subset
//! refuses the statement.

use std::collections::BTreeMap;

use super::{
    lexer::Token,
    value::{Item, Value},
};

/// Nesting that no configuration reaches; it bounds the stack.
const DEEPEST: usize = 64;

/// Evaluates all of `tokens`.
///
/// # Errors
/// What is outside the subset.
pub(super) fn evaluate(tokens: &[(Token, usize)], names: &BTreeMap<String, Value>) -> Result<Value, String> {
    let mut reader = Reader { tokens, at: 0, names, depth: 0 };
    let mut value = reader.expression()?;
    if reader.next_is(",") {
        let mut items = vec![value];
        while reader.accept(",") && reader.at < tokens.len() {
            items.push(reader.expression()?);
        }
        value = Value::List(items);
    }
    match reader.tokens.get(reader.at) {
        None => Ok(value),
        Some((token, _)) => Err(format!("{} is not understood here", shown(token))),
    }
}

struct Reader<'a> {
    tokens: &'a [(Token, usize)],
    at: usize,
    names: &'a BTreeMap<String, Value>,
    depth: usize,
}

impl Reader<'_> {
    fn next_is(&self, op: &str) -> bool {
        matches!(self.tokens.get(self.at), Some((Token::Op(found), _)) if *found == op)
    }

    fn accept(&mut self, op: &str) -> bool {
        let found = self.next_is(op);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, op: &str) -> Result<(), String> {
        if self.accept(op) { Ok(()) } else { Err(format!("`{op}` expected{}", self.found())) }
    }

    fn found(&self) -> String {
        self.tokens.get(self.at).map_or_else(String::new, |(token, _)| format!(" instead of {}", shown(token)))
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some((Token::Name(name), _)) if name == word);
        self.at += usize::from(found);
        found
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |(_, line)| *line)
    }

    fn expression(&mut self) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("nested too deeply".to_owned());
        }
        let value = self.sum()?;
        let result = if self.accept_word("if") {
            let condition = self.sum()?;
            if !self.accept_word("else") {
                return Err(format!("`else` expected{}", self.found()));
            }
            let otherwise = self.expression()?;
            match condition.truth() {
                Some(true) => value,
                Some(false) => otherwise,
                None => condition,
            }
        } else {
            value
        };
        self.depth -= 1;
        Ok(result)
    }

    fn sum(&mut self) -> Result<Value, String> {
        let mut value = self.product()?;
        while let Some(op) = ["+", "-"].into_iter().find(|op| self.accept(op)) {
            value = value.binary(op, &self.product()?);
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<Value, String> {
        let mut value = self.signed()?;
        while let Some(op) = ["*", "//", "/", "%"].into_iter().find(|op| self.accept(op)) {
            value = value.binary(op, &self.signed()?);
        }
        Ok(value)
    }

    fn signed(&mut self) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("nested too deeply".to_owned());
        }
        let value = if self.accept("-") {
            self.signed()?.negated()
        } else if self.accept("+") {
            self.signed()?
        } else {
            self.power()?
        };
        self.depth -= 1;
        Ok(value)
    }

    /// `**` binds tighter than a sign on its left and looser than one on its right, and groups to the right.
    fn power(&mut self) -> Result<Value, String> {
        let base = self.suffixed()?;
        if self.accept("**") { Ok(base.binary("**", &self.signed()?)) } else { Ok(base) }
    }

    /// An atom with subscripts, attributes and calls behind it.
    fn suffixed(&mut self) -> Result<Value, String> {
        let mut value = self.atom()?;
        loop {
            if self.accept("[") {
                let index = self.expression()?;
                self.expect("]")?;
                value = value.subscript(&index);
            } else if self.accept(".") {
                let Some((Token::Name(name), _)) = self.tokens.get(self.at) else {
                    return Err("a name expected".into());
                };
                self.at += 1;
                value = match value {
                    Value::Unknown(reason) => Value::Unknown(reason),
                    _ => Value::unknown(format!("`.{name}` is not supported")),
                };
            } else if self.next_is("(") {
                self.arguments()?;
                value = match value {
                    Value::Unknown(reason) => Value::Unknown(reason),
                    _ => Value::unknown("calling a value is not supported"),
                };
            } else {
                return Ok(value);
            }
        }
    }

    fn atom(&mut self) -> Result<Value, String> {
        let Some((token, _)) = self.tokens.get(self.at) else { return Err("a value expected at the end".to_owned()) };
        self.at += 1;
        match token {
            Token::Int(n) => Ok(Value::Int(*n)),
            Token::Float(x) => Ok(Value::Float(*x)),
            Token::Str(..) => {
                self.at -= 1;
                Ok(self.strings())
            }
            Token::Name(name) => self.named(name),
            Token::Op("(") => self.parenthesised(),
            Token::Op("[") => Ok(Value::List(self.list("]")?.0)),
            Token::Op("{") => self.braces(),
            token => Err(format!("{} is not understood here", shown(token))),
        }
    }

    /// Adjacent literals are one string.
    fn strings(&mut self) -> Value {
        let mut text = Value::Str(String::new());
        while let Some((Token::Str(part, formatted), _)) = self.tokens.get(self.at) {
            self.at += 1;
            let part = if *formatted { self.formatted(part) } else { Value::Str(part.clone()) };
            text = text.binary("+", &part);
        }
        text
    }

    fn formatted(&self, template: &str) -> Value {
        let mut out = String::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            let Some((name, after)) = rest.split_once('}').filter(|_| brace == "{") else {
                return Value::unknown("an f-string with an unmatched brace");
            };
            match self.names.get(name.trim()).and_then(Value::text) {
                Some(text) => out.push_str(&text),
                None => return Value::unknown(format!("`{{{name}}}` in an f-string is not an earlier name")),
            }
            rest = after;
        }
        Value::Str(out + rest)
    }

    fn named(&mut self, name: &str) -> Result<Value, String> {
        match name {
            "True" => return Ok(Value::Bool(true)),
            "False" => return Ok(Value::Bool(false)),
            "None" => return Ok(Value::None),
            "lambda" | "not" | "and" | "or" | "in" | "is" | "for" | "await" | "yield" | "if" | "else" => {
                return Err(format!("`{name}` is not supported"));
            }
            _ => {}
        }
        if self.next_is("(") && !self.names.contains_key(name) {
            let (positional, keywords) = self.arguments()?;
            return Ok(match (name, positional.as_slice()) {
                ("dict", []) => Value::dict(keywords),
                ("dict", [Value::Dict(items)]) => Value::dict([items.as_slice(), &keywords].concat()),
                ("int" | "float" | "str", [value]) if keywords.is_empty() => value.converted(name),
                ("list" | "tuple", [Value::List(items)]) => Value::List(items.clone()),
                _ => Value::unknown(format!("calls of `{name}` are not supported")),
            });
        }
        let unknown = || Value::unknown(format!("`{name}` is not an earlier name"));
        Ok(self.names.get(name).cloned().unwrap_or_else(unknown))
    }

    /// Positional values and keywords, with their parentheses. `**name` adds the entries of a dictionary.
    fn arguments(&mut self) -> Result<(Vec<Value>, Vec<Item>), String> {
        self.expect("(")?;
        let (mut positional, mut keywords) = (Vec::new(), Vec::new());
        while !self.accept(")") {
            let line = self.line();
            let keyword = match self.tokens.get(self.at..self.at + 2) {
                Some([(Token::Name(name), _), (Token::Op("="), _)]) => Some(name.clone()),
                _ => None,
            };
            if let Some(key) = keyword {
                self.at += 2;
                keywords.push(Item { key, line, value: self.expression()? });
            } else if self.accept("**") {
                keywords.extend(spread(self.expression()?)?);
            } else {
                positional.push(self.expression()?);
            }
            if !self.next_is(")") {
                self.expect(",")?;
            }
        }
        Ok((positional, keywords))
    }

    fn parenthesised(&mut self) -> Result<Value, String> {
        let (mut items, comma) = self.list(")")?;
        match items.pop() {
            Some(only) if items.is_empty() && !comma => Ok(only),
            last => Ok(Value::List(items.into_iter().chain(last).collect())),
        }
    }

    /// Values up to `end`, and whether a comma was among them.
    fn list(&mut self, end: &str) -> Result<(Vec<Value>, bool), String> {
        let (mut items, mut comma) = (Vec::new(), false);
        while !self.accept(end) {
            items.push(self.expression()?);
            if !self.next_is(end) {
                self.expect(",")?;
                comma = true;
            }
        }
        Ok((items, comma))
    }

    fn braces(&mut self) -> Result<Value, String> {
        let mut items = Vec::new();
        while !self.accept("}") {
            let line = self.line();
            if self.accept("**") {
                items.extend(spread(self.expression()?)?);
            } else {
                let Value::Str(key) = self.expression()? else { return Err("only strings can be keys".to_owned()) };
                self.expect(":")?;
                items.push(Item { key, line, value: self.expression()? });
            }
            if !self.next_is("}") {
                self.expect(",")?;
            }
        }
        Ok(Value::dict(items))
    }
}

fn spread(value: Value) -> Result<Vec<Item>, String> {
    match value {
        Value::Dict(items) => Ok(items),
        Value::Unknown(reason) => Err(reason),
        _ => Err("`**` needs a dictionary".to_owned()),
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Name(name) => format!("`{name}`"),
        Token::Int(n) => format!("`{n}`"),
        Token::Float(x) => format!("`{x}`"),
        Token::Str(..) => "a string".to_owned(),
        Token::Op(op) => format!("`{op}`"),
    }
}
