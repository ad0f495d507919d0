//! `personal_data`: drops documents that consist of contact data: leaked lists, member directories, server logs.
//!
//! It counts and drops; it does not mask. A single address in a text is not its business.

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Features, Filter, FilterContext, FilterPlugin, Verdict, register_filter};

/// Settings of `personal_data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PersonalDataConfig {
    /// Drop from this many e-mail and IP addresses …
    pub min_hits: usize,
    /// … if they are at least this many per thousand words.
    pub per_thousand: f64,
}

impl Default for PersonalDataConfig {
    fn default() -> Self {
        Self { min_hits: 10, per_thousand: 50.0 }
    }
}

/// The filter.
pub struct PersonalData {
    config: PersonalDataConfig,
}

impl Plugin for PersonalData {
    const NAME: &'static str = "personal_data";
    const ABOUT: &'static str = "Drops documents that consist of e-mail and public IP addresses.";
    type Config = PersonalDataConfig;
}

impl FilterPlugin for PersonalData {
    fn build(config: Self::Config, _: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        Ok(Box::new(Self { config }))
    }
}

register_filter!(PersonalData);

impl Filter for PersonalData {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn judge(&self, document: &Features<'_>) -> Verdict {
        let hits = count(document.text());
        if hits < self.config.min_hits.max(1) {
            return Verdict::Keep;
        }
        let per_thousand = 1000.0 * hits as f64 / document.words().len().max(1) as f64;
        if per_thousand >= self.config.per_thousand {
            return Verdict::drop("personal_data", per_thousand);
        }
        Verdict::Keep
    }
}

/// E-mail addresses and public IPv4 addresses of a text.
fn count(text: &str) -> usize {
    let delimiter = |c: char| {
        c.is_whitespace() || matches!(c, '<' | '>' | '(' | ')' | '[' | ']' | '"' | '\'' | ',' | ';' | '`' | '|')
    };
    text.split(delimiter).filter(|word| is_email(word) || is_public_ip(word)).count()
}

fn is_email(word: &str) -> bool {
    let word = word.strip_prefix("mailto:").unwrap_or(word).trim_end_matches(['.', ':']);
    let Some((name, domain)) = word.split_once('@') else { return false };
    let Some((host, top)) = domain.rsplit_once('.') else { return false };
    let part =
        |s: &str, extra: &[char]| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(&c));
    part(name, &['.', '_', '-', '+'])
        && part(host, &['.', '-'])
        && top.len() >= 2
        && top.chars().all(|c| c.is_ascii_alphabetic())
}

/// Version numbers of four parts look like addresses too; those with small numbers (`1.2.3.4`) are not counted.
fn is_public_ip(word: &str) -> bool {
    let word = word.trim_end_matches(['.', ':']);
    let word = word.split_once(':').map_or(word, |(address, _)| address);
    word.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| {
        let local =
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation() || ip.is_multicast();
        !local && !ip.is_broadcast() && ip.octets()[0] != 0 && ip.octets().iter().any(|octet| *octet > 31)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Document;

    #[test]
    fn addresses_are_told_from_handles_versions_and_local_networks() {
        for hit in ["a.b+c@mail.example.org", "<x@y.io>,", "mailto:me@host.de.", "93.184.216.34", "8.8.44.4:80"] {
            assert_eq!(count(hit), 1, "{hit}");
        }
        for miss in
            ["@handle", "user@localhost", "1.2.3.4", "192.168.0.1", "127.0.0.1", "a@b@c.de", "git@github.com:x/y"]
        {
            assert_eq!(count(miss), 0, "{miss}");
        }
    }

    #[test]
    fn a_list_of_addresses_goes_and_an_authors_file_in_prose_stays() {
        let context = FilterContext { lang: None, artifacts: Path::new("none") };
        let filter = PersonalData::build(PersonalDataConfig::default(), &context).expect("built");
        let list: String = (0..20).map(|i| format!("person{i}@mail.example.org\n")).collect();
        assert!(matches!(filter.judge(&Features::new(&Document::new("d", &list))), Verdict::Drop { .. }));
        let text = list.clone() + &"This paragraph thanks everyone who sent a patch for the release. ".repeat(60);
        assert_eq!(filter.judge(&Features::new(&Document::new("d", text))), Verdict::Keep);
    }
}
