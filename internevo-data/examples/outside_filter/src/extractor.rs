//! An extractor outside the workspace: nothing but the paragraphs of a page.

use internevo_data::{
    format::{Extractor, Page},
    plugin::Plugin,
    register_extractor,
};

/// Takes `<p>…</p>` at its word.
struct Paragraphs {
    config: Config,
}

#[derive(Default, schemars::JsonSchema, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Shorter paragraphs are left out, bytes.
    min_bytes: usize,
}

impl Plugin for Paragraphs {
    const NAME: &'static str = "paragraphs";
    const ABOUT: &'static str = "The paragraphs of a page, and nothing else of it.";
    type Config = Config;
}

register_extractor!(Paragraphs { config });

impl Extractor for Paragraphs {
    fn extract(&self, html: &str, _url: Option<&str>) -> Page {
        let inner = html.split("<p>").skip(1).filter_map(|rest| rest.split("</p>").next());
        let long = inner.map(str::trim).filter(|text| text.len() >= self.config.min_bytes.max(1));
        Page { text: long.map(|text| format!("{text}\n")).collect(), ..Page::default() }
    }
}

#[cfg(test)]
mod tests {
    use internevo_data::assert_extractor;

    use super::Paragraphs;

    #[test]
    fn paragraphs_are_the_text() {
        assert_extractor!(Paragraphs, "", "<h1>no</h1><p>one</p><p>two, longer</p>" => "one\ntwo, longer\n");
        assert_extractor!(Paragraphs, "min_bytes = 4", "<p>one</p><p>two, longer</p>" => "two, longer\n");
    }
}
