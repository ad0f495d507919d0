//! `personal_data`: masks contact data and numbers of people, and drops documents that consist of them: leaked lists, member
//! directories, server logs.
//!
//! What is found, in one pass, and what it must fulfil (`scan.rs`, `numbers.rs`):
//!
//! | kind | is | is not |
//! |---|---|---|
//! | `email` | `name@host.top` | handles, `user@localhost`, `git@host:path` |
//! | `ip` | public IPv4 and IPv6 addresses | private, local, documentation and multicast ranges; version numbers: four parts of which all are below 32, or that follow `v` or `version` |
//! | `phone` | `+` and 8 to 15 digits; Chinese mobile and area-code numbers; North American ones with separators | other runs of digits |
//! | `id_number` | Chinese resident numbers with date and checksum; US social security numbers `AAA-GG-SSSS` that may be assigned | numbers that fail these |
//! | `card` | 13 to 19 digits of an issuer (3 to 6), in groups or not, with Luhn's checksum | other numbers |
//! | `iban` | two letters and a number that is 1 modulo 97 | other codes |
//!
//! A number must stand alone: no letter, digit or `_` touches it. Source code is not edited: its addresses are examples and its
//! numbers constants.

mod numbers;
mod scan;
#[cfg(test)]
mod tests;

use internevo_core::plugin::Plugin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::scan::{Finding, find};
use super::limit;
use crate::{Features, Filter, Measure, Verdict, filter::Editor, register_filter};

/// A kind of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PersonalKind {
    /// E-mail addresses.
    Email,
    /// Public IPv4 and IPv6 addresses.
    Ip,
    /// Telephone numbers.
    Phone,
    /// Chinese resident numbers and US social security numbers.
    IdNumber,
    /// Numbers of payment cards.
    Card,
    /// International bank account numbers.
    Iban,
}

impl PersonalKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Email, Self::Ip, Self::Phone, Self::IdNumber, Self::Card, Self::Iban];

    /// What a report counts a masked one by.
    fn reason(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Ip => "ip",
            Self::Phone => "phone",
            Self::IdNumber => "id_number",
            Self::Card => "card",
            Self::Iban => "iban",
        }
    }

    fn placeholder(self) -> &'static str {
        match self {
            Self::Email => "<EMAIL>",
            Self::Ip => "<IP>",
            Self::Phone => "<PHONE>",
            Self::IdNumber => "<ID>",
            Self::Card => "<CARD>",
            Self::Iban => "<IBAN>",
        }
    }
}

/// What comes in the place of personal data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// Nothing is masked.
    None,
    /// `<EMAIL>`, `<IP>`, `<PHONE>`, `<ID>`, `<CARD>`, `<IBAN>`.
    #[default]
    Placeholder,
    /// Something of the same form that is nobody's: addresses reserved for documentation (RFC 2606, 5737, 3849), and the same number
    /// with all digits 0.
    Fake,
}

impl Mask {
    /// What comes in the place of `found`; `None`: it stays.
    fn replacement(self, kind: PersonalKind, found: &str) -> Option<String> {
        let zeros = || found.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        Some(match (self, kind) {
            (Self::None, _) => return None,
            (Self::Placeholder, _) => kind.placeholder().to_owned(),
            (Self::Fake, PersonalKind::Email) => "email@example.com".to_owned(),
            (Self::Fake, PersonalKind::Ip) if found.contains(':') => "2001:db8::1".to_owned(),
            (Self::Fake, PersonalKind::Ip) => "192.0.2.1".to_owned(),
            (Self::Fake, _) => zeros(),
        })
    }
}

/// Settings of `personal_data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PersonalDataConfig {
    /// What is looked for.
    pub kinds: Vec<PersonalKind>,
    /// What comes in its place in documents that stay.
    pub mask: Mask,
    /// Drop from this many findings …
    pub min_hits: usize,
    /// … if they are at least this many per thousand words.
    pub per_thousand: f64,
}

impl Default for PersonalDataConfig {
    fn default() -> Self {
        Self { kinds: PersonalKind::ALL.to_vec(), mask: Mask::default(), min_hits: 10, per_thousand: 50.0 }
    }
}

/// The filter.
pub struct PersonalData {
    config: PersonalDataConfig,
}

impl Plugin for PersonalData {
    const NAME: &'static str = "personal_data";
    const ABOUT: &'static str = "Masks e-mail and IP addresses, telephone, identity, card and account numbers; drops documents that consist of them.";
    type Config = PersonalDataConfig;
}

register_filter!(PersonalData { config });

impl PersonalData {
    /// A filter outside a chain.
    pub fn new(config: PersonalDataConfig) -> Self {
        Self { config }
    }

    /// Findings of the kinds that are looked for, in the order of the text.
    pub fn findings(&self, text: &str) -> Vec<Finding> {
        find(text).filter(|found| self.config.kinds.contains(&found.kind)).collect()
    }

    /// Findings per thousand words; 0 where there are too few to count.
    pub fn density(&self, document: &Features<'_>) -> f64 {
        self.density_of(self.findings(document.text()).len(), document)
    }

    fn density_of(&self, hits: usize, document: &Features<'_>) -> f64 {
        if hits < self.config.min_hits.max(1) {
            return 0.0; // most documents: nobody has to split them into words for this
        }
        1000.0 * hits as f64 / document.words().len().max(1) as f64
    }

    fn density_rule(&self, hits: usize, document: &Features<'_>) -> Measure {
        Measure::below("personal_data", self.density_of(hits, document), limit(self.config.per_thousand))
    }
}

impl Filter for PersonalData {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        let findings = self.findings(document.text());
        let verdict = Measure::verdict([self.density_rule(findings.len(), document)]);
        if document.is_code() || !verdict.keeps() {
            return verdict;
        }
        let mut editor = Editor::new(document.text());
        for Finding { kind, bytes } in findings {
            let found = &document.text()[bytes.clone()];
            match self.config.mask.replacement(kind, found) {
                Some(new) if new != found => editor.replace(bytes, &new, kind.reason()),
                _ => {}
            }
        }
        editor.verdict()
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        vec![self.density_rule(self.findings(document.text()).len(), document)]
    }
}
