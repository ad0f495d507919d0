//! `blocked_words`: drops documents in which blocked phrases are frequent.

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    entries, fingerprint,
    lists::{HARD_WORDS, SOFT_WORDS},
    matcher::WordMatcher,
};
use crate::{Features, Filter, FilterContext, FilterPlugin, Verdict, register_filter};

/// Settings of `blocked_words`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BlockedWordsConfig {
    /// Use the built-in lists.
    pub built_in: bool,
    /// Further hard phrases: they hardly occur outside pages of their kind.
    pub hard: Vec<String>,
    /// Further soft phrases: each has an honest use.
    pub soft: Vec<String>,
    /// File of hard phrases, one a line. Empty: none.
    pub hard_file: String,
    /// File of soft phrases, one a line. Empty: none.
    pub soft_file: String,
    /// Drop from this many hard hits …
    pub min_hard: usize,
    /// … if they are at least this many per thousand words.
    pub hard_per_thousand: f64,
    /// Drop from this many soft hits …
    pub min_soft: usize,
    /// … of at least this many different phrases: a text about one of them repeats it honestly …
    pub min_distinct_soft: usize,
    /// … if they are at least this many per thousand words.
    pub soft_per_thousand: f64,
}

impl Default for BlockedWordsConfig {
    fn default() -> Self {
        Self {
            built_in: true,
            hard: Vec::new(),
            soft: Vec::new(),
            hard_file: String::new(),
            soft_file: String::new(),
            min_hard: 2,
            hard_per_thousand: 5.0,
            min_soft: 5,
            min_distinct_soft: 3,
            soft_per_thousand: 20.0,
        }
    }
}

/// The filter. Entries `0..hard` of the matcher are the hard ones.
pub struct BlockedWords {
    config: BlockedWordsConfig,
    matcher: WordMatcher,
    hard: usize,
    fingerprint: String,
}

impl Plugin for BlockedWords {
    const NAME: &'static str = "blocked_words";
    const ABOUT: &'static str =
        "Drops documents in which phrases of spam, fraud, gambling and adult pages are frequent.";
    type Config = BlockedWordsConfig;
}

impl FilterPlugin for BlockedWords {
    fn build(config: Self::Config, _: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        let built_in = |list: &'static [&'static str]| config.built_in.then_some(list);
        let mut words = entries(Self::NAME, built_in(HARD_WORDS), &config.hard, &config.hard_file)?;
        let hard = words.len();
        // A phrase in both lists is a hard one: the first of equal entries is the one that matches.
        words.extend(entries(Self::NAME, built_in(SOFT_WORDS), &config.soft, &config.soft_file)?);
        let matcher = WordMatcher::new(&words).map_err(|e| PluginError::Build {
            plugin: Self::NAME,
            reason: format!("the word list is too large: {e}"),
        })?;
        Ok(Box::new(Self { config, matcher, hard, fingerprint: fingerprint(&words) }))
    }
}

register_filter!(BlockedWords);

impl Filter for BlockedWords {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn judge(&self, document: &Features<'_>) -> Verdict {
        let (mut hard, mut soft) = (0usize, 0usize);
        let mut soft_seen = Vec::new();
        for entry in self.matcher.matches(document.text()) {
            if entry < self.hard {
                hard += 1;
            } else {
                soft += 1;
                soft_seen.push(entry);
            }
        }
        if hard == 0 && soft == 0 {
            return Verdict::Keep; // most documents: nobody has to split them into words for this
        }
        soft_seen.sort_unstable();
        soft_seen.dedup();
        let per_thousand = |hits: usize| 1000.0 * hits as f64 / document.words().len().max(1) as f64;
        let config = &self.config;
        if hard >= config.min_hard.max(1) && per_thousand(hard) >= config.hard_per_thousand {
            return Verdict::drop("blocked_words_hard", per_thousand(hard));
        }
        if soft >= config.min_soft.max(1)
            && soft_seen.len() >= config.min_distinct_soft
            && per_thousand(soft) >= config.soft_per_thousand
        {
            return Verdict::drop("blocked_words_soft", per_thousand(soft));
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

    fn judge(config: BlockedWordsConfig, text: &str) -> Verdict {
        let context = FilterContext { lang: None, artifacts: Path::new("none") };
        let filter = BlockedWords::build(config, &context).expect("built");
        filter.judge(&Features::new(&Document::new("d", text)))
    }

    fn reason(verdict: &Verdict) -> &str {
        match verdict {
            Verdict::Drop { reason, .. } => reason,
            _ => "",
        }
    }

    #[test]
    fn a_spam_page_goes_and_an_article_that_mentions_a_word_stays() {
        let spam =
            "Best ONLINE CASINO of 2024! Claim your casino bonus and free spins now, no deposit bonus for all players.";
        assert_eq!(reason(&judge(BlockedWordsConfig::default(), spam)), "blocked_words_hard");
        let article =
            "The city council debated the casino on Monday. Residents fear that gambling brings crime; others \
                       hope for jobs. The casino would open in 2026, the mayor said, and pay for the new school. "
                .repeat(3);
        assert_eq!(judge(BlockedWordsConfig::default(), &article), Verdict::Keep);
        let medical = "Sildenafil, sold as Viagra, was first studied for hypertension. Trials showed that viagra, like \
                       cialis and levitra, inhibits the same enzyme; "
            .to_owned()
            + &"side effects include headache, flushing and in rare cases a sudden loss of hearing. ".repeat(12);
        assert_eq!(judge(BlockedWordsConfig::default(), &medical), Verdict::Keep);
    }

    #[test]
    fn soft_words_need_number_variety_and_density() {
        let page = "xxx nude milf casino jackpot betting erotic and more";
        assert_eq!(reason(&judge(BlockedWordsConfig::default(), page)), "blocked_words_soft");
        assert_eq!(judge(BlockedWordsConfig::default(), &"casino ".repeat(30)), Verdict::Keep);
    }

    #[test]
    fn chinese_phrases_match_without_word_borders() {
        let page = "欢迎来到澳门赌场，百家乐开户送彩金，网上赌博首选。";
        assert_eq!(reason(&judge(BlockedWordsConfig::default(), page)), "blocked_words_hard");
    }

    #[test]
    fn a_list_file_is_used_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("words.txt");
        std::fs::write(&path, "# ours\nFrobnicate\n\n").expect("list");
        let config = |file: &Path| BlockedWordsConfig {
            built_in: false,
            hard_file: file.display().to_string(),
            min_hard: 1,
            ..BlockedWordsConfig::default()
        };
        assert_eq!(reason(&judge(config(&path), "Do not frobnicate it.")), "blocked_words_hard");
        let context = FilterContext { lang: None, artifacts: Path::new("none") };
        let message =
            BlockedWords::build(config(&dir.path().join("no.txt")), &context).err().expect("missing").to_string();
        assert!(message.contains("no.txt"), "{message}");
    }
}
