//! `safety_policy`: one decision from all signals of the safe stage.
//!
//! A document goes if any one signal reaches its limit, or if the weighted sum of several does; a source may have a policy of its
//! own:
//!
//! ```toml
//! [pipeline.filter.safety_policy]
//! any = { domain = 1.0, words_hard = 5.0, pornography = 0.95 }
//! weights = { domain = 0.5, words_soft = 0.02, toxicity = 0.6 }
//! max_sum = 1.0
//!
//! [pipeline.filter.safety_policy.urls]
//! lists = ["lists/ut1"]
//! category_weights = { shopping = 0.2 }
//!
//! [pipeline.filter.safety_policy.sources.medline]
//! any = { domain = 1.0 }
//! weights = {}
//! ```
//!
//! Only what a limit or weight names is measured, and only its models and lists are needed.

use std::{cell::OnceCell, collections::BTreeMap};

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Address, BlockedUrls, BlockedUrlsConfig, BlockedWords, BlockedWordsConfig, PersonalData, PersonalDataConfig,
    Pornography, Toxicity, WordHits, limit,
};
use crate::{
    Features, Filter, FilterContext, FilterPlugin, Measure, Verdict,
    classifier::{Classified, ClassifiedConfig},
    register_filter,
};

/// Something that is measured of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Weight of the document's own address in lists of domains, addresses and words; 0 to the greatest category weight.
    Domain,
    /// Share of the text's links that are blocked; 0 below `urls.min_links`.
    Links,
    /// Hard phrases per thousand words; 0 below `words.min_hard`.
    WordsHard,
    /// Soft phrases per thousand words; 0 below `words.min_soft` and `words.min_distinct_soft`.
    WordsSoft,
    /// E-mail addresses, numbers and the like per thousand words; 0 below `personal_data.min_hits`.
    PersonalData,
    /// Probability that the text is toxic.
    Toxicity,
    /// Probability that the text is pornographic.
    Pornography,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Links => "links",
            Self::WordsHard => "words_hard",
            Self::WordsSoft => "words_soft",
            Self::PersonalData => "personal_data",
            Self::Toxicity => "toxicity",
            Self::Pornography => "pornography",
        }
    }
}

/// Settings of `safety_policy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SafetyPolicyConfig {
    /// Limits: a document goes if one signal reaches its own.
    pub any: BTreeMap<Signal, f64>,
    /// Weights of the signals in the sum.
    pub weights: BTreeMap<Signal, f64>,
    /// A document goes if the sum reaches this.
    pub max_sum: f64,
    /// What replaces the above for documents of a source. A key is the beginning of their `source` (the longest counts), or the domain
    /// of their `url`.
    pub sources: BTreeMap<String, SourcePolicy>,
    /// How words are counted.
    pub words: BlockedWordsConfig,
    /// How addresses are judged.
    pub urls: BlockedUrlsConfig,
    /// How personal data are counted.
    pub personal_data: PersonalDataConfig,
    /// The classifier of toxicity.
    pub toxicity: ClassifiedConfig,
    /// The classifier of pornography.
    pub pornography: ClassifiedConfig,
}

impl Default for SafetyPolicyConfig {
    fn default() -> Self {
        Self {
            any: [(Signal::Domain, 1.0), (Signal::Links, 0.1), (Signal::WordsHard, 5.0), (Signal::WordsSoft, 20.0)]
                .into(),
            weights: BTreeMap::new(),
            max_sum: 1.0,
            sources: BTreeMap::new(),
            words: BlockedWordsConfig::default(),
            urls: BlockedUrlsConfig::default(),
            personal_data: PersonalDataConfig::default(),
            toxicity: ClassifiedConfig::default(),
            pornography: ClassifiedConfig::default(),
        }
    }
}

/// What is different for a source; what is unset is as for all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SourcePolicy {
    /// Limits of single signals.
    pub any: Option<BTreeMap<Signal, f64>>,
    /// Weights of the signals in the sum.
    pub weights: Option<BTreeMap<Signal, f64>>,
    /// Limit of the sum.
    pub max_sum: Option<f64>,
}

