//! `blocked_words`: drops documents in which blocked phrases are frequent, honest uses left out.
//!
//! What keeps it from dropping honest texts: phrases stand alone in scripts with spaces; longer allowed phrases hide what is in
//! them; a soft phrase near a word of a context (medical, education, law) does not count; and numbers, variety and density decide,
//! not occurrence.

use std::collections::BTreeMap;

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    entries, fingerprint, limit,
    lists::{ALLOWED_PHRASES, CONTEXTS, HARD_WORDS, SOFT_WORDS},
    matcher::{WordMatch, WordMatcher, folded},
    refused,
};
use crate::{Features, Filter, FilterContext, FilterPlugin, Measure, Verdict, register_filter};

/// Settings of `blocked_words`.
///
/// An entry of `hard`, `soft` and their files is a phrase, then if need be a weight and the names of contexts, separated by tabs:
/// `nude<TAB>0.5<TAB>medical,education`. Without a weight it has 1; without contexts a soft phrase has all, a hard one none; `-` is
/// none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BlockedWordsConfig {
    /// Use the built-in lists.
    pub built_in: bool,
    /// Further hard phrases: they hardly occur outside pages of their kind.
    pub hard: Vec<String>,
    /// Further soft phrases: each has an honest use.
    pub soft: Vec<String>,
    /// Further phrases that are honest although there is a blocked one in them.
    pub allowed: Vec<String>,
    /// File of hard phrases, one a line. Empty: none.
    pub hard_file: String,
    /// File of soft phrases, one a line. Empty: none.
    pub soft_file: String,
    /// File of allowed phrases, one a line. Empty: none.
    pub allowed_file: String,
    /// Further contexts, or further words of the built-in ones (`medical`, `education`, `law`).
    pub contexts: BTreeMap<String, Vec<String>>,
    /// A phrase is in a context if a word of it is at most so many characters away.
    pub context_window: usize,
    /// What a phrase in a context counts: this part of its weight.
    pub context_weight: f64,
    /// Drop from this many hard hits, by weight …
    pub min_hard: f64,
    /// … if they are at least this many per thousand words.
    pub hard_per_thousand: f64,
    /// Drop from this many soft hits, by weight …
    pub min_soft: f64,
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
            allowed: Vec::new(),
            hard_file: String::new(),
            soft_file: String::new(),
            allowed_file: String::new(),
            contexts: BTreeMap::new(),
            context_window: 60,
            context_weight: 0.0,
            min_hard: 2.0,
            hard_per_thousand: 5.0,
            min_soft: 5.0,
            min_distinct_soft: 3,
            soft_per_thousand: 20.0,
        }
    }
}

/// Which list a phrase is of. Of equal phrases the first list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Allowed,
    Hard,
    Soft,
}

/// A phrase of a list.
#[derive(Clone, Debug)]
struct Entry {
    phrase: String,
    class: Class,
    weight: f64,
    /// Numbers of the contexts in which it is honest.
    contexts: Vec<usize>,
}

/// Words of contexts: the matcher's entries, and the context of each.
struct Contexts {
    names: Vec<String>,
    matcher: WordMatcher,
    of_entry: Vec<usize>,
}

/// What was found in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WordHits {
    /// Hard hits, by weight.
    pub hard: f64,
    /// Soft hits, by weight.
    pub soft: f64,
    /// Different soft phrases with a weight.
    pub distinct_soft: usize,
}

/// The filter.
pub struct BlockedWords {
    config: BlockedWordsConfig,
    matcher: WordMatcher,
    entries: Vec<Entry>,
    contexts: Contexts,
    fingerprint: String,
}

impl Plugin for BlockedWords {
    const NAME: &'static str = "blocked_words";
    const ABOUT: &'static str = "Drops documents in which phrases of spam, fraud, gambling and adult pages are frequent, honest contexts left out.";
    type Config = BlockedWordsConfig;
}

