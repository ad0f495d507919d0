//! Checks of an optimizer's settings that name the key, so that the configuration can tell its file and line. Not here: what
//! types catch (`serde`).

use std::fmt::Display;

use internevo_core::plugin::PluginError;

/// The rules of one plugin's settings.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    plugin: &'static str,
}

impl Rules {
    pub(super) fn of(plugin: &'static str) -> Self {
        Self { plugin }
    }

    /// `value` under `key` is refused unless it `holds`; `rule` completes "`value` …".
    pub(super) fn check(self, key: &str, value: impl Display, holds: bool, rule: &str) -> Result<(), PluginError> {
        let refused =
            || PluginError::Config { plugin: self.plugin, key: key.to_owned(), reason: format!("{value} {rule}") };
        if holds { Ok(()) } else { Err(refused()) }
    }

    /// A decay rate: `0 <= value < 1`.
    pub(super) fn rate(self, key: &str, value: f64) -> Result<(), PluginError> {
        self.check(key, value, (0.0..1.0).contains(&value), "must be at least 0 and below 1")
    }

    pub(super) fn not_negative(self, key: &str, value: f64) -> Result<(), PluginError> {
        self.check(key, value, value >= 0.0 && value.is_finite(), "must be finite and not below 0")
    }

    pub(super) fn positive(self, key: &str, value: f64) -> Result<(), PluginError> {
        self.check(key, value, value > 0.0 && value.is_finite(), "must be finite and above 0")
    }
}