/// Limits and weights that apply to a document.
#[derive(Clone, Debug, PartialEq)]
struct Policy {
    any: BTreeMap<Signal, f64>,
    weights: BTreeMap<Signal, f64>,
    max_sum: f64,
}

/// The filter.
pub struct SafetyPolicy {
    all: Policy,
    sources: BTreeMap<String, Policy>,
    meters: Meters,
}

/// What measures the signals; `None` where no policy asks.
struct Meters {
    words: Option<BlockedWords>,
    urls: Option<BlockedUrls>,
    personal_data: Option<PersonalData>,
    toxicity: Option<Classified<Toxicity>>,
    pornography: Option<Classified<Pornography>>,
}

impl Meters {
    fn new(
        config: SafetyPolicyConfig,
        uses: impl Fn(Signal) -> bool,
        cx: &FilterContext<'_>,
    ) -> Result<Self, PluginError> {
        let any = |signals: &[Signal]| signals.iter().any(|signal| uses(*signal));
        Ok(Self {
            words: any(&[Signal::WordsHard, Signal::WordsSoft]).then(|| BlockedWords::new(config.words)).transpose()?,
            urls: any(&[Signal::Domain, Signal::Links]).then(|| BlockedUrls::new(config.urls, cx)).transpose()?,
            personal_data: uses(Signal::PersonalData).then(|| PersonalData::new(config.personal_data)),
            toxicity: uses(Signal::Toxicity).then(|| Classified::new(config.toxicity, cx)).transpose()?,
            pornography: uses(Signal::Pornography).then(|| Classified::new(config.pornography, cx)).transpose()?,
        })
    }

    fn fingerprint(&self) -> String {
        let parts = [
            self.words.as_ref().map(Filter::fingerprint),
            self.urls.as_ref().map(Filter::fingerprint),
            self.toxicity.as_ref().map(Filter::fingerprint),
            self.pornography.as_ref().map(Filter::fingerprint),
        ];
        parts.map(Option::unwrap_or_default).join("-")
    }
}

/// The signals of one document, each measured when it is first asked for.
struct Measured<'a, 'b> {
    meters: &'a Meters,
    document: &'a Features<'b>,
    words: OnceCell<WordHits>,
}

impl Measured<'_, '_> {
    fn of(&self, signal: Signal) -> f64 {
        const BUILT: &str = "what a policy names is measured";
        let (meters, document) = (self.meters, self.document);
        let words = || meters.words.as_ref().expect(BUILT);
        let hits = || *self.words.get_or_init(|| words().hits(document.text()));
        let urls = || meters.urls.as_ref().expect(BUILT);
        match signal {
            Signal::Domain => urls().own_address(document).map_or(0.0, |blocked| blocked.weight),
            Signal::Links => urls().blocked_share(document),
            Signal::WordsHard => words().hard_density(&hits(), document),
            Signal::WordsSoft => words().soft_density(&hits(), document),
            Signal::PersonalData => meters.personal_data.as_ref().expect(BUILT).density(document),
            Signal::Toxicity => meters.toxicity.as_ref().expect(BUILT).probability(document).unwrap_or(0.0),
            Signal::Pornography => meters.pornography.as_ref().expect(BUILT).probability(document).unwrap_or(0.0),
        }
    }
}

impl Plugin for SafetyPolicy {
    const NAME: &'static str = "safety_policy";
    const ABOUT: &'static str = "Drops documents by addresses, words, personal data and trained classifiers together: limits, a weighted sum, sources.";
    type Config = SafetyPolicyConfig;
}

impl FilterPlugin for SafetyPolicy {
    fn build(config: Self::Config, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        let all = Policy { any: config.any.clone(), weights: config.weights.clone(), max_sum: config.max_sum };
        let of_source = |own: &SourcePolicy| Policy {
            any: own.any.clone().unwrap_or_else(|| all.any.clone()),
            weights: own.weights.clone().unwrap_or_else(|| all.weights.clone()),
            max_sum: own.max_sum.unwrap_or(all.max_sum),
        };
        let sources: BTreeMap<String, Policy> =
            config.sources.iter().map(|(source, own)| (source.clone(), of_source(own))).collect();
        let uses = |signal: Signal| {
            let mut policies = sources.values().chain([&all]);
            policies.any(|policy| policy.any.contains_key(&signal) || policy.weights.contains_key(&signal))
        };
        let meters = Meters::new(config, uses, cx)?;
        Ok(Box::new(Self { all, sources, meters }))
    }
}

