//! `blocked_urls`: drops documents from blocked addresses, and documents whose links lead there.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    iter,
    path::PathBuf,
};

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    address::{Address, addresses},
    domains::DomainList,
    entries, fingerprint, limit,
    lists::{BLOCKED_DOMAINS, HARD_URL_WORDS, SOFT_URL_WORDS},
    refused,
    urls::{Blocked, BlockedPart, UrlRules},
};
use crate::{Features, Filter, FilterContext, FilterPlugin, Measure, Verdict, register_filter};

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
    /// Long lists: files of domains, addresses, hosts lines or filter rules, and folders of categories, such as
    /// `adult/domains` and `adult/urls`. They are built into one mapped file in the folder of models, at the first use.
    pub lists: Vec<String>,
    /// Weights of the lists' categories; those that are not named have 1. A category is named after its file or folder.
    pub category_weights: BTreeMap<String, f64>,
    /// An address is blocked from this weight on; the built-in lists and those of `domains` and `words` have the weight 1.
    pub min_weight: f64,
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
            lists: Vec::new(),
            category_weights: BTreeMap::new(),
            min_weight: 1.0,
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

impl BlockedUrls {
    /// The filter of these settings.
    ///
    /// # Errors
    /// A list that cannot be read or built, or a weight of a category that no list has.
    pub fn new(config: BlockedUrlsConfig, cx: &FilterContext<'_>) -> Result<Self, PluginError> {
        let built_in = |list: &'static [&'static str]| config.built_in.then_some(list);
        let domains = entries(Self::NAME, built_in(BLOCKED_DOMAINS), &config.domains, &config.domains_file)?;
        let hard = entries(Self::NAME, built_in(HARD_URL_WORDS), &config.words, &config.words_file)?;
        let soft = entries(Self::NAME, built_in(SOFT_URL_WORDS), &[], "")?;
        let mut fingerprint = fingerprint(domains.iter().chain(&hard).chain(&soft));
        let mut rules = UrlRules {
            // Entries may be written as addresses.
            domains: domains.iter().filter_map(|domain| Some(Address::parse(domain)?.host().to_owned())).collect(),
            hard: HashSet::from_iter(hard),
            soft: HashSet::from_iter(soft),
            ..UrlRules::default()
        };
        if !config.lists.is_empty() {
            let sources: Vec<PathBuf> = config.lists.iter().map(PathBuf::from).collect();
            let list = DomainList::of_sources(&sources, cx.artifacts).map_err(|e| refused(Self::NAME, e))?;
            let known = |name: &&String| !list.categories().contains(name);
            if let Some(name) = config.category_weights.keys().find(known) {
                let reason =
                    format!("`category_weights.{name}`: the lists have the categories {:?}", list.categories());
                return Err(refused(Self::NAME, reason));
            }
            fingerprint.push_str(&list.fingerprint());
            rules = rules.with_list(list, &config.category_weights);
        }
        Ok(Self { config, rules, fingerprint })
    }

    /// Why the document's own address is blocked, and by what weight, whatever `min_weight` says.
    pub fn own_address(&self, document: &Features<'_>) -> Option<Blocked<'_>> {
        self.rules.judge(document.document().field("url")?)
    }

    /// Share of the text's links that are blocked; 0 where they are too few to count.
    pub fn blocked_share(&self, document: &Features<'_>) -> f64 {
        let (mut links, mut blocked) = (0usize, 0usize);
        for address in addresses(document.text()) {
            let found = self.rules.judge(address);
            links += 1;
            blocked += usize::from(found.is_some_and(|found| found.weight >= self.config.min_weight));
        }
        if blocked >= self.config.min_links.max(1) { blocked as f64 / links as f64 } else { 0.0 }
    }
}

impl BlockedUrls {
    /// `None` where no list has the document's own address.
    fn address_rule(&self, document: &Features<'_>) -> Option<Measure> {
        let Blocked { what, weight } = self.own_address(document)?;
        let reason = match what {
            BlockedPart::Domain => "blocked_domain".into(),
            BlockedPart::Word => "blocked_url_word".into(),
            BlockedPart::Category(name) => Cow::from(format!("blocked_category_{name}")),
        };
        Some(Measure::below(reason, weight, self.config.min_weight))
    }

    fn links_rule(&self, document: &Features<'_>) -> Measure {
        Measure::below("blocked_links", self.blocked_share(document), limit(self.config.link_share))
    }
}

impl FilterPlugin for BlockedUrls {
    fn build(config: Self::Config, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        Ok(Box::new(Self::new(config, cx)?))
    }
}

register_filter!(BlockedUrls);

impl Filter for BlockedUrls {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        // A blocked address is reason enough: nobody has to look for links.
        let links = iter::once_with(|| self.links_rule(document));
        Measure::verdict(self.address_rule(document).into_iter().chain(links))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        self.address_rule(document).into_iter().chain([self.links_rule(document)]).collect()
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
        judge_by(&BlockedUrls::new(config, &context).expect("built"), url, text)
    }

    fn judge_by(filter: &BlockedUrls, url: &str, text: &str) -> Verdict {
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

    #[test]
    fn categories_of_a_list_block_by_their_weight_and_are_named() {
        let dir = tempfile::tempdir().expect("folder");
        for (category, domain) in [("adult", "bad.example"), ("shopping", "shop.example"), ("forums", "talk.example")] {
            std::fs::create_dir(dir.path().join(category)).expect("folder");
            std::fs::write(dir.path().join(category).join("domains"), domain).expect("list");
        }
        let artifacts = tempfile::tempdir().expect("folder");
        let context = FilterContext { lang: None, artifacts: artifacts.path() };
        let config = |weights: &[(&str, f64)]| BlockedUrlsConfig {
            lists: vec![dir.path().display().to_string()],
            category_weights: weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
            ..BlockedUrlsConfig::default()
        };
        let filter = BlockedUrls::new(config(&[("shopping", 0.4), ("forums", 0.0)]), &context).expect("built");
        let dropped = Verdict::drop("blocked_category_adult", 1.0);
        assert_eq!(judge_by(&filter, "http://www.bad.example/x", "fine"), dropped);
        assert_eq!(judge_by(&filter, "http://shop.example/x", "fine"), Verdict::Keep);
        let mut document = Document::new("d", "fine");
        document.meta.insert("url".into(), "http://a.shop.example/".into());
        let blocked = filter.own_address(&Features::new(&document)).expect("listed");
        assert_eq!(blocked, Blocked { what: BlockedPart::Category("shopping"), weight: 0.4 });
        let message = BlockedUrls::new(config(&[("adlut", 1.0)]), &context).err().expect("no category").to_string();
        assert!(message.contains("adlut") && message.contains("adult"), "{message}");
    }
}