impl Contexts {
    fn new(config: &BlockedWordsConfig) -> Result<Self, PluginError> {
        let mut words: BTreeMap<String, Vec<String>> = config.contexts.clone();
        for (name, built_in) in CONTEXTS.iter().filter(|_| config.built_in) {
            words.entry((*name).to_owned()).or_default().extend(built_in.iter().map(|word| (*word).to_owned()));
        }
        let all = words.values().enumerate().flat_map(|(at, words)| words.iter().map(move |word| (at, word.as_str())));
        let (of_entry, phrases): (Vec<usize>, Vec<&str>) = all.unzip();
        let matcher = WordMatcher::new(phrases).map_err(|e| refused(BlockedWords::NAME, e))?;
        Ok(Self { names: words.into_keys().collect(), matcher, of_entry })
    }
}

impl Entry {
    fn read(line: &str, class: Class, contexts: &[String]) -> Result<Self, String> {
        let mut columns = line.split('\t').map(str::trim);
        let phrase = columns.next().unwrap_or_default().to_owned();
        let weight = match columns.next().filter(|weight| !weight.is_empty()) {
            None => 1.0,
            Some(text) => text
                .parse()
                .ok()
                .filter(|weight: &f64| *weight >= 0.0 && weight.is_finite())
                .ok_or_else(|| format!("`{phrase}`: the weight `{text}` is no number of 0 or more"))?,
        };
        let number = |name: &str| {
            let at = contexts.iter().position(|own| own == name);
            at.ok_or_else(|| format!("`{phrase}`: no context `{name}`; there are {contexts:?}"))
        };
        let contexts = match columns.next().filter(|names| !names.is_empty()) {
            None if class == Class::Soft => (0..contexts.len()).collect(),
            None | Some("-") => Vec::new(),
            Some(names) => names.split(',').map(|name| number(name.trim())).collect::<Result<_, _>>()?,
        };
        Ok(Self { phrase, class, weight, contexts })
    }
}

impl BlockedWords {
    /// The filter of these settings.
    ///
    /// # Errors
    /// A list that cannot be read, an entry that is none, lists too large for an automaton.
    pub fn new(config: BlockedWordsConfig) -> Result<Self, PluginError> {
        let contexts = Contexts::new(&config)?;
        let (mut all, mut lines) = (Vec::new(), Vec::new());
        for (class, built_in, own, file) in [
            (Class::Allowed, ALLOWED_PHRASES, &config.allowed, &config.allowed_file),
            (Class::Hard, HARD_WORDS, &config.hard, &config.hard_file),
            (Class::Soft, SOFT_WORDS, &config.soft, &config.soft_file),
        ] {
            let found = entries(Self::NAME, config.built_in.then_some(built_in), own, file)?;
            for line in &found {
                all.push(Entry::read(line, class, &contexts.names).map_err(|reason| refused(Self::NAME, reason))?);
            }
            lines.extend(found);
        }
        let matcher = WordMatcher::new(all.iter().map(|entry| entry.phrase.as_str()))
            .map_err(|e| refused(Self::NAME, format!("the word list is too large: {e}")))?;
        Ok(Self { config, matcher, entries: all, contexts, fingerprint: fingerprint(&lines) })
    }

    /// What is found in `text`.
    pub fn hits(&self, text: &str) -> WordHits {
        let folded = folded(text);
        let found = self.matcher.matches(&folded);
        let mut hits = WordHits::default();
        if found.iter().all(|found| self.entries[found.entry].class == Class::Allowed) {
            return hits; // most documents: nobody has to look for contexts
        }
        let contexts = self.contexts.matcher.matches(&folded);
        let mut soft_seen = Vec::new();
        for found in found {
            let entry = &self.entries[found.entry];
            let honest = !entry.contexts.is_empty() && self.in_context(&folded, &found, entry, &contexts);
            let weight = entry.weight * if honest { self.config.context_weight } else { 1.0 };
            match entry.class {
                Class::Allowed => {}
                Class::Hard => hits.hard += weight,
                Class::Soft => {
                    hits.soft += weight;
                    soft_seen.extend((weight > 0.0).then_some(found.entry));
                }
            }
        }
        soft_seen.sort_unstable();
        soft_seen.dedup();
        hits.distinct_soft = soft_seen.len();
        hits
    }

