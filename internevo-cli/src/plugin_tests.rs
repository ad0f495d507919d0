//! Plugins of a crate other than internevo-data (this one, as it is tested), by name in a configuration file and on the command line:
//! an extractor, a classifier and a tokenizer.

use std::{fs, path::Path};

use internevo_data::{
    classifier::{Classifier, ClassifierContext, ClassifierPlugin},
    format::{Extractor, Page},
    plugin::{NoSettings, Plugin, PluginError},
    register_classifier, register_extractor, register_tokenizer,
    tokenizer::{TextEncoder, TokenizerError},
};

/// The first line of a page.
struct FirstLine {
    config: Config,
}

#[derive(Default, schemars::JsonSchema, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// What goes before it.
    prefix: String,
}

impl Plugin for FirstLine {
    const NAME: &'static str = "test_first_line";
    const ABOUT: &'static str = "The first line of a page.";
    type Config = Config;
}

register_extractor!(FirstLine { config });

impl Extractor for FirstLine {
    fn extract(&self, html: &str, _url: Option<&str>) -> Page {
        let line = html.lines().next().unwrap_or_default();
        Page { text: format!("{}{line}\n", self.config.prefix), ..Page::default() }
    }
}

/// Is a text short?
struct Short;

impl Plugin for Short {
    const NAME: &'static str = "test_short";
    const ABOUT: &'static str = "Short or long.";
    type Config = NoSettings;
}

impl ClassifierPlugin for Short {
    fn build(_: NoSettings, _: &ClassifierContext<'_>) -> Result<Box<dyn Classifier>, PluginError> {
        Ok(Box::new(Self))
    }
}

register_classifier!(Short);

impl Classifier for Short {
    fn labels(&self) -> Vec<&str> {
        vec!["short", "long"]
    }

    fn probabilities(&self, text: &str) -> Option<Vec<f64>> {
        let short = 1.0 / (1.0 + text.len() as f64 / 10.0);
        Some(vec![short, 1.0 - short])
    }

    fn fingerprint(&self) -> String {
        String::new()
    }
}

/// A token a byte.
struct Bytes {
    config: Config,
}

impl Plugin for Bytes {
    const NAME: &'static str = "test_bytes";
    const ABOUT: &'static str = "A token a byte.";
    type Config = Config;
}

register_tokenizer!(Bytes { config });

impl TextEncoder for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok((self.config.prefix.clone() + text).bytes().map(u32::from).collect())
    }

    fn vocab_size(&self) -> usize {
        257
    }

    fn eos_id(&self) -> u32 {
        256
    }

    fn fingerprint(&self) -> String {
        String::new()
    }
}

/// Runs a command line in this process, with `{}` for the folder.
fn run(folder: &Path, line: &str) -> std::process::ExitCode {
    let folder = folder.to_str().expect("UTF-8");
    crate::run(["internevo".to_owned()].into_iter().chain(line.split(' ').map(|word| word.replace("{}", folder))))
}

fn ok(folder: &Path, line: &str) {
    assert_eq!(format!("{:?}", run(folder, line)), format!("{:?}", std::process::ExitCode::SUCCESS), "{line}");
}

#[test]
fn plugins_of_other_crates_are_named_in_a_configuration_and_on_the_command_line() {
    let dir = tempfile::tempdir().expect("temporary folder");
    fs::create_dir(dir.path().join("pages")).expect("folder");
    for (name, text) in [("a.html", "first\nsecond"), ("b.html", "a first line that is long enough\nsecond")] {
        fs::write(dir.path().join("pages").join(name), text).expect("page");
    }
    let config = "[pipeline]\nclean = ['classifier']\nformat.extractor = 'test_first_line'\n\
                  format.settings.test_first_line.prefix = '# '\n\
                  [pipeline.filter.classifier.length]\nclassifier = 'test_short'\nmax.short = 0.5\n";
    fs::write(dir.path().join("c.toml"), config).expect("configuration");
    let lines = |path: &str| fs::read_to_string(dir.path().join(path)).expect(path);

    ok(dir.path(), "data format -q --input {}/pages --output {}/format --config {}/c.toml");
    assert!(lines("format/kept/part-00000.jsonl").contains(r##""text":"# first\n""##));
    ok(dir.path(), "data format -q --input {}/pages --output {}/flag --extractor test_first_line");
    assert!(lines("flag/kept/part-00000.jsonl").contains(r#""text":"first\n""#));

    ok(dir.path(), "data clean -q --input {}/format --output {}/clean --config {}/c.toml");
    assert!(lines("clean/rejected/part-00000.jsonl").contains(r#""reason":"classifier_length_short""#));
    assert_eq!(lines("clean/kept/part-00000.jsonl").lines().count(), 1);
    ok(dir.path(), "data score -q --input {}/format --output {}/scored.jsonl --filter classifier --config {}/c.toml");
    assert!(lines("scored.jsonl").contains("classifier_length_short"));

    let encode =
        "tokenizer encode -q --kind test_bytes --tokenizer-setting prefix='>' --input {}/clean --output {}/tokens";
    ok(dir.path(), &format!("{encode} --format jsonl"));
    assert!(
        lines("tokens/train.jsonl").contains("[62, 35, 32, 97, 32, 102"),
        "`># a f`: {}",
        lines("tokens/train.jsonl")
    );
    let refused = run(dir.path(), "data format -q --input {}/pages --output {}/no --extractor test_first_lime");
    assert_eq!(format!("{refused:?}"), format!("{:?}", std::process::ExitCode::from(crate::error::EXIT_USER)));
}
