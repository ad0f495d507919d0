//! Python source into statements of tokens. Indentation is only noticed, line continuation inside brackets is followed.

use super::ImportError;

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Name(String),
    Int(i64),
    Float(f64),
    /// A string and whether it is an f-string.
    Str(String, bool),
    Op(&'static str),
}

/// A logical line.
#[derive(Clone, Debug, Default)]
pub(super) struct Statement {
    /// Tokens, each with its line from 1.
    pub tokens: Vec<(Token, usize)>,
    /// Whether it belongs to a block (`if`, `def`, …).
    pub indented: bool,
}

/// Longest first, so that `**` is not two `*`.
const OPERATORS: [&str; 34] = [
    "**=", "//=", "...", "**", "//", "==", "!=", "<=", ">=", "->", "+=", "-=", "*=", "/=", ":=", "(", ")", "[", "]",
    "{", "}", ",", ":", "=", "+", "-", "*", "/", "%", ".", "<", ">", "@", ";",
];

/// The statements of a file.
///
/// # Errors
/// An unterminated string or bracket, or a character that Python does not know outside strings.
pub(super) fn statements(source: &str) -> Result<Vec<Statement>, ImportError> {
    let mut lexer = Lexer { source, at: 0, line: 1 };
    let mut out = Vec::new();
    let mut current = Statement::default();
    let mut open: Vec<usize> = Vec::new();
    loop {
        lexer.skip_blanks();
        let line = lexer.line;
        match lexer.peek() {
            None => break,
            Some('\n') => {
                lexer.advance(1);
                if open.is_empty() && !current.tokens.is_empty() {
                    out.push(std::mem::take(&mut current));
                }
            }
            Some(_) => {
                if current.tokens.is_empty() {
                    current.indented = lexer.follows_blank();
                }
                let token = lexer.token()?;
                match token {
                    Token::Op("(" | "[" | "{") => open.push(line),
                    Token::Op(")" | "]" | "}") if open.pop().is_none() => {
                        return Err(ImportError::new(line, "a bracket is closed that was not opened"));
                    }
                    _ => {}
                }
                current.tokens.push((token, line));
            }
        }
    }
    if let Some(line) = open.pop() {
        return Err(ImportError::new(line, "a bracket is not closed"));
    }
    if !current.tokens.is_empty() {
        out.push(current);
    }
    Ok(out)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Whether the character before is a blank.
    fn follows_blank(&self) -> bool {
        self.source[..self.at].ends_with([' ', '\t'])
    }

    /// Skips blanks, comments and line ends behind a backslash.
    fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(c @ (' ' | '\t' | '\r' | '\u{feff}')) => _ = self.advance(c.len_utf8()),
                Some('#') => _ = self.take_while(|c| c != '\n'),
                Some('\\') if self.rest()[1..].trim_start_matches('\r').starts_with('\n') => {
                    self.take_while(|c| c != '\n');
                    self.advance(1);
                }
                _ => return,
            }
        }
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let text = &self.rest()[..bytes];
        self.line += text.matches('\n').count();
        self.at += bytes;
        text
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        self.advance(rest.find(|c| !keep(c)).unwrap_or(rest.len()))
    }

    fn token(&mut self) -> Result<Token, ImportError> {
        let rest = self.rest();
        let c = rest.chars().next().expect("the caller saw a character");
        if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            return self.number();
        }
        let word = &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())];
        let is_prefix = word.len() <= 2 && word.chars().all(|c| "rRbBfFuU".contains(c));
        if is_prefix && rest[word.len()..].starts_with(['"', '\'']) {
            self.advance(word.len());
            return self.string(&word.to_lowercase());
        }
        if !word.is_empty() {
            self.advance(word.len());
            return Ok(Token::Name(word.to_owned()));
        }
        match OPERATORS.iter().find(|op| rest.starts_with(**op)) {
            Some(op) => {
                self.advance(op.len());
                Ok(Token::Op(op))
            }
            None => Err(ImportError::new(self.line, format!("unexpected character `{c}`"))),
        }
    }

    fn number(&mut self) -> Result<Token, ImportError> {
        let rest = self.rest();
        let mut end = 0;
        let mut exponent = false;
        for c in rest.chars() {
            let sign = exponent && (c == '+' || c == '-');
            if !(c.is_ascii_alphanumeric() || c == '_' || c == '.' || sign) {
                break;
            }
            exponent = (c == 'e' || c == 'E') && !rest.starts_with("0x");
            end += c.len_utf8();
        }
        let text = self.advance(end).replace('_', "");
        let radix = |prefix: &str, radix| {
            text.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, radix).ok()).map(Token::Int)
        };
        let decimal = || text.parse().map(Token::Int).or_else(|_| text.parse().map(Token::Float)).ok();
        let token = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2)).or_else(decimal);
        token.ok_or_else(|| ImportError::new(self.line, format!("`{text}` is not a number")))
    }

    /// A string literal at its opening quote.
    fn string(&mut self, prefix: &str) -> Result<Token, ImportError> {
        let line = self.line;
        let rest = self.rest();
        let quote = &rest[..1];
        let triple = quote.repeat(3);
        let fence = if rest.starts_with(&triple) { triple.as_str() } else { quote };
        self.advance(fence.len());
        let raw = prefix.contains('r');
        let mut text = String::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(fence) {
                self.advance(fence.len());
                return Ok(Token::Str(text, prefix.contains('f')));
            }
            let mut chars = rest.chars();
            match chars.next() {
                None => return Err(ImportError::new(line, "a string is not closed")),
                Some('\n') if fence.len() == 1 => return Err(ImportError::new(line, "a string is not closed")),
                Some('\\') => {
                    // A backslash as the last character leaves nothing that could close the string.
                    let escaped = chars.next().ok_or_else(|| ImportError::new(line, "a string is not closed"))?;
                    self.advance(1 + escaped.len_utf8());
                    push_escape(&mut text, escaped, raw);
                }
                Some(c) => {
                    self.advance(c.len_utf8());
                    text.push(c);
                }
            }
        }
    }
}

fn push_escape(text: &mut String, escaped: char, raw: bool) {
    match escaped {
        _ if raw => text.extend(['\\', escaped]),
        'n' => text.push('\n'),
        't' => text.push('\t'),
        'r' => text.push('\r'),
        '\\' | '\'' | '"' => text.push(escaped),
        '\n' => {}
        other => text.extend(['\\', other]),
    }
}
