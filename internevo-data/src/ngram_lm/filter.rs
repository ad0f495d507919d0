//! `perplexity`: keeps documents that a language model finds neither too surprising nor too predictable.

use std::{collections::BTreeMap, path::Path};

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LmReport, LmTokens, NgramModel};
use crate::{Features, Filter, FilterContext, FilterPlugin, Measure, Verdict, register_filter};

/// Name of the model that judges every language without one of its own.
const ANY: &str = "*";

/// Settings of `perplexity`: a model for each language, `*` for all others. Documents in a language without a model stay, and source
/// code stays unless its language (`code:rust`) is named.
///
/// ```toml
/// [pipeline.filter.perplexity.en]
/// model = "models/en.binary"
/// high = 1500.0
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PerplexityConfig(pub BTreeMap<String, LanguageModel>);

/// A language's model and the perplexities that keep a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LanguageModel {
    /// An ARPA file (also `.gz`, `.zst`) or a binary file of KenLM's.
    pub model: String,
    /// How lines are cut: `words`, `spaces` or the path of a `tokenizer.json`. Empty: as the model was trained, which `data lm train`
    /// notes beside it; `words` for other models.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tokens: String,
    /// Drop documents whose perplexity is lower: what repeats itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Drop documents whose perplexity is higher: what reads like no text of the training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// The filter.
pub struct Perplexity {
    models: BTreeMap<String, Model>,
    /// Language of all documents where the user names one.
    lang: Option<String>,
}

struct Model {
    model: NgramModel,
    tokens: LmTokens,
    low: Option<f64>,
    high: Option<f64>,
}

impl Model {
    fn new(settings: &LanguageModel) -> Result<Self, String> {
        let LanguageModel { low, high, .. } = *settings;
        let is_empty = low.zip(high).is_some_and(|(low, high)| low >= high);
        if low.is_none() && high.is_none() || is_empty {
            return Err("set `low` or `high`, and `low` below `high`".into());
        }
        let path = Path::new(&settings.model);
        let trained = LmReport::of(path).map(|report| report.tokens);
        let tokens = match settings.tokens.as_str() {
            "" => trained.unwrap_or_else(|| LmTokens::Words.to_string()),
            named => named.to_owned(),
        };
        let tokens = LmTokens::parse(&tokens)?;
        Ok(Self { model: NgramModel::load(path).map_err(|error| error.to_string())?, tokens, low, high })
    }
}

impl Perplexity {
    /// The document's perplexity, and the model that found it; `None` where no model applies or there is no text.
    fn of(&self, document: &Features<'_>) -> Option<(f64, &Model)> {
        let lang = self.lang.as_deref().or(document.lang()).unwrap_or_default();
        let any = || self.models.get(ANY).filter(|_| !document.is_code());
        let model = self.models.get(lang).or_else(any)?;
        Some((model.model.score(document.text(), &model.tokens).perplexity()?, model))
    }
}

impl Plugin for Perplexity {
    const NAME: &'static str = "perplexity";
    const ABOUT: &'static str =
        "Keeps documents whose perplexity under an n-gram language model (KenLM, ARPA) is between two limits.";
    type Config = PerplexityConfig;
}

impl FilterPlugin for Perplexity {
    fn build(config: Self::Config, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        if config.0.is_empty() {
            let key = "pipeline.filter.perplexity.LANG";
            return Err(Self::refused(format!("there is no model: set `model` and `low` or `high` in [{key}]")));
        }
        let models = config.0.iter().map(|(lang, settings)| {
            let model = Model::new(settings).map_err(|reason| Self::refused(format!("`{lang}`: {reason}")))?;
            Ok((lang.clone(), model))
        });
        Ok(Box::new(Self { models: models.collect::<Result<_, PluginError>>()?, lang: cx.lang.map(str::to_owned) }))
    }
}

register_filter!(Perplexity);

impl Filter for Perplexity {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        Measure::verdict(self.measure(document))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        let Some((value, model)) = self.of(document) else { return Vec::new() };
        let low = model.low.map(|low| Measure::at_least("perplexity_low", value, low));
        let high = model.high.map(|high| Measure::at_most("perplexity_high", value, high));
        low.into_iter().chain(high).collect()
    }

    fn fingerprint(&self) -> String {
        let of = |(lang, model): (&String, &Model)| format!("{lang}={},{}", model.model.fingerprint(), model.tokens);
        self.models.iter().map(of).collect::<Vec<_>>().join("+")
    }
}