register_filter!(SafetyPolicy);

impl SafetyPolicy {
    fn measured<'a, 'b>(&'a self, document: &'a Features<'b>) -> Measured<'a, 'b> {
        Measured { meters: &self.meters, document, words: OnceCell::new() }
    }

    fn policy(&self, document: &Features<'_>) -> &Policy {
        if self.sources.is_empty() {
            return &self.all;
        }
        let source = document.document().field("source").unwrap_or_default();
        let mut by_source = self.sources.iter().filter(|(key, _)| source.starts_with(key.as_str()));
        // Of keys that begin one text, the longest sorts last.
        if let Some((_, policy)) = by_source.next_back() {
            return policy;
        }
        let address = document.document().field("url").and_then(Address::parse);
        address.and_then(|address| address.domains().find_map(|domain| self.sources.get(domain))).unwrap_or(&self.all)
    }
}

impl Policy {
    /// The limits of single signals, each measured when it is asked for.
    fn single_rules(&self, measured: &Measured<'_, '_>) -> impl Iterator<Item = Measure> {
        let rule = move |(signal, most): (&Signal, &f64)| {
            Measure::below(format!("safety_{}", signal.name()), measured.of(*signal), limit(*most))
        };
        self.any.iter().map(rule)
    }

    /// The weighted signals; none where nothing is added up.
    fn parts(&self, measured: &Measured<'_, '_>) -> Vec<(f64, Signal)> {
        self.weights.iter().map(|(signal, weight)| (weight * measured.of(*signal), *signal)).collect()
    }

    /// The limit of the sum, without the signals that decide: [`Policy::judge`] names them.
    fn sum_rule(&self, parts: &[(f64, Signal)]) -> Option<Measure> {
        let sum = parts.iter().map(|(part, _)| part).sum();
        (!parts.is_empty()).then(|| Measure::below("safety_sum", sum, self.max_sum))
    }

    fn judge(&self, measured: &Measured<'_, '_>) -> Verdict {
        let single = Measure::verdict(self.single_rules(measured));
        if !single.keeps() {
            return single;
        }
        let mut parts = self.parts(measured);
        match self.sum_rule(&parts).filter(Measure::is_violated) {
            Some(sum) => Verdict::drop(format!("safety_sum_of_{}", deciding(&mut parts, self.max_sum)), sum.value),
            None => Verdict::Keep,
        }
    }

    fn measure(&self, measured: &Measured<'_, '_>) -> Vec<Measure> {
        self.single_rules(measured).chain(self.sum_rule(&self.parts(measured))).collect()
    }
}

/// The fewest signals whose parts reach the limit together, by name.
fn deciding(parts: &mut [(f64, Signal)], limit: f64) -> String {
    parts.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut sum = 0.0;
    let needed = parts.iter().take_while(|(part, _)| {
        let reached = sum >= limit;
        sum += part;
        !reached
    });
    let mut signals: Vec<Signal> = needed.map(|(_, signal)| *signal).collect();
    signals.sort_unstable();
    signals.into_iter().map(Signal::name).collect::<Vec<_>>().join("_and_")
}

