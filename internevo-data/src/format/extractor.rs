//! From an HTML page to its text: what an extractor is, and how a crate offers one by name. The built-in one is `html.rs`.

use std::path::Path;

use internevo_core::{
    config::FormatConfig,
    plugin::{Entry as _, Plugin, PluginError, Registry, settings_of},
    plugin_kind,
};

/// What a page says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// `<title>`, white space folded; may be empty.
    pub title: String,
    /// Language of `<html lang>`, primary part, lower case; may be empty.
    pub lang: String,
    /// The text as Markdown, with a line end at the end; empty when there is none.
    pub text: String,
}

/// Finds the text of pages. Called from many threads.
pub trait Extractor: Send + Sync {
    /// Title, language and text of a page; `url` is its address where that is known. Any text is taken for a page, and the same page
    /// always gives the same.
    fn extract(&self, html: &str, url: Option<&str>) -> Page;

    /// What the text depends on beyond the settings, for example the hash of a file. A finished stage is reused only if this has not
    /// changed.
    fn fingerprint(&self) -> String {
        String::new()
    }
}

/// An extractor that can be named in `pipeline.format.extractor`.
pub trait ExtractorPlugin: Plugin {
    /// Builds the extractor from its table in `pipeline.format.settings`.
    ///
    /// # Errors
    /// [`PluginError::Build`] when a setting makes no sense or a file is missing.
    fn build(config: Self::Config, cx: &ExtractorContext<'_>) -> Result<Box<dyn Extractor>, PluginError>;
}

/// What an extractor is told when it is built.
#[derive(Clone, Copy, Debug)]
pub struct ExtractorContext<'a> {
    /// Folder of trained models.
    pub artifacts: &'a Path,
}

plugin_kind! {
    /// A registered extractor.
    pub struct ExtractorEntry("extractor"):
        ExtractorPlugin::build(&ExtractorContext<'_>) -> Result<Box<dyn Extractor>, PluginError>;
    /// All extractors linked into this binary, by name.
    pub fn extractors;
}

/// Registers an [`ExtractorPlugin`]. An extractor that holds nothing but its settings, in a field `config`, is also made one by
/// `register_extractor!(Name { config })`.
#[macro_export]
macro_rules! register_extractor {
    ($plugin:ident { config }) => {
        impl $crate::format::ExtractorPlugin for $plugin {
            fn build(
                config: <Self as $crate::plugin::Plugin>::Config,
                _: &$crate::format::ExtractorContext<'_>,
            ) -> Result<Box<dyn $crate::format::Extractor>, $crate::plugin::PluginError> {
                Ok(Box::new(Self { config }))
            }
        }
        $crate::register_extractor!($plugin);
    };
    ($plugin:ty) => {
        $crate::__submit!($crate::format::ExtractorEntry, $plugin);
    };
}

/// The extractor that `config` names.
///
/// # Errors
/// An unknown name, or settings that do not fit.
pub fn extractor(config: &FormatConfig, cx: &ExtractorContext<'_>) -> Result<Box<dyn Extractor>, PluginError> {
    let entry = Registry::<ExtractorEntry>::collect()?.get(&config.extractor)?;
    entry.build(&*settings_of(&config.settings, entry.descriptor().name)?, cx)
}
