//! `blocked_urls`: drops documents from blocked addresses, and documents whose links lead there.

use std::collections::HashSet;

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    entries, fingerprint,
    lists::{BLOCKED_DOMAINS, HARD_URL_WORDS, SOFT_URL_WORDS},
    urls::{Blocked, UrlRules, addresses, host},
};
use crate::{Features, Filter, FilterContext, FilterPlugin, Verdict, register_filter};

/// Settings of `blocked_urls`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BlockedUrlsConfig {
    /// Use the built-in lists.
    pub built_in: bool,
    /// Further domains; their subdomains are included.
    pub domains: Vec<String>,
    /// Further parts of an address of which one blocks it.
    pub words: Vec<String>,
    /// File of domains, one a line. Empty: none.
    pub domains_file: String,
    /// File of parts of an address of which one blocks it. Empty: none.
    pub words_file: String,
    /// Drop a document with at least this many blocked links …
    pub min_links: usize,
    /// … if they are at least this share of its links.
    pub link_share: f64,
}

impl Default for BlockedUrlsConfig {
    fn default() -> Self {
        Self {
            built_in: true,
            domains: Vec::new(),
            words: Vec::new(),
            domains_file: String::new(),
            words_file: String::new(),
            min_links: 2,
            link_share: 0.1,
        }
    }
}

/// The filter.
pub struct BlockedUrls {
    config: BlockedUrlsConfig,
    rules: UrlRules,
    fingerprint: String,
}

impl Plugin for BlockedUrls {
    const NAME: &'static str = "blocked_urls";
    const ABOUT: &'static str =
        "Drops documents from blocked domains or addresses, and documents whose links lead there.";
    type Config = BlockedUrlsConfig;
}

impl FilterPlugin for BlockedUrls {
    fn build(config: Self::Config, _: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        let built_in = |list: &'static [&'static str]| config.built_in.then_some(list);
        let domains = entries(Self::NAME, built_in(BLOCKED_DOMAINS), &config.domains, &config.domains_file)?;
        let hard = entries(Self::NAME, built_in(HARD_URL_WORDS), &config.words, &config.words_file)?;
        let soft = entries(Self::NAME, built_in(SOFT_URL_WORDS), &[], "")?;
        let fingerprint = fingerprint(domains.iter().chain(&hard).chain(&soft));
        let rules = UrlRules {
            // Entries may be written as addresses.
            domains: domains.iter().map(|domain| host(domain).to_owned()).collect(),
            hard: HashSet::from_iter(hard),
            soft: HashSet::from_iter(soft),
        };
        Ok(Box::new(Self { config, rules, fingerprint }))
    }
}

register_filter!(BlockedUrls);

impl Filter for BlockedUrls {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn judge(&self, document: &Features<'_>) -> Verdict {
        match document.document().field("url").and_then(|url| self.rules.judge(url)) {
            Some(Blocked::Domain) => return Verdict::drop("blocked_domain", 1.0),
            Some(Blocked::Word) => return Verdict::drop("blocked_url_word", 1.0),
            None => {}
        }
        let (mut links, mut blocked) = (0usize, 0usize);
        for address in addresses(document.text()) {
            links += 1;
            blocked += usize::from(self.rules.judge(address).is_some());
        }
        let share = blocked as f64 / links.max(1) as f64;
        if blocked >= self.config.min_links.max(1) && share >= self.config.link_share {
            return Verdict::drop("blocked_links", share);
        }
        Verdict::Keep
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Document;

    fn judge(config: BlockedUrlsConfig, url: &str, text: &str) -> Verdict {
        let context = FilterContext { lang: None, artifacts: Path::new("none") };
        let filter = BlockedUrls::build(config, &context).expect("built");
        let mut document = Document::new("d", text);
        document.meta.insert("url".into(), url.into());
        filter.judge(&Features::new(&document))
    }

    #[test]
    fn a_document_from_a_blocked_place_goes_whatever_its_text() {
        let config =
            BlockedUrlsConfig { domains: vec!["https://Spam.example/".into()], ..BlockedUrlsConfig::default() };
        assert_eq!(judge(config.clone(), "http://sub.spam.example/a", "fine"), Verdict::drop("blocked_domain", 1.0));
        assert_eq!(judge(config.clone(), "https://x.org/best-porn", "fine"), Verdict::drop("blocked_url_word", 1.0));
        assert_eq!(judge(config, "https://docs.rs/serde", "fine"), Verdict::Keep);
    }

    #[test]
    fn links_count_by_their_share() {
        let bad = "http://a.pornhub.com/1 http://b.pornhub.com/2 ";
        let good = "https://docs.rs/serde ";
        let config = BlockedUrlsConfig::default;
        assert_eq!(judge(config(), "", &(bad.to_owned() + good)), Verdict::drop("blocked_links", 2.0 / 3.0));
        assert_eq!(judge(config(), "", &(bad.to_owned() + &good.repeat(30))), Verdict::Keep);
        assert_eq!(judge(config(), "", "see http://www.pornhub.com/"), Verdict::Keep);
    }
}
