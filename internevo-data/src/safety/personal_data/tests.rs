//! What is personal data and what only looks like it.

use proptest::prelude::*;

use super::*;
use crate::{
    Document,
    testing::{assert_drops, assert_edits, assert_keeps, assert_sound, judge_document},
};

fn found(text: &str) -> Vec<(PersonalKind, &str)> {
    find(text).map(|finding| (finding.kind, &text[finding.bytes])).collect()
}

fn assert_found(kind: PersonalKind, cases: &[&str]) {
    for case in cases {
        for text in [(*case).to_owned(), format!("({case})"), format!("see {case}, and"), format!("号码{case}。")] {
            assert_eq!(found(&text), [(kind, *case)], "{text:?}");
        }
    }
}

fn assert_nothing(cases: &[&str]) {
    for case in cases {
        assert_eq!(found(case), [], "{case:?}");
    }
}

#[test]
fn email_addresses() {
    assert_found(PersonalKind::Email, &["a.b+c@mail.example.org", "x@y.io", "first_last%x@sub-domain.co.uk"]);
    assert_eq!(found("mailto:me@host.de."), [(PersonalKind::Email, "me@host.de")]);
    assert_nothing(&[
        "@handle",
        "user@localhost",
        "a@b@c.de",
        "git@github.com:x/y",
        "a @ b.com",
        "x@.com",
        "x@y.c0m",
        "@",
    ]);
}

#[test]
fn public_ip_addresses_and_no_versions() {
    assert_found(
        PersonalKind::Ip,
        &["93.184.216.34", "8.8.44.4", "2606:2800:220:1:248:1893:25c8:1946", "2a00:1450::1"],
    );
    assert_eq!(found("at 8.8.44.4:80."), [(PersonalKind::Ip, "8.8.44.4")]);
    assert_nothing(&[
        "1.2.3.4",
        "v93.184.216.34",
        "version 93.184.216.34",
        "93.184.216.256",
        "1.93.184.216.34",
        "93.184.216",
    ]);
    assert_nothing(&["192.168.0.1", "127.0.0.1", "10.0.44.1", "192.0.2.77", "239.1.2.99", "255.255.255.255"]);
    assert_nothing(&[
        "std::fs::read",
        "a::b",
        "fe80::1",
        "2001:db8::1",
        "12:30:45",
        "::1",
        "face::b00c",
        "C::2b::3",
        "2:3",
    ]);
}

#[test]
fn telephone_numbers() {
    assert_found(PersonalKind::Phone, &["+49 30 901820", "+1 (415) 555-2671", "+8613812345678", "+44 20 7946 0958"]);
    assert_found(
        PersonalKind::Phone,
        &["13812345678", "138-1234-5678", "138 1234 5678", "86 13812345678", "010-62345678"],
    );
    assert_found(PersonalKind::Phone, &["415-555-2671", "415.555.2671", "1-415-555-2671"]);
    assert_eq!(found("tel (415) 555-2671"), [(PersonalKind::Phone, "(415) 555-2671")]);
    assert_nothing(&[
        "12345678901",
        "20240101123",
        "115-555-2671",
        "415-055-2671",
        "2024-11-24",
        "1.234.567.890",
        "+12",
        "C++ 11",
    ]);
    assert_nothing(&[
        "x13812345678",
        "13812345678x",
        "138123456789",
        "3.13812345678",
        "in 1999 2000 2001",
        "100-200-3000",
    ]);
}

#[test]
fn identity_numbers_with_their_checks() {
    assert_found(PersonalKind::IdNumber, &["11010519491231002X"]);
    assert_found(PersonalKind::IdNumber, &["123-45-6789", "078-05-1120"]);
    assert_nothing(&[
        "110105194912310021",
        "11010519491331002X",
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "123-00-4567",
    ]);
    assert_nothing(&["123-45-0000", "123-45-67890", "1123-45-6789"]);
}

#[test]
fn card_and_account_numbers_with_their_checks() {
    assert_found(
        PersonalKind::Card,
        &["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "6011111111111117"],
    );
    assert_nothing(&[
        "4111 1111 1111 1112",
        "1234 5678 9012 3452",
        "0000 0000 0000 0000",
        "41111111 11111111",
        "4444444444444444",
    ]);
    assert_found(PersonalKind::Iban, &["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32"]);
    assert_eq!(found("IBAN DE89 3704 0044 0532 0130 00 BIC"), [(PersonalKind::Iban, "DE89 3704 0044 0532 0130 00")]);
    assert_nothing(&["DE88370400440532013000", "ABDE89370400440532013000", "ISO 9001 AND 27001"]);
}

#[test]
fn a_text_keeps_everything_but_what_is_masked() {
    let text =
        "Write to me@host.de or call +49 30 901820; the server is 93.184.216.34, build 1.2.3.4. 电话13812345678。";
    assert_eq!(
        assert_edits::<PersonalData>("", text),
        "Write to <EMAIL> or call <PHONE>; the server is <IP>, build 1.2.3.4. 电话<PHONE>。"
    );
    assert_eq!(
        assert_edits::<PersonalData>("mask = 'fake'", text),
        "Write to email@example.com or call +00 00 000000; the server is 192.0.2.1, build 1.2.3.4. 电话00000000000。"
    );
    assert_eq!(assert_edits::<PersonalData>("kinds = ['email']", "a@b.de 8.8.44.4"), "<EMAIL> 8.8.44.4");
    assert_keeps::<PersonalData>("mask = 'none'", text);
    let mut code = Document::new("a", text);
    code.meta.insert("type".into(), "code".into());
    assert_eq!(judge_document::<PersonalData>("", &code), Verdict::Keep);
}

#[test]
fn a_list_of_addresses_goes_and_authors_in_prose_are_masked() {
    let list: String = (0..20).map(|i| format!("person{i}@mail.example.org\n")).collect();
    assert_drops::<PersonalData>("", &list, "personal_data");
    let text = list + &"This paragraph thanks everyone who sent a patch for the release. ".repeat(60);
    assert!(!assert_edits::<PersonalData>("", &text).contains('@'));
    assert_sound::<PersonalData>("min_hits = 1");
}

proptest! {
    #[test]
    fn any_text_is_scanned_without_a_panic_and_a_mask_is_not_found_again(text in "([0-9+() .:@-]|[a-fxX:_]|DE|赌|\\PC){0,60}") {
        let edited = match judge_document::<PersonalData>("min_hits = 1000", &Document::new("a", text.as_str())) {
            Verdict::Edit(edit) => edit.text,
            _ => text.clone(),
        };
        let found: Vec<Finding> = find(&text).collect();
        prop_assert!(found.windows(2).all(|pair| pair[0].bytes.end <= pair[1].bytes.start));
        prop_assert!(found.is_empty() == (edited == text));
    }
}
