//! Rules that values must satisfy, alone and together. Every broken rule is reported.
//!
//! Types and the existence of keys are checked before (`known.rs`); names and tables of plugins after, by their registries.

mod data;
mod model;
mod parallel;
mod train;

use super::schema::Config;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The keys that the rule reads; the first is its subject.
    pub keys: Vec<&'static str>,
    /// What is wrong, with the values.
    pub message: String,
}

/// Every rule that `config` breaks.
pub fn validate(config: &Config) -> Vec<Violation> {
    let mut rules = Rules::default();
    general(config, &mut rules);
    data::corpus(&config.corpus, &mut rules);
    data::pipeline(&config.pipeline, &mut rules);
    data::tokenizer(config, &mut rules);
    data::batches(&config.data, &mut rules);
    model::model(&config.model, &mut rules);
    parallel::parallel(config, &mut rules);
    train::optimizer(config, &mut rules);
    train::schedules(config, &mut rules);
    train::checkpoints(&config.ckpt, &mut rules);
    train::monitor(&config.monitor, &mut rules);
    rules.broken
}

/// Collects broken rules.
#[derive(Default)]
struct Rules {
    broken: Vec<Violation>,
}

impl Rules {
    /// A rule over `keys`; `message` is asked for only when it is broken.
    fn check(&mut self, holds: bool, keys: &[&'static str], message: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(Violation { keys: keys.to_vec(), message: message() });
        }
    }

    fn at_least_one(&mut self, key: &'static str, value: usize) {
        self.check(value > 0, &[key], || "must be at least 1".to_owned());
    }

    fn positive(&mut self, key: &'static str, value: f64) {
        self.check(value > 0.0 && value.is_finite(), &[key], || format!("{value} must be above 0"));
    }

    fn not_negative(&mut self, key: &'static str, value: f64) {
        self.check(value >= 0.0 && value.is_finite(), &[key], || format!("{value} must not be below 0"));
    }

    /// `0 <= value <= most`.
    fn share(&mut self, key: &'static str, value: f64, most: f64) {
        self.check((0.0..=most).contains(&value), &[key], || format!("{value} is outside 0 to {most}"));
    }

    /// `0 <= value < 1`.
    fn below_one(&mut self, key: &'static str, value: f64) {
        self.check((0.0..1.0).contains(&value), &[key], || format!("{value} must be at least 0 and below 1"));
    }

    fn one_of(&mut self, key: &'static str, value: &str, names: &[&str]) {
        self.check(names.contains(&value), &[key], || match crate::plugin::nearest(value, names.iter().copied()) {
            Some(near) => format!("unknown value `{value}`; did you mean `{near}`? (known: {})", names.join(", ")),
            None => format!("unknown value `{value}`; known: {}", names.join(", ")),
        });
    }

    /// No name is empty or named twice.
    fn distinct_names(&mut self, key: &'static str, names: &[String]) {
        for (i, name) in names.iter().enumerate() {
            self.check(!name.is_empty(), &[key], || format!("item {} is empty", i + 1));
            self.check(!names[..i].contains(name), &[key], || format!("`{name}` is named twice"));
        }
    }
}

fn general(config: &Config, rules: &mut Rules) {
    let name = &config.job_name;
    let is_folder_name = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
    rules.check(is_folder_name, &["job_name"], || {
        format!("`{name}` cannot name a folder: it must not be empty, start with `.` or contain `/` or `\\`")
    });
    rules.one_of("model_type", &config.model_type, &["INTERNLM2_PUBLIC"]);
    rules.check(i64::try_from(config.seed).is_ok(), &["seed"], || format!("{} is above {}", config.seed, i64::MAX));
    rules.check(!config.run_dir.is_empty(), &["run_dir"], || "must name a folder".to_owned());
    rules.one_of("launch.communicator", &config.launch.communicator, &["local", "mpi", "dry"]);
    rules.check(config.launch.timeout > 0, &["launch.timeout"], || "must be at least 1 second".to_owned());
    rules.at_least_one("launch.recorded_calls", config.launch.recorded_calls);
}
