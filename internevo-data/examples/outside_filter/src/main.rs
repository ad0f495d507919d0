//! Plugins outside the workspace (a filter here, a reader, a deduplicator and a token sink in files of their own), and a binary that
//! offers them: `cargo run` lists all plugins of this binary as JSON, `cargo run -- FOLDER` uses them on `FOLDER/book.pages`.
//!
//! For the whole command line, depend on `internevo-cli` too and end `main` with `internevo_cli::main()`.

mod deduplicator;
mod reader;
mod sink;

use std::path::Path;

use internevo_core::config::PipelineConfig;
use internevo_data::{
    Features, Filter, Verdict,
    plugin::Plugin,
    register_filter,
    stage::{StageRequest, run_stage},
    tokenizer::{self, EncodeRequest},
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
    fn name(&self) -> &str {
        Self::NAME
    }

    fn judge(&self, document: &Features<'_>) -> Verdict {
        let letters = document.text().chars().filter(|c| c.is_alphabetic()).count();
        let capitals = document.text().chars().filter(|c| c.is_uppercase()).count();
        let share = capitals as f64 / letters.max(1) as f64;
        if share > self.config.max_capitals { Verdict::drop("shouting", share) } else { Verdict::Keep }
    }
}

/// Deduplicates the pages in `folder` and counts the tokens of what is left, all by names.
fn demonstrate(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut pipeline = PipelineConfig::default();
    pipeline.dedup.method = "same_title".into();
    let output = folder.join("unique");
    let request = StageRequest {
        stage: "dedup",
        input: folder.join("book.pages"),
        output: output.clone(),
        lang: None,
        threads: 1,
        artifacts: folder.to_owned(),
        pipeline: &pipeline,
    };
    run_stage(&request, &())?;
    let tokenizer = tokenizer::train(["some text".to_owned()].into_iter(), &Default::default(), &|_| ())?;
    let request = EncodeRequest {
        inputs: &[output.join("kept/part-00000.jsonl")],
        tokenizer: &tokenizer,
        folder,
        sink: "token_counts",
        sink_settings: &toml::from_str("separator = ': '")?,
        split_of: &|_| "train",
    };
    tokenizer::encode_corpus(&request, &|_| ())?;
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
    use internevo_data::testing::{assert_drops, assert_keeps};

    use super::NoShouting;

    #[test]
    fn capitals_are_shouting_when_they_are_many() {
        assert_eq!(assert_drops::<NoShouting>("", "BUY now", "shouting"), 0.5);
        assert_keeps::<NoShouting>("max_capitals = 0.5", "BUY now");
    }
}
