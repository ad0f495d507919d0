//! Numbers for people: `1.2 M`, `3.4 MB`, `2 min 05 s`, and aligned tables.

/// A count with a decimal prefix: `950`, `12.3 k`, `4.56 M`.
pub fn count(value: u64) -> String {
    scaled(value as f64, 1000.0, &["", " k", " M", " G", " T", " P"])
}

/// A size with a decimal prefix: `950 B`, `12.3 kB`.
pub fn bytes(value: u64) -> String {
    scaled(value as f64, 1000.0, &[" B", " kB", " MB", " GB", " TB", " PB"])
}

fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // 999.5 would round to "1000".
    while value >= base - 0.5 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 99.95 { 0 } else { 1 + usize::from(value < 9.995) };
    format!("{value:.decimals$}{}", units[unit])
}

/// Seconds as `4.2 s`, `2 min 05 s` or `3 h 07 min`.
pub fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
    }
}

/// Rows with aligned columns, two spaces apart; the last column is not padded.
pub fn table<R: AsRef<[String]>>(rows: &[R]) -> String {
    let columns = rows.iter().map(|r| r.as_ref().len()).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.as_ref().get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.as_ref();
        for (c, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if c + 1 < cells.len() {
                let pad = widths[c] - cell.chars().count() + 2;
                out.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_never_show_1000() {
        let shown: Vec<String> = [0, 999, 1000, 12_345, 999_950, 5_048_576].map(count).to_vec();
        assert_eq!(shown, ["0", "999", "1.00 k", "12.3 k", "1.00 M", "5.05 M"]);
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(duration(59.99), "1 min 00 s");
        assert_eq!(duration(125.0), "2 min 05 s");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }
}
