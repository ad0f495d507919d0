//! A filter outside the workspace, and a binary that offers it: `cargo run` lists all filters of this binary as JSON.
//!
//! For the whole command line, depend on `internevo-cli` too and end `main` with `internevo_cli::main()`.

use internevo_data::{Features, Filter, Verdict, plugin::Plugin, register_filter};

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", serde_json::to_string_pretty(&internevo_data::filter::list()?)?);
    Ok(())
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
