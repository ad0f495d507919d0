//! What spaCy takes for a URL (`spacy/lang/tokenizer_exceptions.py`, after Diego Perini): an optional scheme, a host with a top-level
//! domain or a public IPv4 address, an optional port and path.

use std::sync::LazyLock;

use regex::Regex;

/// The top-level domain is of spaCy's lower-case letters; those of classes.tsv that a domain can have.
const TOP_LEVEL: &str = r"[\p{Ll}\p{Lo}]{2,63}";
const HOST: &str = r"(?:(?:[A-Za-z0-9\u{a1}-\u{ffff}][A-Za-z0-9\u{a1}-\u{ffff}_-]{0,62})?[A-Za-z0-9\u{a1}-\u{ffff}]\.)+";
const ADDRESS: &str = r"(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){2}\.(?:[1-9]\d?|1\d\d|2[0-4]\d|25[0-4])";

static URL: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = format!(
        r"^(?:[\w+\-.]{{2,}}://)?(?:\S+(?::\S*)?@)?(?:(?P<address>{ADDRESS})|{HOST}{TOP_LEVEL})(?::\d{{2,5}})?(?:[/?#]\S*)?$"
    );
    Regex::new(&pattern).expect("the pattern is constant")
});

/// Networks that are no place to link to.
static PRIVATE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:(?:10|127)\.|169\.254\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.)").expect("the pattern is constant")
});

/// Is `text` a URL as a whole?
pub(super) fn is_url(text: &str) -> bool {
    // Every URL has a dot inside.
    let Some(dot) = text.find('.') else { return false };
    if dot + 1 == text.len() {
        return false;
    }
    URL.captures(text).is_some_and(|found| {
        found.name("address").is_none_or(|address| !PRIVATE.is_match(address.as_str()))
    })
}
