//! One pass over a text that finds personal data. It stops at `@`, at `:` and at digits, and looks around from there.

use std::{net::Ipv4Addr, net::Ipv6Addr, ops::Range};

use super::{
    PersonalKind,
    numbers::{is_iban, kind_of},
};

/// Personal data in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: PersonalKind,
    /// Where it is.
    pub bytes: Range<usize>,
}

/// Longest run of a number with its separators, bytes; an IBAN in groups has 42.
const MAX_NUMBER: usize = 48;

/// Personal data of all kinds in a text, in order, none within another.
pub fn find(text: &str) -> impl Iterator<Item = Finding> + '_ {
    let bytes = text.as_bytes();
    // Up to `done` everything is found.
    let (mut at, mut done) = (0, 0);
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let found = match bytes[at] {
                b'@' => email(bytes, done, at).map(|range| (PersonalKind::Email, range)),
                b':' => ipv6(text, done, at).map(|range| (PersonalKind::Ip, range)),
                b'0'..=b'9' => number(text, done, at),
                _ => None,
            };
            match found {
                Some((kind, range)) => {
                    (at, done) = (range.end, range.end);
                    return Some(Finding { kind, bytes: range });
                }
                // Other digits of a run are no better than its first.
                None if bytes[at].is_ascii_digit() => at += run(&bytes[at..], |byte| byte.is_ascii_digit()),
                None => at += 1,
            }
        }
        None
    })
}

/// Length of the run of bytes that `belongs` accepts.
fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !belongs(*byte)).unwrap_or(bytes.len())
}

/// Length of such a run that ends at the end of `bytes`.
fn run_back(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().rev().position(|byte| !belongs(*byte)).unwrap_or(bytes.len())
}

/// Would this byte make a word of a number beside it? Other scripts do not: `电话13812345678`.
fn touches(byte: Option<&u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// The address around the `@` at `at`.
fn email(bytes: &[u8], done: usize, at: usize) -> Option<Range<usize>> {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte);
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    let name = run_back(&bytes[done..at], in_name);
    let start = at - name + run(&bytes[at - name..at], |byte| b".-+%".contains(&byte));
    let host = &bytes[at + 1..at + 1 + run(&bytes[at + 1..], in_host)];
    let host = &host[..host.len() - run_back(host, |byte| b".-".contains(&byte))];
    let top = run_back(host, |byte| byte.is_ascii_alphabetic());
    let end = at + 1 + host.len();
    let labels = host.split(|byte| *byte == b'.').all(|label| !label.is_empty() && label[0] != b'-');
    let dotted = top >= 2 && host.len() > top + 1 && host[host.len() - top - 1] == b'.';
    // `git@host:path` and `a@b@c` are no addresses.
    let is_path = bytes.get(end) == Some(&b':') && bytes.get(end + 1).is_some_and(u8::is_ascii_alphanumeric);
    let alone = !is_path && !matches!(bytes.get(end), Some(b'@' | b'_')) && (start == 0 || bytes[start - 1] != b'@');
    (start < at && labels && dotted && alone).then_some(start..end)
}

/// The address around the `:` at `at`: global unicast (2000::/3) alone is somebody's, and is no path of a program.
fn ipv6(text: &str, done: usize, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let belongs = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
    let start = at - run_back(&bytes[done..at], belongs);
    let end = at + run(&bytes[at..], belongs);
    let end = end - run_back(&bytes[at..end], |byte| byte == b':');
    if end <= at
        || end - start < 6
        || touches(start.checked_sub(1).map(|before| &bytes[before]))
        || touches(bytes.get(end))
    {
        return None;
    }
    let address: Ipv6Addr = text[start..end].parse().ok()?;
    let [first, second, ..] = address.segments();
    let documentation = first == 0x2001 && second == 0x0DB8;
    (first >> 13 == 1 && !documentation).then_some(start..end)
}

