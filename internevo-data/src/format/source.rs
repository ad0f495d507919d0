//! Source files as Markdown: a heading with the path, then the file in a fenced block. Code and prose about code then look alike.

/// `text` between fences that it does not contain, with the language on the opening one; no line end at the end.
pub fn fenced(language: &str, text: &str) -> String {
    let fence = "`".repeat(3.max(longest_backticks(text) + 1));
    let line_end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    format!("{fence}{language}\n{text}{line_end}{fence}")
}

/// A source file as a document's text.
pub fn code_markdown(path: &str, language: &str, code: &str) -> String {
    format!("# {path}\n\n{}\n", fenced(language, code))
}

/// The code of a text that [`code_markdown`] made; any other text as it is.
pub fn code_body(text: &str) -> &str {
    let body = || {
        let rest = text.strip_prefix("# ")?.split_once("\n\n")?.1;
        let fence = &rest[..rest.bytes().take_while(|byte| *byte == b'`').count()];
        let body = rest.split_once('\n')?.1.strip_suffix('\n')?.strip_suffix(fence)?;
        (fence.len() >= 3).then_some(body)
    };
    body().unwrap_or(text)
}

fn longest_backticks(text: &str) -> usize {
    let (mut longest, mut run) = (0, 0);
    for byte in text.bytes() {
        run = if byte == b'`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_comes_back_out_of_its_markdown() {
        for code in ["fn main() {}\n", "let a = \"````\";\n", "\n# x\n\n```\ny\n```\n"] {
            let text = code_markdown("src/a.rs", "rust", code);
            assert_eq!(code_body(&text), code, "{text}");
        }
        assert_eq!(code_markdown("a.py", "python", "x"), "# a.py\n\n```python\nx\n```\n");
        assert_eq!(code_body("print()"), "print()");
    }
}
