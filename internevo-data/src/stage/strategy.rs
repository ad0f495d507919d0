//! Which filters judge which documents: those of the stage, or those of the first strategy that fits (`[[pipeline.strategy]]`).
//!
//! ```toml
//! [[pipeline.strategy]]
//! source = "arxiv*"
//! quality = ["perplexity"]
//! filter.perplexity.en.high = 3000.0
//! ```

use internevo_core::{
    config::{PipelineConfig, StrategyConfig},
    plugin::PluginError,
};
use regex::Regex;
use serde_json::{Value, json};

use crate::{
    DataError, Document, Features,
    filter::{FilterChain, FilterContext, Judgement},
};

/// The filters of a stage; by default none.
#[derive(Default)]
pub struct Strategies {
    strategies: Vec<(Condition, FilterChain)>,
    rest: FilterChain,
}

impl Strategies {
    /// Builds the filters `names` of `stage` and those of every strategy. Equal filters with equal settings are built once.
    ///
    /// # Errors
    /// An unknown name, a table that does not fit, a missing model.
    pub fn build(
        stage: &str,
        names: &[String],
        pipeline: &PipelineConfig,
        cx: &FilterContext<'_>,
    ) -> Result<Self, PluginError> {
        let mut made = Vec::new();
        let rest = FilterChain::build_sharing(names, &pipeline.filter, cx, &mut made)?;
        let strategies = pipeline.strategy.iter().map(|strategy| {
            let mut settings = pipeline.filter.clone();
            merge(&mut settings, &strategy.filter);
            let names = strategy.filters(stage).unwrap_or(names);
            Ok((Condition::new(strategy), FilterChain::build_sharing(names, &settings, cx, &mut made)?))
        });
        Ok(Self { strategies: strategies.collect::<Result<_, PluginError>>()?, rest })
    }

    /// The filters for a document.
    pub fn of(&self, document: &Document) -> &FilterChain {
        let fits = self.strategies.iter().find(|(condition, _)| condition.fits(document));
        fits.map_or(&self.rest, |(_, chain)| chain)
    }

    /// What the filters of each document say about it, with their chain, in the order of the documents. Those of one chain are judged
    /// together.
    pub fn judge_all(&self, documents: &[&Document]) -> Vec<(&FilterChain, Judgement)> {
        let features: Vec<Features<'_>> = documents.iter().map(|document| Features::new(document)).collect();
        let mut judged: Vec<_> = documents.iter().map(|document| (self.of(document), Judgement::default())).collect();
        for chain in self.chains() {
            let own = features.iter().zip(&mut judged).filter(|(_, (of, _))| std::ptr::eq(*of, chain));
            chain.judge_pending(0, own.map(|(document, (_, judgement))| (document, judgement)).collect());
        }
        judged
    }

    /// How many documents should be judged at once; see [`Filter::window`](crate::Filter::window).
    pub fn window(&self) -> usize {
        self.chains().map(FilterChain::window).max().unwrap_or(1)
    }

    /// The first filter of any chain that failed, and why; see [`Filter::failure`](crate::Filter::failure).
    pub(super) fn check(&self) -> Result<(), DataError> {
        let failure = self.chains().find_map(FilterChain::failure);
        failure.map_or(Ok(()), |(filter, reason)| Err(DataError::Filter { filter: filter.to_owned(), reason }))
    }

    fn chains(&self) -> impl Iterator<Item = &FilterChain> {
        self.strategies.iter().map(|(_, chain)| chain).chain([&self.rest])
    }

    /// All that verdicts depend on, for the hash of a request.
    pub(super) fn identity(&self, pipeline: &PipelineConfig) -> Value {
        let names: Vec<&str> = self.rest.names().collect();
        let settings: Vec<_> = names.iter().map(|name| pipeline.filter.get(*name)).collect();
        if self.strategies.is_empty() {
            return json!([names, settings, self.rest.fingerprints()]);
        }
        let others: Vec<_> = self
            .strategies
            .iter()
            .map(|(_, chain)| (chain.names().collect::<Vec<_>>(), chain.fingerprints()))
            .collect();
        json!([names, pipeline.filter, self.rest.fingerprints(), pipeline.strategy, others])
    }
}

