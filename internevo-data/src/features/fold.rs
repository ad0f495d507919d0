//! Characters as a reader takes them: case and width do not matter.

/// `c` in lower case and half width: `Ａ` and `A` are `a`, the ideographic space is a space. Where the lower case has several
/// characters, the first.
pub(crate) fn fold(c: char) -> char {
    let half = match c {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(c) - 0xFEE0).unwrap_or(c),
        '\u{3000}' => ' ',
        _ => c,
    };
    if half.is_ascii() { half.to_ascii_lowercase() } else { half.to_lowercase().next().unwrap_or(half) }
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn case_and_width_are_folded_and_nothing_else() {
        let folded: String = "ＣＡＳino　É赌！İ".chars().map(fold).collect();
        assert_eq!(folded, "casino é赌!i");
    }
}
