//! What spaCy takes for a URL (`spacy/lang/tokenizer_exceptions.py`, after Diego Perini): an optional scheme, a host with a top-level
//! domain or a public IPv4 address, an optional port and path.

use std::sync::LazyLock;

use regex::Regex;

/// The top-level domain is of spaCy's lower-case letters; those of classes.tsv that a domain can have.
const TOP_LEVEL: &str = r"[\p{Ll}\p{Lo}]{2,63}";
const HOST: &str =
    r"(?:(?:[A-Za-z0-9\u{a1}-\u{ffff}][A-Za-z0-9\u{a1}-\u{ffff}_-]{0,62})?[A-Za-z0-9\u{a1}-\u{ffff}]\.)+";
const ADDRESS: &str =
    r"(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){2}\.(?:[1-9]\d?|1\d\d|2[0-4]\d|25[0-4])";

static WITH_HOST: LazyLock<Regex> = LazyLock::new(|| pattern(&format!("{HOST}{TOP_LEVEL}")));
static WITH_ADDRESS: LazyLock<Regex> = LazyLock::new(|| pattern(&format!("(?P<address>{ADDRESS})")));

/// Networks that are no place to link to.
static PRIVATE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:(?:10|127)\.|169\.254\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.)").expect("the pattern is constant")
});

fn pattern(place: &str) -> Regex {
    let pattern = format!(r"^(?:[\w+\-.]{{2,}}://)?(?:\S+(?::\S*)?@)?(?:{place})(?::\d{{2,5}})?(?:[/?#]\S*)?$");
    Regex::new(&pattern).expect("the pattern is constant")
}

/// Is `text` a URL as a whole?
pub(super) fn is_url(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (mut host, mut numbers) = (false, 0);
    for dot in memchr::memchr_iter(b'.', bytes) {
        host |= may_be_top_level(&bytes[dot + 1..]);
        numbers += usize::from(bytes.get(dot + 1).is_some_and(u8::is_ascii_digit));
    }
    let is_public = |address: &str| !PRIVATE.is_match(address);
    host && WITH_HOST.is_match(text)
        || numbers >= 3 && WITH_ADDRESS.captures(text).is_some_and(|found| is_public(&found["address"]))
}

/// Cheap: do two characters of a top-level domain stand here, and what may follow one? Says yes to more than that.
fn may_be_top_level(text: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || *byte >= 0x80;
    let length = text.iter().take_while(|byte| is_letter(byte)).count();
    length >= 2 && matches!(text.get(length), None | Some(b':' | b'/' | b'?' | b'#'))
}
