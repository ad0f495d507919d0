//! Python source → logical lines of tokens. Only what configuration files use: no decorators, no operators on bits.

/// One token and the line it starts on.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Line in the file, from 1.
    pub line: usize,
    /// What it is.
    pub kind: TokenKind,
}

/// Kinds of token.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenKind {
    /// Identifier or keyword.
    Name(String),
    /// Integer literal.
    Int(i64),
    /// Floating-point literal.
    Float(f64),
    /// String literal, escapes resolved.
    Str(String),
    /// f-string, still with its braces.
    Format(String),
    /// `**`, `//`, or one character.
    Op(&'static str),
}

/// A statement: its tokens, and whether it starts with white space (the inside of a block).
#[derive(Clone, Debug)]
pub struct Statement {
    /// Line of the first token.
    pub line: usize,
    /// Part of a block.
    pub indented: bool,
    /// Its tokens; a character that is no token ends the statement with an error instead.
    pub tokens: Result<Vec<Token>, String>,
}

const OPERATORS: [&str; 22] =
    ["**", "//", "==", "!=", "<=", ">=", "=", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", ",", ":", ".", "<"];

/// Splits a file into statements. Newlines inside brackets do not end one.
pub fn statements(source: &str) -> Vec<Statement> {
    let mut lexer = Lexer { rest: source, line: 1 };
    let mut out = Vec::new();
    while let Some(statement) = lexer.statement() {
        out.push(statement);
    }
    out
}

/// Tokens of one expression, for the inside of an f-string.
///
/// # Errors
/// Says which character is no token.
pub fn expression(source: &str, line: usize) -> Result<Vec<Token>, String> {
    Lexer { rest: source, line }.statement().map_or(Ok(Vec::new()), |s| s.tokens)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl Lexer<'_> {
    fn statement(&mut self) -> Option<Statement> {
        let mut indented = self.skip_blank();
        while self.rest.starts_with('\n') {
            self.newline();
            indented = self.skip_blank();
        }
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        let tokens = self.tokens();
        if tokens.is_err() {
            self.rest = &self.rest[self.rest.find('\n').unwrap_or(self.rest.len())..];
        }
        Some(Statement { line, indented, tokens })
    }

    fn tokens(&mut self) -> Result<Vec<Token>, String> {
        let (mut tokens, mut depth) = (Vec::new(), 0usize);
        loop {
            self.skip_blank();
            if self.rest.is_empty() {
                return Ok(tokens);
            }
            if self.rest.starts_with('\n') || self.rest.starts_with(';') {
                if depth == 0 {
                    self.newline();
                    return Ok(tokens);
                }
                self.newline();
                continue;
            }
            let (line, kind) = (self.line, self.token()?);
            match &kind {
                TokenKind::Op("(" | "[" | "{") => depth += 1,
                TokenKind::Op(")" | "]" | "}") => depth = depth.saturating_sub(1),
                _ => {}
            }
            tokens.push(Token { line, kind });
        }
    }

    fn newline(&mut self) {
        self.line += usize::from(self.rest.starts_with('\n'));
        self.rest = &self.rest[1..];
    }

    /// Skips spaces, comments and continued lines; tells whether there was a space.
    fn skip_blank(&mut self) -> bool {
        let before = self.rest.len();
        loop {
            let trimmed = self.rest.trim_start_matches([' ', '\t', '\r']);
            self.rest = trimmed;
            if trimmed.starts_with('#') {
                self.rest = &trimmed[trimmed.find('\n').unwrap_or(trimmed.len())..];
            } else if let Some(rest) = trimmed.strip_prefix("\\\n") {
                (self.rest, self.line) = (rest, self.line + 1);
            } else {
                return self.rest.len() != before;
            }
        }
    }

    fn token(&mut self) -> Result<TokenKind, String> {
        let first = self.rest.chars().next().unwrap_or('\0');
        if first.is_ascii_digit() || (first == '.' && self.rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            return self.number();
        }
        if first == '"' || first == '\'' {
            return self.string().map(TokenKind::Str);
        }
        if first.is_alphabetic() || first == '_' {
            let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
            let (name, rest) = self.rest.split_at(end);
            self.rest = rest;
            return match (name, rest.starts_with(['"', '\''])) {
                ("f" | "F", true) => self.string().map(TokenKind::Format),
                ("r" | "R" | "b" | "B" | "u" | "U", true) => self.string().map(TokenKind::Str),
                _ => Ok(TokenKind::Name(name.to_owned())),
            };
        }
        for operator in OPERATORS {
            if let Some(rest) = self.rest.strip_prefix(operator) {
                self.rest = rest;
                return Ok(TokenKind::Op(operator));
            }
        }
        Err(format!("`{first}` is not understood here"))
    }

    fn number(&mut self) -> Result<TokenKind, String> {
        let bytes = self.rest.as_bytes();
        let mut end = 0;
        while end < bytes.len() {
            let exponent_sign = matches!(bytes[end], b'+' | b'-') && matches!(bytes[end - 1], b'e' | b'E');
            if !bytes[end].is_ascii_digit() && !matches!(bytes[end], b'.' | b'_' | b'e' | b'E') && !exponent_sign {
                break;
            }
            end += 1;
        }
        let text = self.rest[..end].replace('_', "");
        self.rest = &self.rest[end..];
        if let Ok(int) = text.parse() {
            return Ok(TokenKind::Int(int));
        }
        text.parse().map(TokenKind::Float).map_err(|_| format!("`{text}` is not a number"))
    }

    fn string(&mut self) -> Result<String, String> {
        let quote = &self.rest[..1];
        let triple = quote.repeat(3);
        let end_mark = if self.rest.starts_with(&triple) { triple } else { quote.to_owned() };
        let body = &self.rest[end_mark.len()..];
        let mut out = String::new();
        let mut chars = body.char_indices();
        while let Some((at, c)) = chars.next() {
            if body[at..].starts_with(&end_mark) {
                self.line += body[..at].matches('\n').count();
                self.rest = &body[at + end_mark.len()..];
                return Ok(out);
            }
            match c {
                '\n' if end_mark.len() == 1 => break,
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('\n') => {}
                    Some(c) => out.push(c),
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err("a string has no end".to_owned())
    }
}