    /// Hard hits per thousand words; 0 where they are too few to count.
    pub fn hard_density(&self, hits: &WordHits, document: &Features<'_>) -> f64 {
        if hits.hard >= self.config.min_hard { per_thousand(hits.hard, document) } else { 0.0 }
    }

    /// Soft hits per thousand words; 0 where they or their variety are too few to count.
    pub fn soft_density(&self, hits: &WordHits, document: &Features<'_>) -> f64 {
        let enough = hits.soft >= self.config.min_soft && hits.distinct_soft >= self.config.min_distinct_soft;
        if enough { per_thousand(hits.soft, document) } else { 0.0 }
    }

    /// Is a word of one of the entry's contexts near?
    fn in_context(&self, folded: &str, found: &WordMatch, entry: &Entry, contexts: &[WordMatch]) -> bool {
        // No character has more than four bytes.
        let (window, bytes) = (self.config.context_window, 4 * self.config.context_window);
        let first = contexts.partition_point(|context| context.end + bytes < found.start);
        let near = contexts[first..].iter().take_while(|context| context.start <= found.end + bytes);
        let mut of_entry = near.filter(|context| entry.contexts.contains(&self.contexts.of_entry[context.entry]));
        of_entry.any(|context| {
            let between = if context.end <= found.start { context.end..found.start } else { found.end..context.start };
            folded.get(between).is_some_and(|gap| gap.chars().count() <= window)
        })
    }
}

/// Most documents have no hit: nobody has to split them into words for this.
fn per_thousand(hits: f64, document: &Features<'_>) -> f64 {
    if hits > 0.0 { 1000.0 * hits / document.words().len().max(1) as f64 } else { 0.0 }
}

impl FilterPlugin for BlockedWords {
    fn build(config: Self::Config, _: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        Ok(Box::new(Self::new(config)?))
    }
}

register_filter!(BlockedWords);

impl Filter for BlockedWords {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        Measure::verdict(self.measure(document))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        let hits = self.hits(document.text());
        let (hard, soft) = (self.hard_density(&hits, document), self.soft_density(&hits, document));
        vec![
            Measure::below("blocked_words_hard", hard, limit(self.config.hard_per_thousand)),
            Measure::below("blocked_words_soft", soft, limit(self.config.soft_per_thousand)),
        ]
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::testing::{assert_drops, assert_keeps, assert_sound};

    const ALL: &str =
        "min_soft = 1\nmin_distinct_soft = 1\nsoft_per_thousand = 0\nmin_hard = 1\nhard_per_thousand = 0\n";

    #[test]
    fn a_spam_page_goes_and_an_article_that_mentions_a_word_stays() {
        let spam =
            "Best ONLINE CASINO of 2024! Claim your casino bonus and free spins now, no deposit bonus for all players.";
        assert_drops::<BlockedWords>("", spam, "blocked_words_hard");
        let article =
            "The city council debated the casino on Monday. Residents fear that gambling brings crime; others \
                       hope for jobs. The casino would open in 2026, the mayor said, and pay for the new school. "
                .repeat(3);
        assert_keeps::<BlockedWords>("", &article);
        let medical = "Sildenafil, sold as Viagra, was first studied for hypertension. Trials showed that viagra, like \
                       cialis and levitra, inhibits the same enzyme; "
            .to_owned()
            + &"side effects include headache, flushing and in rare cases a sudden loss of hearing. ".repeat(12);
        assert_keeps::<BlockedWords>("", &medical);
    }

