//! Which numbers are whose: ranges and checksums.

use super::PersonalKind;

/// What a run of digits with its separators is. `text` begins with a digit, `+` or `(`, ends with a digit (or `X`), and stands
/// alone; its groups are digits between separators.
pub fn kind_of(text: &str) -> Option<PersonalKind> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
    let groups: Vec<usize> =
        text.split(|c: char| !c.is_ascii_digit()).map(str::len).filter(|length| *length > 0).collect();
    if is_resident_number(text) || is_social_security_number(text, &digits) {
        return Some(PersonalKind::IdNumber);
    }
    if is_phone(text, &digits, &groups) {
        return Some(PersonalKind::Phone);
    }
    is_card(text, &digits, &groups).then_some(PersonalKind::Card)
}

/// GB 11643: region, date of birth, sequence, ISO 7064 MOD 11-2.
fn is_resident_number(text: &str) -> bool {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    const CHECKS: &[u8; 11] = b"10X98765432";
    let bytes = text.as_bytes();
    if bytes.len() != 18 || !bytes[..17].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap_or(0);
    let sum: u32 = WEIGHTS.iter().zip(bytes).map(|(weight, byte)| weight * u32::from(byte - b'0')).sum();
    let born = (1900..=2100).contains(&number(6..10))
        && (1..=12).contains(&number(10..12))
        && (1..=31).contains(&number(12..14));
    // Regions begin with 11 (Beijing) to 91.
    born && (11..=91).contains(&number(0..2)) && CHECKS[sum as usize % 11] == bytes[17].to_ascii_uppercase()
}

/// `AAA-GG-SSSS`; areas 000, 666 and 900 to 999 and zeros are never assigned.
fn is_social_security_number(text: &str, digits: &[u8]) -> bool {
    let shape = text.len() == 11 && text.as_bytes()[3] == b'-' && text.as_bytes()[6] == b'-' && digits.len() == 9;
    let all_zero = |range: std::ops::Range<usize>| digits[range].iter().all(|digit| *digit == 0);
    shape && !all_zero(0..3) && digits[..3] != [6, 6, 6] && digits[0] != 9 && !all_zero(3..5) && !all_zero(5..9)
}

fn is_phone(text: &str, digits: &[u8], groups: &[usize]) -> bool {
    if text.contains('.') && text.contains(' ') {
        return false; // the end of a sentence, or an amount
    }
    if text.starts_with('+') {
        return (8..=15).contains(&digits.len()) && digits[0] != 0;
    }
    let national = match digits {
        [8, 6, national @ ..] if national.len() == 11 => national,
        _ => digits,
    };
    // Chinese mobile numbers: 1, 3 to 9, whole or in groups of 3, 4 and 4.
    let mobile = national.len() == 11 && national[0] == 1 && national[1] >= 3;
    let tail_is = |wanted: &[usize]| groups.ends_with(wanted);
    if mobile && (tail_is(&[11]) || tail_is(&[3, 4, 4]) || tail_is(&[13])) {
        return true;
    }
    // Chinese area codes: 0, then 10, 2x or three digits; seven or eight digits.
    let area = digits.first() == Some(&0) && matches!(groups, [3, 8] | [4, 7] | [4, 8]) && text.contains(['-', ')']);
    area && digits[1] != 0 || is_north_american(digits, groups)
}

/// Area code and exchange begin with 2 to 9; the groups are 3, 3 and 4, after a 1 or not.
fn is_north_american(digits: &[u8], groups: &[usize]) -> bool {
    let national = match groups {
        [1, 3, 3, 4] if digits[0] == 1 => &digits[1..],
        [3, 3, 4] => digits,
        _ => return false,
    };
    national[0] >= 2 && national[3] >= 2
}

/// Issuers that begin with 3 to 6, groups as on the cards, and Luhn's checksum.
fn is_card(text: &str, digits: &[u8], groups: &[usize]) -> bool {
    let grouped = matches!(groups, [13..=19] | [4, 4, 4, 4] | [4, 4, 4, 4, 3] | [4, 6, 5] | [4, 6, 4] | [6, 13]);
    let different = digits.windows(2).any(|pair| pair[0] != pair[1]);
    grouped && !text.contains(['.', '(', ')']) && (3..=6).contains(&digits[0]) && different && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let double = |digit: u8| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 =
        digits.iter().rev().enumerate().map(|(at, d)| u32::from(if at % 2 == 1 { double(*d) } else { *d })).sum();
    sum.is_multiple_of(10)
}

/// ISO 13616: two letters, two digits, up to 30 letters and digits; 1 modulo 97 once the head is moved to the end. `text` has no
/// lower case and may have spaces.
pub fn is_iban(text: &str) -> bool {
    let code: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    if !(15..=34).contains(&code.len())
        || !code[..2].iter().all(u8::is_ascii_uppercase)
        || !code[2..4].iter().all(u8::is_ascii_digit)
    {
        return false;
    }
    let value = |byte: u8| if byte.is_ascii_digit() { u32::from(byte - b'0') } else { u32::from(byte - b'A') + 10 };
    let remainder = code[4..].iter().chain(&code[..4]).fold(0, |rest, byte| {
        let value = value(*byte);
        (rest * if value < 10 { 10 } else { 100 } + value) % 97
    });
    remainder == 1
}