/// What begins with the digit at `at`, a `+` or `(` before it included, or with two letters before it.
fn number(text: &str, done: usize, at: usize) -> Option<(PersonalKind, Range<usize>)> {
    let bytes = text.as_bytes();
    if let Some(range) = iban(text, done, at) {
        return Some((PersonalKind::Iban, range));
    }
    let before = |back: usize| at.checked_sub(back).filter(|place| *place >= done).map(|place| &bytes[place]);
    // `(030) 901820`, `+(49) 30`: the bracket is part of the number if it holds an area code.
    let digits = run(&bytes[at..], |byte| byte.is_ascii_digit());
    let is_area = digits <= 5 && bytes.get(at + digits) == Some(&b')');
    let start = match (before(1), before(2)) {
        (Some(b'('), Some(b'+')) if is_area => at - 2,
        (Some(b'('), _) if is_area => at - 1,
        (Some(b'+'), _) => at - 1,
        (Some(b'.' | b'-'), Some(digit)) if digit.is_ascii_digit() => return None,
        (byte, _) if touches(byte) => return None,
        _ => at,
    };
    if let Some(end) = ipv4(text, at) {
        return Some((PersonalKind::Ip, at..end));
    }
    candidates(bytes, start).into_iter().find_map(|end| Some((kind_of(&text[start..end])?, start..end)))
}

/// Ends of runs of digits with single separators from `start` on, longest first; each stands alone.
fn candidates(bytes: &[u8], start: usize) -> Vec<usize> {
    let limit = bytes.len().min(start + MAX_NUMBER);
    let (mut at, mut ends) = (start, Vec::new());
    while at < limit {
        // `) ` and `+(` are two separators in a row.
        at += run(&bytes[at..limit], |byte| b" -.()+".contains(&byte)).min(2);
        let digits = run(&bytes[at..limit], |byte| byte.is_ascii_digit());
        if digits == 0 {
            break;
        }
        at += digits;
        let check = usize::from(matches!(bytes.get(at), Some(b'X' | b'x')) && digits == 17);
        let follows = bytes.get(at + check);
        let decimal =
            matches!(follows, Some(b'.' | b'-' | b',')) && bytes.get(at + check + 1).is_some_and(u8::is_ascii_digit);
        if !touches(follows) && !decimal {
            ends.push(at + check);
        }
        if check > 0 {
            break;
        }
    }
    ends.reverse();
    ends
}

/// The end of the public address that begins at `at`.
fn ipv4(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let length = run(&bytes[at..], |byte| byte.is_ascii_digit() || byte == b'.');
    let length = length - run_back(&bytes[at..at + length], |byte| byte == b'.');
    let address: Ipv4Addr = text[at..at + length].parse().ok()?;
    let octets = address.octets();
    let local = address.is_private() || address.is_loopback() || address.is_link_local() || address.is_documentation();
    let public = !local && octets[0] != 0 && octets[0] < 224;
    let is_version = octets.iter().all(|octet| *octet < 32) || {
        let before = text[..at].trim_end_matches([' ', ':', '=', '"', '-']);
        let word = &before.as_bytes()[before.len() - run_back(before.as_bytes(), |byte| byte.is_ascii_alphabetic())..];
        [&b"v"[..], b"ver", b"version", b"release"].iter().any(|own| own.eq_ignore_ascii_case(word))
    };
    (public && !is_version && !touches(bytes.get(at + length))).then_some(at + length)
}

/// The account number whose country is before the digit at `at`.
fn iban(text: &str, done: usize, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let start = at.checked_sub(2).filter(|start| *start >= done)?;
    let country = bytes[start..at].iter().all(u8::is_ascii_uppercase);
    if !country || touches(start.checked_sub(1).map(|before| &bytes[before])) {
        return None;
    }
    let limit = bytes.len().min(start + MAX_NUMBER);
    let belongs = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase() || byte == b' ';
    let mut end = start + run(&bytes[start..limit], belongs);
    // A word after it is not part of it.
    while end > at {
        end -= run_back(&bytes[start..end], |byte| byte == b' ');
        if !touches(bytes.get(end)) && is_iban(&text[start..end]) {
            return Some(start..end);
        }
        end -= run_back(&bytes[start..end], |byte| byte != b' ');
    }
    None
}
