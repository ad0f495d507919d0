//! Addresses in text and what is blocked about them.

use std::collections::HashSet;

/// The addresses (`http://…`, `https://…`) of a text, without the punctuation that follows them.
pub fn addresses(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("://").filter_map(move |(at, _)| {
        let scheme = ["https", "http"].into_iter().find(|scheme| text[..at].ends_with(scheme))?;
        let rest = &text[at - scheme.len()..];
        let end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ')' | ']' | '}' | '|' | '`'))
            .unwrap_or(rest.len());
        Some(rest[..end].trim_end_matches(['.', ',', ';', ':', '!', '?', '*', '_']))
    })
}

/// The host of an address: no scheme, user, port, path or `www.`; may be in any case.
pub fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default().trim_end_matches('.');
    match host.get(..4) {
        Some(www) if www.eq_ignore_ascii_case("www.") => &host[4..],
        _ => host,
    }
}

/// What is blocked about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// Its domain, or one that it is a subdomain of.
    Domain,
    /// A part of it.
    Word,
}

/// Compiled address rules.
#[derive(Debug, Default)]
pub struct UrlRules {
    /// Domains in lower case.
    pub domains: HashSet<String>,
    /// Parts of which one blocks.
    pub hard: HashSet<String>,
    /// Parts of which two blocks.
    pub soft: HashSet<String>,
}

impl UrlRules {
    /// Why `address` is blocked, if it is.
    pub fn judge(&self, address: &str) -> Option<Blocked> {
        let lower = address.to_lowercase();
        let mut domain = host(&lower);
        loop {
            if self.domains.contains(domain) {
                return Some(Blocked::Domain);
            }
            match domain.split_once('.') {
                Some((_, parent)) => domain = parent,
                None => break,
            }
        }
        let mut soft = 0;
        for part in lower.split(|c: char| !c.is_alphanumeric()) {
            if self.hard.contains(part) {
                return Some(Blocked::Word);
            }
            soft += u32::from(self.soft.contains(part));
        }
        (soft >= 2).then_some(Blocked::Word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> UrlRules {
        let set = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        UrlRules { domains: set(&["bad.com"]), hard: set(&["porn"]), soft: set(&["sex", "cams"]) }
    }

    #[test]
    fn a_domain_blocks_its_subdomains_and_nothing_that_only_ends_alike() {
        for blocked in
            ["http://bad.com", "https://WWW.Bad.com:8080/x", "http://a.b.bad.com/", "http://u@bad.com", "bad.com."]
        {
            assert_eq!(rules().judge(blocked), Some(Blocked::Domain), "{blocked}");
        }
        for fine in ["http://notbad.com", "http://bad.com.example.org", "http://example.org/bad.com"] {
            assert_eq!(rules().judge(fine), None, "{fine}");
        }
    }

    #[test]
    fn one_hard_or_two_soft_words_block() {
        assert_eq!(rules().judge("http://x.org/free-porn/1"), Some(Blocked::Word));
        assert_eq!(rules().judge("http://x.org/sex_cams"), Some(Blocked::Word));
        assert_eq!(rules().judge("http://sussex.ac.uk/sex-education"), None);
    }

    #[test]
    fn addresses_end_at_markup_and_lose_trailing_punctuation() {
        let text = "See [docs](https://docs.rs/x), <http://a.b/c?d=1>. ftp://no.pe and httpx://no";
        assert_eq!(addresses(text).collect::<Vec<_>>(), ["https://docs.rs/x", "http://a.b/c?d=1"]);
    }
}
