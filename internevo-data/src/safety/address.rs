//! Addresses in text, and the one way in which hosts and paths are written before they are compared.

use std::net::Ipv4Addr;

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

/// Where an address leads, in the form in which lists are compared: `HTTP://u@WWW.Bücher.example.:80/A/b/?q` is the host
/// `xn--bcher-kva.example` and the path `/a/b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host and path in one.
    text: String,
    host_length: usize,
    is_ip: bool,
}

impl Address {
    /// Reads an address with or without a scheme, or a bare host. `None` where there is no host that could be one.
    ///
    /// Case does not matter, in paths neither (as in squidGuard's lists); scheme, user, port, query, fragment, final dots and slashes
    /// and a leading `www.` do not either. International names become Punycode (UTS 46).
    pub fn parse(address: &str) -> Option<Self> {
        let address = address.trim();
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        if authority.contains(char::is_whitespace) {
            return None;
        }
        let host = authority.rsplit('@').next().unwrap_or_default();
        let (mut text, is_ip) = match host.strip_prefix('[') {
            Some(literal) => (ipv6(literal)?, true),
            None => {
                let name = named_host(host.split(':').next().unwrap_or_default())?;
                let is_ip = name.parse::<Ipv4Addr>().is_ok();
                (name, is_ip)
            }
        };
        let host_length = text.len();
        let path = tail.split(['?', '#']).next().unwrap_or_default().trim_end_matches(['/', '\\']);
        text.extend(path.chars().flat_map(char::to_lowercase));
        Some(Self { text, host_length, is_ip })
    }

    /// The host: a name in lower case and ASCII, or an IP address.
    pub fn host(&self) -> &str {
        &self.text[..self.host_length]
    }

    /// The path in lower case without a final slash; empty, or begins with a slash.
    pub fn path(&self) -> &str {
        &self.text[self.host_length..]
    }

    /// Host and path.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Is the host a number?
    pub fn is_ip(&self) -> bool {
        self.is_ip
    }

    /// The host and every domain that it is part of, longest first: `a.b.example.com`, `b.example.com`, `example.com`, `com`. An IP
    /// address is part of nothing.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        let is_ip = self.is_ip;
        std::iter::successors(Some(self.host()), move |domain| {
            let (_, parent) = domain.split_once('.').filter(|_| !is_ip)?;
            Some(parent)
        })
    }

    /// The address and everything above it with this host: `x.org/a/b`, `x.org/a`.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let ends = self.path().match_indices('/').map(|(at, _)| at).skip(1).chain([self.path().len()]);
        let own = !self.path().is_empty();
        ends.filter(move |_| own).map(|end| &self.text[..self.host_length + end])
    }
}

fn ipv6(literal: &str) -> Option<String> {
    let (address, _) = literal.split_once(']')?;
    Some(address.parse::<std::net::Ipv6Addr>().ok()?.to_string())
}

fn named_host(host: &str) -> Option<String> {
    let host = host.trim_end_matches('.');
    let host = if host.is_ascii() { host.to_ascii_lowercase() } else { idna::domain_to_ascii(host).ok()? };
    let host = match host.strip_prefix("www.") {
        Some(rest) if rest.contains('.') => rest.to_owned(),
        _ => host,
    };
    let is_label = |label: &str| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(valid)
    };
    // What ends in a number is an IP address or nothing (WHATWG URL).
    let is_number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let is_name = host.len() <= 253 && host.split('.').all(is_label) && !is_number;
    (is_name || host.parse::<Ipv4Addr>().is_ok()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_end_at_markup_and_lose_trailing_punctuation() {
        let text = "See [docs](https://docs.rs/x), <http://a.b/c?d=1>. ftp://no.pe and httpx://no";
        assert_eq!(addresses(text).collect::<Vec<_>>(), ["https://docs.rs/x", "http://a.b/c?d=1"]);
    }

    #[test]
    fn hosts_and_paths_are_written_in_one_way() {
        for (address, written) in [
            ("HTTP://u:p@WWW.Example.COM.:8080/A/b/?q#f", "example.com/a/b"),
            ("//example.com/", "example.com"),
            ("example.com", "example.com"),
            ("www.com", "www.com"),
            ("https://bücher.example/x", "xn--bcher-kva.example/x"),
            ("https://XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("http://例子。测试", "xn--fsqu00a.xn--0zwm56d"),
            ("http://93.184.216.34:80/x", "93.184.216.34/x"),
            ("http://[2001:DB8:0::1]:443/", "2001:db8::1"),
            ("http://evil.example\\@good.example", "evil.example\\@good.example"),
        ] {
            assert_eq!(Address::parse(address).map(|a| a.text), Some(written.to_owned()), "{address}");
        }
        for nothing in
            ["", "http://", "a b", "http://a..b/", "http://[::zz]/", "x y@z.org", "1.93.184.216.34", "300.1.1.1"]
        {
            assert_eq!(Address::parse(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_host_is_part_of_its_domains_and_an_ip_address_of_nothing() {
        let domains = |address: &str| {
            Address::parse(address).expect("an address").domains().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(domains("http://a.b.example.com/x"), ["a.b.example.com", "b.example.com", "example.com", "com"]);
        assert_eq!(domains("http://93.184.216.34/"), ["93.184.216.34"]);
        let address = Address::parse("http://x.org/a/b/c.html").expect("an address");
        assert_eq!(address.paths().collect::<Vec<_>>(), ["x.org/a", "x.org/a/b", "x.org/a/b/c.html"]);
        assert_eq!(Address::parse("x.org").expect("an address").paths().count(), 0);
    }
}
