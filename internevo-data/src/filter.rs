//! What a filter is, how a crate offers one by name, and the chain that a stage runs.
//!
//! Not here: the filters themselves (`filters/`, `safety/`, `quality/`), what they look at (`features/`), the run over files
//! (`stage/`).

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Range,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use internevo_core::{
    plugin::{Entry as _, Plugin, PluginError, Registry, settings_of},
    plugin_kind,
};

use crate::{Document, features::Features};

/// What a filter says about a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The document stays.
    Keep,
    /// The document stays with another text, which later filters see.
    Edit(Edit),
    /// The document goes.
    Drop {
        /// Which rule, in snake_case; reports count by it.
        reason: Cow<'static, str>,
        /// What the rule measured.
        value: f64,
    },
}

impl Verdict {
    /// Drops for `reason` with what was measured.
    pub fn drop(reason: impl Into<Cow<'static, str>>, value: f64) -> Self {
        Self::Drop { reason: reason.into(), value }
    }

    /// Does the document stay, edited or not?
    pub fn keeps(&self) -> bool {
        !matches!(self, Self::Drop { .. })
    }
}

/// A text in place of another, and what was done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The new text.
    pub text: String,
    /// What was changed, by reason (snake_case).
    pub changes: BTreeMap<Cow<'static, str>, Change>,
}

/// What was done to a text for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// How often.
    pub places: u64,
    /// Bytes that were cut out or replaced.
    pub bytes_removed: u64,
    /// Bytes that came in their place.
    pub bytes_added: u64,
}

/// Edits a text from its beginning to its end, and keeps the books.
///
/// ```
/// use internevo_data::filter::{Editor, Verdict};
///
/// let mut editor = Editor::new("mail me@host.org today");
/// editor.replace(5..16, "<EMAIL>", "email");
/// let Verdict::Edit(edit) = editor.verdict() else { panic!("something was replaced") };
/// assert_eq!(edit.text, "mail <EMAIL> today");
/// assert_eq!((edit.changes["email"].places, edit.changes["email"].bytes_removed), (1, 11));
/// ```
#[derive(Clone, Debug)]
pub struct Editor<'a> {
    original: &'a str,
    /// Bytes of the original that are in `edit.text`, or were replaced.
    done: usize,
    edit: Edit,
}

impl<'a> Editor<'a> {
    /// Nothing is changed yet.
    pub fn new(original: &'a str) -> Self {
        Self { original, done: 0, edit: Edit::default() }
    }

    /// Puts `new` in the place of these bytes of the original.
    ///
    /// # Panics
    /// If they begin before the end of an earlier replacement, or are not at borders of characters.
    pub fn replace(&mut self, bytes: Range<usize>, new: &str, reason: impl Into<Cow<'static, str>>) {
        self.edit.text.push_str(&self.original[self.done..bytes.start]);
        self.edit.text.push_str(new);
        let change = self.edit.changes.entry(reason.into()).or_default();
        change.places += 1;
        change.bytes_removed += bytes.len() as u64;
        change.bytes_added += new.len() as u64;
        self.done = bytes.end;
    }

    /// [`Verdict::Edit`], or [`Verdict::Keep`] if nothing was replaced.
    pub fn verdict(mut self) -> Verdict {
        if self.edit.changes.is_empty() {
            return Verdict::Keep;
        }
        self.edit.text.push_str(&self.original[self.done..]);
        Verdict::Edit(self.edit)
    }
}

/// What a rule allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Documents below this go.
    Min(f64),
    /// Documents above this go.
    Max(f64),
    /// Documents at this or above it go.
    Below(f64),
}

impl Bound {
    /// The threshold itself.
    pub fn threshold(self) -> f64 {
        let (Self::Min(threshold) | Self::Max(threshold) | Self::Below(threshold)) = self;
        threshold
    }
}

/// What a rule measures in a document, whether it drops it or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// Which rule: the reason that its rejections have.
    pub reason: Cow<'static, str>,
    /// What was measured.
    pub value: f64,
    /// What is allowed.
    pub bound: Bound,
}

impl Measure {
    /// `value` must not be below `least`.
    pub fn at_least(reason: impl Into<Cow<'static, str>>, value: f64, least: f64) -> Self {
        Self { reason: reason.into(), value, bound: Bound::Min(least) }
    }

    /// `value` must not be above `most`.
    pub fn at_most(reason: impl Into<Cow<'static, str>>, value: f64, most: f64) -> Self {
        Self { reason: reason.into(), value, bound: Bound::Max(most) }
    }

