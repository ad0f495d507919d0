//! What is blocked about an address.

use std::collections::{BTreeMap, HashSet};

use super::{address::Address, domains::DomainList};

/// Why an address is blocked, and how much that weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blocked<'a> {
    /// What is blocked.
    pub what: BlockedPart<'a>,
    /// 1, or the weight of the list's category.
    pub weight: f64,
}

/// What is blocked about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockedPart<'a> {
    /// Its domain, or one that it is a subdomain of.
    Domain,
    /// A part of it.
    Word,
    /// It is in a list of this category.
    Category(&'a str),
}

/// Compiled address rules.
#[derive(Debug, Default)]
pub struct UrlRules {
    /// Domains as [`Address::host`] writes them.
    pub domains: HashSet<String>,
    /// Parts of which one blocks.
    pub hard: HashSet<String>,
    /// Parts of which two block.
    pub soft: HashSet<String>,
    /// Long lists.
    pub list: Option<DomainList>,
    /// Weights of the list's categories, by their numbers.
    pub weights: Vec<f64>,
}

impl UrlRules {
    /// Sets the long lists and the weights of their categories; those without one have the weight 1.
    pub fn with_list(mut self, list: DomainList, weights: &BTreeMap<String, f64>) -> Self {
        self.weights = list.categories().iter().map(|name| weights.get(name).copied().unwrap_or(1.0)).collect();
        self.list = Some(list);
        self
    }

    /// Why `address` is blocked, if it is: the reason that weighs most.
    pub fn judge(&self, address: &str) -> Option<Blocked<'_>> {
        let parsed = Address::parse(address);
        if let Some(address) = &parsed
            && address.domains().any(|domain| self.domains.contains(domain))
        {
            return Some(Blocked { what: BlockedPart::Domain, weight: 1.0 });
        }
        let listed = parsed.and_then(|address| self.listed(&address));
        match listed {
            Some(blocked) if blocked.weight >= 1.0 => listed,
            _ if self.has_word(address) => Some(Blocked { what: BlockedPart::Word, weight: 1.0 }),
            _ => listed,
        }
    }

    fn listed(&self, address: &Address) -> Option<Blocked<'_>> {
        let list = self.list.as_ref()?;
        let heaviest = list.lookup(address).iter().max_by(|a, b| self.weights[*a].total_cmp(&self.weights[*b]))?;
        let weight = self.weights[heaviest];
        (weight > 0.0).then(|| Blocked { what: BlockedPart::Category(&list.categories()[heaviest]), weight })
    }

    fn has_word(&self, address: &str) -> bool {
        let mut soft = 0;
        address.to_lowercase().split(|c: char| !c.is_alphanumeric()).any(|part| {
            soft += u32::from(self.soft.contains(part));
            self.hard.contains(part) || soft >= 2
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(address: &str) -> Option<BlockedPart<'static>> {
        let set = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let (domains, hard, soft) = (set(&["bad.com"]), set(&["porn"]), set(&["sex", "cams"]));
        let rules = UrlRules { domains, hard, soft, ..UrlRules::default() };
        rules.judge(address).map(|blocked| match blocked.what {
            BlockedPart::Domain => BlockedPart::Domain,
            BlockedPart::Word => BlockedPart::Word,
            BlockedPart::Category(name) => panic!("{name}: there is no list"),
        })
    }

    #[test]
    fn a_domain_blocks_its_subdomains_and_nothing_that_only_ends_alike() {
        for blocked in
            ["http://bad.com", "https://WWW.Bad.com:8080/x", "http://a.b.bad.com/", "http://u@bad.com", "bad.com."]
        {
            assert_eq!(what(blocked), Some(BlockedPart::Domain), "{blocked}");
        }
        for fine in ["http://notbad.com", "http://bad.com.example.org", "http://example.org/bad.com"] {
            assert_eq!(what(fine), None, "{fine}");
        }
    }

    #[test]
    fn one_hard_or_two_soft_words_block() {
        assert_eq!(what("http://x.org/free-porn/1"), Some(BlockedPart::Word));
        assert_eq!(what("http://x.org/sex_cams"), Some(BlockedPart::Word));
        assert_eq!(what("http://sussex.ac.uk/sex-education"), None);
    }
}
