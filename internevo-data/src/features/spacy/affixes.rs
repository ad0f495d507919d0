//! Prefixes, suffixes and infixes of spaCy's `en` and `xx`: what its regular expressions match, as scans over characters.

use std::sync::LazyLock;

use super::{
    super::classes::{Class, Classes},
    Dialect,
};

/// Signs of several characters that are cut off in front, and behind a digit.
const DOLLARS: [&str; 3] = ["US$", "C$", "A$"];

/// Units that are cut off behind a digit (spaCy's `char_classes.UNITS`).
const UNITS: &str = "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh \
    mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг м/с км/ч \
    кПа Па мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тбكم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ كم غرام جرام جم كغ ملغ كوب اكواب";

/// The units in order of their bytes.
static UNIT_SET: LazyLock<Vec<&[u8]>> = LazyLock::new(|| {
    let mut units: Vec<&[u8]> = UNITS.split(' ').map(str::as_bytes).collect();
    units.sort_unstable();
    units
});

/// Longest unit, bytes.
const LONGEST_UNIT: usize = 12;

/// Bytes of the prefix of `text`; 0 for none.
pub(super) fn prefix_length(text: &str) -> usize {
    let Some(first) = text.chars().next() else { return 0 };
    if Classes::get().of(first).has(Class::PREFIX) {
        return first.len_utf8();
    }
    match first {
        '+' if !text.as_bytes().get(1).is_some_and(u8::is_ascii_digit) => 1,
        '.' => match dots(text) {
            1 => 0,
            run => run,
        },
        'U' | 'C' | 'A' => DOLLARS.into_iter().find(|sign| text.starts_with(sign)).map_or(0, str::len),
        _ => 0,
    }
}

/// Length of the run of `.` that `text` begins with.
fn dots(text: &str) -> usize {
    text.len() - text.trim_start_matches('.').len()
}

/// Bytes of the suffix of `text`, the longest of those that fit; 0 for none.
pub(super) fn suffix_length(text: &str) -> usize {
    let classes = Classes::get();
    let mut backwards = text.chars().rev();
    let Some(last) = backwards.next() else { return 0 };
    let before = backwards.next();
    let class = classes.of(last);
    if last == '.' {
        return period_length(text, before, backwards.next());
    }
    let digits_before = |length: usize| text[..text.len() - length].ends_with(|c: char| c.is_ascii_digit());
    let after_digit = |suffix: &str| text.ends_with(suffix) && digits_before(suffix.len());
    match last {
        '…' if before == Some('…') => return 2 * last.len_utf8(),
        's' | 'S' if matches!(before, Some('\'' | '’')) => return 1 + before.map_or(0, char::len_utf8),
        '$' => {
            if let Some(sign) = DOLLARS.into_iter().find(|sign| after_digit(sign)) {
                return sign.len();
            }
        }
        '+' if digits_before(1) => return 1,
        _ => {}
    }
    if class.has(Class::SUFFIX) || class.has(Class::CURRENCY) && digits_before(last.len_utf8()) {
        return last.len_utf8();
    }
    unit_length(text)
}

/// Of a text that ends with `.`.
fn period_length(text: &str, before: Option<char>, second: Option<char>) -> usize {
    let classes = Classes::get();
    let Some(before) = before else { return 0 };
    if before == '.' {
        return text.len() - text.trim_end_matches('.').len();
    }
    let is_upper = |c: char| classes.of(c).has(Class::UPPER);
    let after_degree = second == Some('°') && matches!(before, 'F' | 'f' | 'C' | 'c' | 'K' | 'k');
    let splits = classes.of(before).has(Class::BEFORE_PERIOD)
        || after_degree
        || is_upper(before) && second.is_some_and(is_upper);
    usize::from(splits)
}

/// The unit behind a digit at the end of `text`.
fn unit_length(text: &str) -> usize {
    let near = &text.as_bytes()[text.len().saturating_sub(LONGEST_UNIT + 1)..];
    let Some(digit) = near.iter().rposition(u8::is_ascii_digit) else { return 0 };
    let unit = &near[digit + 1..];
    if UNIT_SET.binary_search(&unit).is_ok() { unit.len() } else { 0 }
}

/// The infixes of `text` in order, as bytes from and to.
pub(super) fn infixes(text: &str, dialect: Dialect) -> impl Iterator<Item = (usize, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let mut at = from;
        while let Some(c) = text[at..].chars().next() {
            let is_plain = c.is_ascii_alphanumeric();
            let length = if is_plain { 0 } else { infix_length(text, at, c, dialect) };
            if length > 0 {
                from = at + length;
                return Some((at, from));
            }
            at += c.len_utf8();
        }
        None
    })
}

/// Bytes of the infix that begins at `at` with `c`; 0 for none.
fn infix_length(text: &str, at: usize, c: char, dialect: Dialect) -> usize {
    let classes = Classes::get();
    let rest = &text[at..];
    if c == '.' && rest.starts_with("..") {
        return dots(rest);
    }
    if c == '…' || classes.of(c).has(Class::ICON) {
        return c.len_utf8();
    }
    let Some(before) = text[..at].chars().next_back() else { return 0 };
    let next = |length: usize| rest[length..].chars().next().map_or(Class::default(), |c| classes.of(c));
    let (class, after) = (classes.of(before), next(c.len_utf8()));
    let (is_alpha, is_digit) = (class.has(Class::ALPHA), before.is_ascii_digit());
    let digit_or_minus = |c: u8| c.is_ascii_digit() || c == b'-';
    let between = match c {
        '+' | '-' | '*' | '^' if is_digit && rest.as_bytes().get(1).copied().is_some_and(digit_or_minus) => return 1,
        '.' => class.has_any(Class::LOWER.or(Class::QUOTE)) && after.has_any(Class::UPPER.or(Class::QUOTE)),
        ',' => is_alpha && after.has(Class::ALPHA),
        ':' | '<' | '>' | '=' | '/' => (is_alpha || is_digit) && after.has(Class::ALPHA),
        '-' | '–' | '—' | '~' if is_alpha || is_digit && dialect == Dialect::English => {
            let is_hyphen = |hyphen: &&str| rest.starts_with(hyphen) && next(hyphen.len()).has(Class::ALPHA);
            return ["-", "–", "—", "--", "---", "——", "~"].iter().find(|h| is_hyphen(h)).map_or(0, |h| h.len());
        }
        _ => false,
    };
    if between { c.len_utf8() } else { 0 }
}
