//! Typed plugins: how a crate offers a filter, an optimizer, a schedule or a sink by name, and how a binary finds them.
//!
//! A kind of plugin (filter, optimizer, …) is an *entry* type that lives with the trait it builds. This file holds what all
//! kinds share: where an entry was registered ([`Origin`]), what it is called and configured by ([`Descriptor`]), and the
//! [`Registry`] that collects, sorts and checks the entries once at start-up. [`plugin_kind!`](crate::plugin_kind) declares a kind.
//!
//! `inventory` links only crates that are named: a binary needs `use my_filters as _;` for each plugin crate.

mod kind;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::kind::settings_of;

/// Used by the `register_*!` macros of every crate; not for direct use.
#[doc(hidden)]
pub use inventory as __inventory;
/// Likewise.
#[doc(hidden)]
pub use toml::Table as __Table;

/// Where a plugin was registered: crate, version, file and line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Package name of the registering crate.
    pub crate_name: &'static str,
    /// Version of that package.
    pub version: &'static str,
    /// Source file of the `register_*!` line.
    pub file: &'static str,
    /// Line in `file`, from 1.
    pub line: u32,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({}:{})", self.crate_name, self.version, self.file, self.line)
    }
}

/// The [`Origin`] of the place where this macro is written.
#[macro_export]
macro_rules! origin {
    () => {
        $crate::plugin::Origin {
            crate_name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            file: file!(),
            line: line!(),
        }
    };
}

/// What every plugin declares, whatever its kind.
pub trait Plugin: 'static {
    /// The name in configuration files: snake_case, unique within its kind.
    const NAME: &'static str;
    /// One sentence for `internevo plugins`.
    const ABOUT: &'static str;
    /// The plugin's own table in the configuration. Use `#[serde(default, deny_unknown_fields)]`.
    type Config: DeserializeOwned + Serialize + Default + JsonSchema;

    /// The error of this plugin when it cannot be built from a well-formed configuration.
    fn refused(reason: impl std::fmt::Display) -> PluginError {
        PluginError::Build { plugin: Self::NAME, reason: reason.to_string() }
    }
}

/// The configuration of a plugin that has no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// The erased, const-constructible description of one registered plugin.
#[derive(Clone, Copy)]
pub struct Descriptor {
    /// Kind, such as `filter` or `optimizer`.
    pub kind: &'static str,
    /// Name, unique within the kind.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Where it was registered.
    pub origin: Origin,
    default: fn() -> toml::Table,
    schema: fn() -> serde_json::Value,
}

impl Descriptor {
    /// Describes plugin `P` as an entry of `kind`.
    pub const fn of<P: Plugin>(kind: &'static str, origin: Origin) -> Self {
        Self { kind, name: P::NAME, about: P::ABOUT, origin, default: default_table::<P>, schema: schema_of::<P> }
    }

    /// The plugin's default configuration as TOML.
    pub fn default_config(&self) -> toml::Table {
        (self.default)()
    }

    /// JSON schema of the plugin's configuration.
    pub fn schema(&self) -> serde_json::Value {
        (self.schema)()
    }

    /// Everything at once, to be shown.
    pub fn info(&self) -> PluginInfo {
        PluginInfo {
            kind: self.kind,
            name: self.name,
            crate_name: self.origin.crate_name,
            version: self.origin.version,
            place: format!("{}:{}", self.origin.file, self.origin.line),
            default: self.default_config(),
            schema: self.schema(),
            about: self.about,
        }
    }
}

/// A registered plugin as `internevo plugins --json` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct PluginInfo {
    /// Its kind, such as `filter` or `optimizer`.
    pub kind: &'static str,
    /// Its name in a configuration.
    pub name: &'static str,
    /// Package that registers it.
    #[serde(rename = "crate")]
    pub crate_name: &'static str,
    /// Version of the package.
    pub version: &'static str,
    /// Source file and line.
    pub place: String,
    /// Its settings with their defaults.
    pub default: toml::Table,
    /// JSON schema of its settings.
    pub schema: serde_json::Value,
    /// One sentence, for a listing as text.
    #[serde(skip)]
    pub about: &'static str,
}

impl std::fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} `{}` of {}", self.kind, self.name, self.origin)
    }
}

fn default_table<P: Plugin>() -> toml::Table {
    toml::Table::try_from(P::Config::default()).expect("a plugin's default configuration is a TOML table")
}

fn schema_of<P: Plugin>() -> serde_json::Value {
    schemars::schema_for!(P::Config).to_value()
}

/// Reads plugin `P`'s configuration from its table.
///
/// # Errors
/// [`PluginError::Config`] names the plugin, the key inside the table and what was expected.
pub fn parse_config<P: Plugin>(table: &toml::Table) -> Result<P::Config, PluginError> {
    serde_path_to_error::deserialize(toml::Value::Table(table.clone())).map_err(|e| PluginError::Config {
        plugin: P::NAME,
        key: e.path().to_string(),
        reason: e.inner().message().trim_end().to_owned(),
    })
}

/// An entry of one kind of plugin; the type that `inventory` collects.
pub trait Entry: Sync + 'static {
    /// Kind of the entries, as in `internevo plugins`.
    const KIND: &'static str;
    /// Name, place and configuration of this entry.
    fn descriptor(&self) -> &Descriptor;
}

/// All registered entries of one kind, sorted by name. Collected once at start-up and then passed by reference.
pub struct Registry<E: Entry> {
    entries: BTreeMap<&'static str, &'static E>,
}