/// When a strategy is meant; `None` fits everything.
struct Condition {
    source: Option<Regex>,
    kind: Option<Regex>,
    lang: Option<Regex>,
}

impl Condition {
    fn new(strategy: &StrategyConfig) -> Self {
        let pattern = |glob: &String| (!glob.is_empty()).then(|| glob_pattern(glob));
        Self { source: pattern(&strategy.source), kind: pattern(&strategy.kind), lang: pattern(&strategy.lang) }
    }

    fn fits(&self, document: &Document) -> bool {
        let fits = |pattern: &Option<Regex>, field: &str| {
            pattern.as_ref().is_none_or(|pattern| document.field(field).is_some_and(|value| pattern.is_match(value)))
        };
        fits(&self.source, "source") && fits(&self.kind, "type") && fits(&self.lang, "lang")
    }
}

/// `*` stands for any characters, `?` for one, everything else for itself.
fn glob_pattern(glob: &str) -> Regex {
    let pattern = regex::escape(glob).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("(?s)^{pattern}$")).expect("an escaped text is a pattern")
}

/// Takes over `changes`, tables key by key.
fn merge(settings: &mut toml::Table, changes: &toml::Table) {
    for (key, change) in changes {
        match (settings.get_mut(key), change) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(change)) => merge(inner, change),
            _ => drop(settings.insert(key.clone(), change.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn strategies(toml: &str) -> Strategies {
        let pipeline: PipelineConfig = toml::from_str(toml).expect("a pipeline");
        let context = FilterContext { lang: None, artifacts: Path::new("none") };
        Strategies::build("quality", &pipeline.quality, &pipeline, &context).expect("filters")
    }

    fn document(fields: &[(&str, &str)]) -> Document {
        let mut document = Document::new("a", "five words are in this text");
        document.meta.extend(fields.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))));
        document
    }

    #[test]
    fn the_first_strategy_that_fits_decides_which_filters_judge_with_which_settings() {
        let strategies = strategies(
            "quality = ['gopher_quality']\n\
             [filter.gopher_quality]\nmin_words = 3\nmin_stop_words = 0\n\
             [[strategy]]\nsource = 'cc-*'\nlang = 'e?'\nfilter.gopher_quality.min_words = 10\n\
             [[strategy]]\nsource = 'cc-*'\nquality = []\n\
             [[strategy]]\ntype = 'book'\nquality = ['gopher_repetition']\n",
        );
        let drops = |fields: &[(&str, &str)]| {
            let document = document(fields);
            let (_, judgement) = strategies.judge_all(&[&document]).remove(0);
            judgement.dropped.map(|(_, reason, value)| (reason.into_owned(), value))
        };
        assert_eq!(drops(&[]), None);
        assert_eq!(drops(&[("source", "cc-2024"), ("lang", "en")]), Some(("gopher_short_document".into(), 6.0)));
        let names =
            |fields: &[(&str, &str)]| strategies.of(&document(fields)).names().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names(&[("source", "cc-2024"), ("lang", "zh")]), [""; 0]);
        assert_eq!(names(&[("source", "a cc-2024"), ("lang", "en")]), ["gopher_quality"]);
        assert_eq!(names(&[("source", "library"), ("type", "book")]), ["gopher_repetition"]);
    }

    #[test]
    fn a_stage_is_another_one_when_a_strategy_changes() {
        let identity = |toml: &str| {
            let pipeline = toml::from_str(toml).expect("a pipeline");
            strategies(toml).identity(&pipeline)
        };
        let base = "quality = ['gopher_quality']\n";
        let with = |strategy: &str| identity(&format!("{base}[[strategy]]\n{strategy}"));
        let all = [identity(base), with("lang = 'zh'"), with("lang = 'en'"), with("lang = 'en'\nquality = []")];
        for (at, own) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| other != own), "{at}");
        }
    }
}
