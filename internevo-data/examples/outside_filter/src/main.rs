//! Plugins outside the workspace (a filter here, one of every other kind in a file of its own), and a binary that offers them: `cargo run`
//! lists all plugins of this binary as JSON, `cargo run -- FOLDER` uses them on `FOLDER/book.pages`.
//!
//! For the whole command line, depend on `internevo-cli` too and end `main` with `internevo_cli::main()`.

mod classifier;
mod deduplicator;
mod extractor;
mod reader;
mod sink;
mod tokenizer;

use std::path::Path;

use internevo_core::config::PipelineConfig;
use internevo_data::{
    Features, Filter, Verdict,
    plugin::Plugin,
    register_filter,
    stage::{StageRequest, run_stage},
    tokenizer::{self as tokens, EncodeRequest},
};

/// Drops texts that shout.
struct NoShouting {
    config: Config,
}

#[derive(schemars::JsonSchema, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Largest share of capitals among the letters.
    max_capitals: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_capitals: 0.4 }
    }
}

impl Plugin for NoShouting {
    const NAME: &'static str = "no_shouting";
    const ABOUT: &'static str = "Drops texts that are mostly capitals.";
    type Config = Config;
}

register_filter!(NoShouting { config });

impl Filter for NoShouting {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        let letters = document.text().chars().filter(|c| c.is_alphabetic()).count();
        let capitals = document.text().chars().filter(|c| c.is_uppercase()).count();
        let share = capitals as f64 / letters.max(1) as f64;
        if share > self.config.max_capitals { Verdict::drop("shouting", share) } else { Verdict::Keep }
    }
}

/// What `demonstrate` runs, as a configuration file has it.
const PIPELINE: &str = r#"
clean = ["no_shouting", "classifier"]

[filter.no_shouting]
max_capitals = 0.8

[filter.classifier.asks]
classifier = "questions"
max.question = 0.5

[format]
extractor = "paragraphs"
settings.paragraphs.min_bytes = 2

[dedup]
method = "same_title"
"#;

/// Takes the pages in `folder` through the stages and counts the tokens of what is left, all by names.
fn demonstrate(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let pipeline: PipelineConfig = toml::from_str(PIPELINE)?;
    let mut input = folder.join("book.pages");
    for stage in ["format", "clean", "dedup"] {
        let output = folder.join(stage);
        let request = StageRequest {
            stage,
            input,
            output: output.clone(),
            lang: None,
            threads: 1,
            artifacts: folder.to_owned(),
            pipeline: &pipeline,
        };
        run_stage(&request, &())?;
        input = output;
    }
    let tokenizer = tokens::load(&toml::from_str("kind = 'bytes'")?)?;
    let request = EncodeRequest {
        inputs: &[input.join("kept/part-00000.jsonl")],
        tokenizer: &*tokenizer,
        folder,
        sink: "token_counts",
        sink_settings: &toml::from_str("separator = ': '")?,
        split_of: &|_| "train",
    };
    tokens::encode_corpus(&request, &|_| ())?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        Some(folder) => demonstrate(Path::new(&folder)),
        None => {
            println!("{}", serde_json::to_string_pretty(&internevo_data::plugins()?)?);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use internevo_data::assert_filter;

    use super::NoShouting;

    #[test]
    fn capitals_are_shouting_when_they_are_many() {
        assert_filter!(NoShouting, "", drops "BUY now" => "shouting", keeps "Buy now");
        assert_filter!(NoShouting, "max_capitals = 0.5", keeps "BUY now");
    }
}