impl<E: Entry + inventory::Collect> Registry<E> {
    /// Collects what the linked crates registered.
    ///
    /// # Errors
    /// [`PluginError::Duplicate`] when two entries share a name; it names both places.
    pub fn collect() -> Result<Self, PluginError> {
        Self::from_entries(inventory::iter::<E>())
    }
}

impl<E: Entry> Registry<E> {
    /// A registry of exactly these entries, without the linker's help.
    ///
    /// # Errors
    /// [`PluginError::Duplicate`] when two entries share a name.
    pub fn from_entries(items: impl IntoIterator<Item = &'static E>) -> Result<Self, PluginError> {
        let mut entries: BTreeMap<&'static str, &'static E> = BTreeMap::new();
        for entry in items {
            let new = entry.descriptor();
            if let Some(old) = entries.insert(new.name, entry) {
                // The linker promises no order: sort, so that the message is always the same.
                let (a, b) = (old.descriptor().origin, new.origin);
                let (first, second) =
                    if (a.crate_name, a.file, a.line) <= (b.crate_name, b.file, b.line) { (a, b) } else { (b, a) };
                let (first, second) = (Box::new(first), Box::new(second));
                return Err(PluginError::Duplicate { kind: E::KIND, name: new.name, first, second });
            }
        }
        Ok(Self { entries })
    }

    /// The entry called `name`.
    ///
    /// # Errors
    /// [`PluginError::Unknown`] lists what is registered and the nearest name.
    pub fn get(&self, name: &str) -> Result<&'static E, PluginError> {
        self.entries.get(name).copied().ok_or_else(|| PluginError::Unknown {
            kind: E::KIND,
            name: name.to_owned(),
            registered: self.names().collect::<Vec<_>>().join(", "),
            hint: match nearest(name, self.names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "is its crate linked? (`use the_crate as _;`)".to_owned(),
            },
        })
    }

    /// Names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.entries.keys().copied()
    }

    /// What is registered, in the order of the names.
    pub fn list(&self) -> Vec<PluginInfo> {
        self.iter().map(|entry| entry.descriptor().info()).collect()
    }

    /// Entries in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &'static E> + '_ {
        self.entries.values().copied()
    }
}

/// The candidate closest to `name` by edit distance, if it is close enough to be a likely misspelling.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + name.chars().count() / 4;
    // Among equally distant names, misspellings are likelier towards the end of a word.
    let differs_at = |c: &str| name.chars().zip(c.chars()).position(|(a, b)| a != b).unwrap_or(usize::MAX);
    let rank = |c: &&str| (edit_distance(name, c), std::cmp::Reverse(differs_at(c)), c.to_string());
    candidates.into_iter().filter(|c| edit_distance(name, c) <= limit).min_by_key(rank)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// What can go wrong with plugins.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// Two plugins of a kind share a name.
    #[error("two {kind}s are called `{name}`: {first} and {second}")]
    Duplicate {
        /// Kind of plugin.
        kind: &'static str,
        /// The shared name.
        name: &'static str,
        /// One place.
        first: Box<Origin>,
        /// The other place.
        second: Box<Origin>,
    },
    /// No plugin of that name.
    #[error("unknown {kind} `{name}`; registered: {registered}; {hint}")]
    Unknown {
        /// Kind of plugin.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// What is registered, comma separated.
        registered: String,
        /// The nearest name, or how to link a crate.
        hint: String,
    },
    /// A plugin's table does not fit its configuration.
    #[error("`{plugin}`: `{key}`: {reason}")]
    Config {
        /// The plugin's name.
        plugin: &'static str,
        /// Path inside its table; `.` for the table itself.
        key: String,
        /// What was expected.
        reason: String,
    },
    /// A plugin could not be built from a well-formed configuration.
    #[error("`{plugin}`: {reason}")]
    Build {
        /// The plugin's name.
        plugin: &'static str,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Serialize, JsonSchema, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        limit: u32,
    }
    struct Alpha;
    impl Plugin for Alpha {
        const NAME: &'static str = "alpha";
        const ABOUT: &'static str = "A test plugin.";
        type Config = Config;
    }
    struct TestEntry(Descriptor);
    impl Entry for TestEntry {
        const KIND: &'static str = "test";
        fn descriptor(&self) -> &Descriptor {
            &self.0
        }
    }
    static ONE: TestEntry = TestEntry(Descriptor::of::<Alpha>("test", origin!()));
    static TWO: TestEntry = TestEntry(Descriptor::of::<Alpha>("test", origin!()));

    #[test]
    fn a_duplicate_name_is_an_error_that_names_both_places() {
        let message = Registry::from_entries([&ONE, &TWO]).err().expect("duplicate").to_string();
        let (a, b) = (ONE.0.origin, TWO.0.origin);
        assert!(
            message.contains(&format!("{}:{}", a.file, a.line)) && message.contains(&format!("{}:{}", b.file, b.line)),
            "{message}"
        );
        let swapped = Registry::from_entries([&TWO, &ONE]).err().expect("duplicate").to_string();
        assert_eq!(message, swapped);
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_one() {
        let registry = Registry::from_entries([&ONE]).expect("one entry");
        let message = registry.get("alhpa").err().expect("unknown").to_string();
        assert!(message.contains("did you mean `alpha`?"), "{message}");
    }

    #[test]
    fn a_wrong_key_is_named() {
        let table: toml::Table = toml::from_str("limit = 'x'").expect("toml");
        let message = parse_config::<Alpha>(&table).err().expect("type error").to_string();
        assert!(message.contains("`limit`"), "{message}");
        let table: toml::Table = toml::from_str("limits = 1").expect("toml");
        assert!(parse_config::<Alpha>(&table).is_err());
    }
}