    /// `value` must be below `limit`.
    pub fn below(reason: impl Into<Cow<'static, str>>, value: f64, limit: f64) -> Self {
        Self { reason: reason.into(), value, bound: Bound::Below(limit) }
    }

    /// Does the rule drop the document?
    pub fn is_violated(&self) -> bool {
        match self.bound {
            Bound::Min(least) => self.value < least,
            Bound::Max(most) => self.value > most,
            Bound::Below(limit) => self.value >= limit,
        }
    }

    /// The verdict of the first of some rules that is violated.
    pub fn verdict(measures: impl IntoIterator<Item = Self>) -> Verdict {
        match measures.into_iter().find(Self::is_violated) {
            Some(Self { reason, value, .. }) => Verdict::Drop { reason, value },
            None => Verdict::Keep,
        }
    }
}

/// Judges documents. Called from many threads.
pub trait Filter: Send + Sync {
    /// Keep, edit or drop. The same document and settings must always get the same verdict: resumed runs depend on it.
    fn judge(&self, document: &Features<'_>) -> Verdict;

    /// The verdicts on several documents, in their order, each as [`Filter::judge`] gives it. For filters that gain by seeing more
    /// than one, such as programs that are asked.
    fn judge_all(&self, documents: &[&Features<'_>]) -> Vec<Verdict> {
        documents.iter().map(|document| self.judge(document)).collect()
    }

    /// How many documents it wants to see at once; a stage gives it as many where it can.
    fn window(&self) -> usize {
        1
    }

    /// What the verdict depends on beyond the settings, for example the hash of a model's file. A finished stage is reused only
    /// if this has not changed.
    fn fingerprint(&self) -> String {
        String::new()
    }

    /// What each rule measures in a document, for reports and for people who review what is near a threshold. A filter without
    /// thresholds has nothing to say here.
    fn measure(&self, _document: &Features<'_>) -> Vec<Measure> {
        Vec::new()
    }

    /// Why the verdicts given since the last call cannot be trusted: a program or a file that the filter needs is gone. The stage
    /// writes nothing of what was judged since, and ends with this reason.
    fn failure(&self) -> Option<String> {
        None
    }
}

/// What a filter is told when it is built.
#[derive(Clone, Copy, Debug)]
pub struct FilterContext<'a> {
    /// Language of all documents where the user names one; otherwise each document's own `lang` counts.
    pub lang: Option<&'a str>,
    /// Folder of trained models, such as the quality classifier's.
    pub artifacts: &'a Path,
}

/// A filter that can be named in `pipeline.clean`, `pipeline.safe` and `pipeline.quality`.
pub trait FilterPlugin: Plugin {
    /// Builds the filter from its settings.
    ///
    /// # Errors
    /// [`PluginError::Build`] when a setting makes no sense or a model is missing.
    fn build(config: Self::Config, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError>;
}

plugin_kind! {
    /// A registered filter.
    pub struct FilterEntry("filter"): FilterPlugin::build(&FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError>;
    /// All filters linked into this binary, by name.
    pub fn list;
}

/// Registers a [`FilterPlugin`]. A filter that holds nothing but its settings, in a field `config`, and perhaps the language of
/// [`FilterContext`] in a field `lang: Option<String>`, is also made one by `register_filter!(Name { config })` or
/// `register_filter!(Name { config, lang })`.
#[macro_export]
macro_rules! register_filter {
    ($plugin:ident { config $(, $lang:ident)? }) => {
        impl $crate::FilterPlugin for $plugin {
            fn build(
                config: <Self as $crate::plugin::Plugin>::Config,
                _cx: &$crate::FilterContext<'_>,
            ) -> Result<Box<dyn $crate::Filter>, $crate::plugin::PluginError> {
                Ok(Box::new(Self { config, $($lang: _cx.$lang.map(str::to_owned))? }))
            }
        }
        $crate::register_filter!($plugin);
    };
    ($plugin:ty) => {
        $crate::__submit!($crate::FilterEntry, $plugin);
    };
}

/// Filters in order. The first that drops a document decides; later ones do not see it.
#[derive(Clone, Default)]
pub struct FilterChain {
    /// Each under the name that it is registered under.
    filters: Vec<(String, Arc<dyn Filter>)>,
}

/// Documents that a chain has yet to judge, and what it says about them so far.
type Pending<'a, 'd> = Vec<(&'a Features<'d>, &'a mut Judgement)>;

/// What a chain says about a document, and how long each filter took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// The text as the filters left it; `None` where none edited it.
    pub text: Option<String>,
    /// Index of each filter that edited it, in order, and what it changed.
    pub edits: Vec<(usize, BTreeMap<Cow<'static, str>, Change>)>,
    /// Index of the filter that dropped it, its reason and value; `None` when the document stays.
    pub dropped: Option<(usize, Cow<'static, str>, f64)>,
    /// Time in each filter that saw the document, in the order of the chain. What several filters share (words, n-grams) is
    /// charged to the first that asks.
    pub times: Vec<Duration>,
}

impl FilterChain {
    /// Builds the named filters with their tables of `settings`.
    ///
    /// # Errors
    /// An unknown name, a table that does not fit, a missing model.
    pub fn build(names: &[String], settings: &toml::Table, cx: &FilterContext<'_>) -> Result<Self, PluginError> {
        Self::build_sharing(names, settings, cx, &mut Vec::new())
    }

    /// As [`FilterChain::build`], but takes what `made` holds of the same name and settings, and adds what it builds: chains that
    /// share a filter share its model.
    pub(crate) fn build_sharing(
        names: &[String],
        settings: &toml::Table,
        cx: &FilterContext<'_>,
        made: &mut Vec<(String, Option<toml::Value>, Arc<dyn Filter>)>,
    ) -> Result<Self, PluginError> {
        let registry = Registry::<FilterEntry>::collect()?;
        let filters = names.iter().map(|name| {
            let own = settings.get(name).cloned();
            if let Some((.., filter)) = made.iter().find(|(n, s, _)| n == name && *s == own) {
                return Ok((name.clone(), Arc::clone(filter)));
            }
            let entry = registry.get(name)?;
            let filter: Arc<dyn Filter> =
                Arc::from(entry.build(&*settings_of(settings, entry.descriptor().name)?, cx)?);
            made.push((name.clone(), own, Arc::clone(&filter)));
            Ok((name.clone(), filter))
        });
        Ok(Self { filters: filters.collect::<Result<_, PluginError>>()? })
    }

    /// A chain of filters that exist already, by names of the caller's choice.
    pub fn of<'n>(filters: impl IntoIterator<Item = (&'n str, Box<dyn Filter>)>) -> Self {
        Self { filters: filters.into_iter().map(|(name, filter)| (name.to_owned(), Arc::from(filter))).collect() }
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.filters.iter().map(|(name, _)| &**name)
    }

    /// Fingerprints in order; see [`Filter::fingerprint`].
    pub fn fingerprints(&self) -> Vec<String> {
        self.filters.iter().map(|(_, filter)| filter.fingerprint()).collect()
    }

    /// The first filter that failed, and why; see [`Filter::failure`].
    pub fn failure(&self) -> Option<(&str, String)> {
        self.filters.iter().find_map(|(name, filter)| Some((&**name, filter.failure()?)))
    }

    /// What all rules measure, each with the name of its filter.
    pub fn measure(&self, document: &Features<'_>) -> Vec<(&str, Measure)> {
        let all = self.filters.iter().map(|named| (&*named.0, named.1.measure(document)));
        all.flat_map(|(name, measures)| measures.into_iter().map(move |measure| (name, measure))).collect()
    }

    /// How many documents the filter that wants most of them wants at once; see [`Filter::window`].
    pub fn window(&self) -> usize {
        self.filters.iter().map(|(_, filter)| filter.window()).max().unwrap_or(1)
    }

    /// Asks the filters in order until one drops the document.
    pub fn judge(&self, document: &Features<'_>) -> Judgement {
        let mut judgement = Judgement::default();
        self.judge_pending(0, vec![(document, &mut judgement)]);
        judgement
    }

    /// Asks the filters from `first` on, each about all documents that are left. After an edit the others are asked about the new
    /// text, with features of its own.
    pub(crate) fn judge_pending(&self, first: usize, mut pending: Pending<'_, '_>) {
        for (index, (name, filter)) in self.filters.iter().enumerate().skip(first) {
            if pending.is_empty() {
                return;
            }
            let start = Instant::now();
            let documents: Vec<&Features<'_>> = pending.iter().map(|(document, _)| *document).collect();
            let verdicts = filter.judge_all(&documents);
            let time = start.elapsed() / documents.len() as u32;
            assert_eq!(verdicts.len(), documents.len(), "`{name}` owes a verdict on each document");
            let (mut kept, mut edited) = (Vec::with_capacity(pending.len()), Vec::new());
            for ((document, judgement), verdict) in pending.into_iter().zip(verdicts) {
                judgement.times.push(time);
                match verdict {
                    Verdict::Keep => kept.push((document, judgement)),
                    Verdict::Drop { reason, value } => judgement.dropped = Some((index, reason, value)),
                    Verdict::Edit(Edit { text, changes }) => {
                        judgement.edits.push((index, changes));
                        let Document { id, meta, .. } = document.document();
                        edited.push((Document { id: id.clone(), text, meta: meta.clone() }, judgement));
                    }
                }
            }
            self.judge_edited(index + 1, edited);
            pending = kept;
        }
    }

    /// Asks the filters from `first` on about documents that the one before has edited.
    fn judge_edited(&self, first: usize, edited: Vec<(Document, &mut Judgement)>) {
        let (documents, mut judgements): (Vec<Document>, Vec<&mut Judgement>) = edited.into_iter().unzip();
        let features: Vec<Features<'_>> = documents.iter().map(Features::new).collect();
        let pending = features.iter().zip(&mut judgements).map(|(document, judgement)| (document, &mut **judgement));
        self.judge_pending(first, pending.collect());
        drop(features);
        for (document, judgement) in documents.into_iter().zip(judgements) {
            // The last filter that edits has the last word.
            judgement.text.get_or_insert(document.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;

    fn chain(names: &[&str], settings: &str) -> Result<FilterChain, PluginError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let settings = toml::from_str(settings).expect("TOML");
        FilterChain::build(&names, &settings, &FilterContext { lang: None, artifacts: Path::new("none") })
    }

    #[test]
    fn the_first_filter_that_drops_decides_and_later_ones_are_not_asked() {
        let chain = chain(&["gopher_quality", "gopher_repetition"], "").expect("registered");
        let document = Document::new("a", "too short");
        let judgement = chain.judge(&Features::new(&document));
        assert_eq!(judgement.dropped, Some((0, "gopher_short_document".into(), 2.0)));
        assert_eq!(judgement.times.len(), 1);
    }

    /// Replaces every `x`, and drops texts without one.
    struct Censor(&'static str);

    impl Filter for Censor {
        fn judge(&self, document: &Features<'_>) -> Verdict {
            let mut editor = Editor::new(document.text());
            document.text().match_indices('x').for_each(|(at, x)| editor.replace(at..at + x.len(), self.0, "an_x"));
            match editor.verdict() {
                Verdict::Keep => Verdict::drop("no_x", document.words().len() as f64),
                edit => edit,
            }
        }
    }

    #[test]
    fn later_filters_see_the_edited_text_and_the_last_edit_is_what_stays() {
        let document = Document::new("a", "x and x");
        let chain = |filters: [&'static str; 3]| {
            FilterChain::of(filters.map(|new| ("censor", Box::new(Censor(new)) as Box<dyn Filter>)))
        };
        let judgement = chain(["xy", "xz", "x"]).judge(&Features::new(&document));
        assert_eq!((judgement.text.as_deref(), judgement.dropped), (Some("xzy and xzy"), None));
        let edits: Vec<_> = judgement.edits.iter().map(|(index, changes)| (*index, changes["an_x"])).collect();
        let change = |bytes_added| Change { places: 2, bytes_removed: 2, bytes_added };
        assert_eq!(edits, [(0, change(4)), (1, change(4)), (2, change(2))]);
        let judgement = chain(["y y", "-", "-"]).judge(&Features::new(&document));
        assert_eq!(judgement.dropped, Some((1, "no_x".into(), 5.0)), "its words are those of the edited text");
        assert_eq!((judgement.times.len(), judgement.edits.len()), (2, 1));
    }

    #[test]
    fn settings_reach_the_filter_and_wrong_keys_are_named() {
        let kept = chain(&["gopher_quality"], "[gopher_quality]\nmin_words = 2\nmin_stop_words = 0").expect("settings");
        assert_eq!(kept.judge(&Features::new(&Document::new("a", "rather short"))).dropped, None);
        let message =
            chain(&["gopher_quality"], "[gopher_quality]\nmin_word = 2").err().expect("unknown key").to_string();
        assert!(message.contains("gopher_quality") && message.contains("min_word"), "{message}");
        let message = chain(&["gopher_qualty"], "").err().expect("unknown filter").to_string();
        assert!(message.contains("did you mean `gopher_quality`?"), "{message}");
    }
}