    #[test]
    fn soft_words_need_number_variety_and_density() {
        assert_drops::<BlockedWords>("", "xxx nude milf casino jackpot betting erotic and more", "blocked_words_soft");
        assert_keeps::<BlockedWords>("", &"casino ".repeat(30));
    }

    #[test]
    fn chinese_phrases_match_without_word_borders() {
        let page = "欢迎来到澳门赌场，百家乐开户送彩金，网上赌博首选。";
        assert_drops::<BlockedWords>("", page, "blocked_words_hard");
        assert_drops::<BlockedWords>("", "Ｏｎｌｉｎｅ　Ｃａｓｉｎｏ，ｃａｓｉｎｏ　ｂｏｎｕｓ", "blocked_words_hard");
    }

    /// Honest texts that the strictest settings drop without contexts and allowed phrases.
    #[test]
    fn a_context_or_an_allowed_phrase_makes_a_soft_word_honest() {
        let without_contexts = format!("{ALL}context_weight = 1");
        for honest in [
            "The patients were treated with viagra for pulmonary hypertension.",
            "A school curriculum on porn and consent for students of sixteen.",
            "Police raided an illegal casino in the old harbour.",
            "警方近日打击一个赌博团伙。",
            "学校开展预防色情信息的教育活动。",
        ] {
            assert_keeps::<BlockedWords>(ALL, honest);
            assert_drops::<BlockedWords>(&without_contexts, honest, "blocked_words_soft");
        }
        for allowed in ["Tumours grew in nude mice.", "Casino Royale was filmed in Prague.", "the risk free rate"] {
            assert_keeps::<BlockedWords>(&without_contexts, allowed);
        }
        let far = format!("The patient waited. {} viagra", "and so on ".repeat(20));
        assert_drops::<BlockedWords>(ALL, &far, "blocked_words_soft");
        assert_drops::<BlockedWords>(ALL, "the patient plays at an online casino", "blocked_words_hard");
    }

    #[test]
    fn an_entry_may_have_a_weight_and_contexts_of_its_own() {
        let own =
            format!("{ALL}built_in = false\nsoft = ['drug\t0.25\tgarden', 'gun\t3\t-']\ncontexts.garden = ['rose']\n");
        assert_eq!(assert_drops::<BlockedWords>(&own, "gun one two three", "blocked_words_soft"), 750.0);
        assert_keeps::<BlockedWords>(&own, "drug drug drug");
        assert_eq!(assert_drops::<BlockedWords>(&own, "drug drug drug drug", "blocked_words_soft"), 250.0);
        assert_keeps::<BlockedWords>(&own, "drug drug rose drug drug");
        assert_drops::<BlockedWords>(&own, "a rose and a gun", "blocked_words_soft");
        let refused = |entry: &str| {
            let config = BlockedWordsConfig { soft: vec![entry.into()], ..BlockedWordsConfig::default() };
            BlockedWords::new(config).err().expect("refused").to_string()
        };
        assert!(refused("drug\tmuch").contains("`much`"), "{}", refused("drug\tmuch"));
        assert!(refused("drug\t1\tmedcal").contains("medcal"), "{}", refused("drug\t1\tmedcal"));
        assert_sound::<BlockedWords>(ALL);
    }

    #[test]
    fn a_list_file_is_used_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("words.txt");
        std::fs::write(&path, "# ours\nFrobnicate\n\n").expect("list");
        let settings = |file: &Path| format!("built_in = false\nmin_hard = 1\nhard_file = '{}'", file.display());
        assert_drops::<BlockedWords>(&settings(&path), "Do not frobnicate it.", "blocked_words_hard");
        let config =
            BlockedWordsConfig { hard_file: dir.path().join("no.txt").display().to_string(), ..Default::default() };
        let message = BlockedWords::new(config).err().expect("missing").to_string();
        assert!(message.contains("no.txt"), "{message}");
    }
}