impl Filter for SafetyPolicy {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        self.policy(document).judge(&self.measured(document))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        self.policy(document).measure(&self.measured(document))
    }

    fn fingerprint(&self) -> String {
        self.meters.fingerprint()
    }

    fn failure(&self) -> Option<String> {
        let toxicity = self.meters.toxicity.as_ref().and_then(Filter::failure);
        toxicity.or_else(|| self.meters.pornography.as_ref()?.failure())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::trained::tests::store_model, *};
    use crate::{
        Document,
        testing::{assert_sound, judge_document},
    };

    fn document(text: &str, url: &str, source: &str) -> Document {
        let mut document = Document::new("d", text);
        document.meta.insert("url".into(), url.into());
        document.meta.insert("source".into(), source.into());
        document
    }

    fn reason(settings: &str, document: &Document) -> String {
        match judge_document::<SafetyPolicy>(settings, document) {
            Verdict::Drop { reason, .. } => reason.into_owned(),
            other => format!("{other:?}"),
        }
    }

    /// Five soft phrases of different kinds among 25 words: 200 per thousand.
    const SOFT: &str = "The old hall had a casino and a roulette and a jackpot and an erotic show and much betting in those years of noise.";

    #[test]
    fn one_signal_at_its_limit_decides_and_is_named() {
        let porn = document("fine", "http://www.pornhub.com/x", "crawl");
        assert_eq!(judge_document::<SafetyPolicy>("", &porn), Verdict::drop("safety_domain", 1.0));
        assert_eq!(reason("", &document(SOFT, "", "crawl")), "safety_words_soft");
        assert_eq!(reason("any = { words_hard = 5 }", &document(SOFT, "", "crawl")), "Keep");
        assert_eq!(
            reason("any = { personal_data = 50 }", &document(&"a@b.org ".repeat(20), "", "")),
            "safety_personal_data"
        );
        assert_sound::<SafetyPolicy>(
            "any = { domain = 0, words_hard = 0, words_soft = 0, links = 0, personal_data = 0 }",
        );
    }

    #[test]
    fn a_weighted_sum_names_the_fewest_signals_that_reach_it() {
        let settings = "any = {}\nmax_sum = 1\nweights = { domain = 0.5, words_soft = 0.0025, links = 0.1 }";
        let soft_page = document(SOFT, "http://www.pornhub.com/x", "crawl");
        let Verdict::Drop { reason: both, value } = judge_document::<SafetyPolicy>(settings, &soft_page) else {
            panic!("the sum reaches the limit")
        };
        assert_eq!(both, "safety_sum_of_domain_and_words_soft");
        assert!((1.0..1.2).contains(&value), "{value}");
        assert_eq!(reason(settings, &document(SOFT, "http://docs.rs/", "crawl")), "Keep");
        let heavy = settings.replace("0.0025", "0.01");
        assert_eq!(reason(&heavy, &soft_page), "safety_sum_of_words_soft");
    }

    #[test]
    fn a_source_has_its_own_policy_by_name_or_domain() {
        let settings = "sources.med.any = { domain = 1 }\nsources.medline.any = {}\nsources.'lancet.example'.any = {}";
        let casino = "http://casino.bet365.com/";
        assert_eq!(reason(settings, &document(SOFT, casino, "crawl")), "safety_domain");
        assert_eq!(reason(settings, &document(SOFT, "", "crawl")), "safety_words_soft");
        assert_eq!(reason(settings, &document(SOFT, "", "medical/1")), "Keep");
        assert_eq!(reason(settings, &document(SOFT, casino, "medical/1")), "safety_domain");
        assert_eq!(reason(settings, &document(SOFT, casino, "medline-7")), "Keep");
        assert_eq!(reason(settings, &document(SOFT, "https://www.lancet.example/x", "crawl")), "Keep");
    }

    #[test]
    fn a_model_is_needed_only_where_its_signal_is_named() {
        let dir = tempfile::tempdir().expect("folder");
        let build = |settings: &str| {
            let config = toml::from_str(settings).expect("settings");
            SafetyPolicy::build(config, &FilterContext { lang: None, artifacts: dir.path() })
        };
        assert!(build("").is_ok());
        let named = "any = {}\nsources.forum.any = { toxicity = 0.8 }";
        assert!(build(named).err().expect("no model").to_string().contains("toxicity.classifier"));
        store_model(dir.path(), "toxicity.classifier");
        let filter = build(named).expect("built");
        let vile = "a vile and awful word in a vile voice";
        let judge = |source: &str| filter.judge(&Features::new(&document(vile, "", source)));
        assert!(
            matches!(judge("forum/1"), Verdict::Drop { reason, value } if reason == "safety_toxicity" && value > 0.8)
        );
        assert_eq!(judge("books"), Verdict::Keep);
        assert_ne!(filter.fingerprint(), build("any = {}").expect("built").fingerprint());
    }
}
