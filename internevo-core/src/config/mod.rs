//! Configuration: typed sections, layers with provenance, presets, validation.
//!
//! | file | holds |
//! |---|---|
//! | `schema.rs` | the typed sections and their defaults |
//! | `pipeline.rs` | those of the corpus, its pipeline and the tokenizer |
//! | `parallel.rs` | those of the parallel layout |
//! | `recompute.rs` | the value of `model.checkpoint` |
//! | `origin.rs` | where a value was written |
//! | `layer.rs` | reading one layer into leaves: a TOML text, environment variables, `--set` arguments |
//! | `known.rs` | which keys exist, and what to say about those that do not |
//! | `internevo.rs` | InternEvo's keys that have no effect here, each with the reason |
//! | `load.rs` | merging the layers into a [`Resolved`] |
//! | `resolved.rs` | the result: values, origins, dumps |
//! | `validate/` | rules between values |
//! | `preset.rs` | built-in configurations (`presets/*.toml`) |
//! | `import_py/` | InternEvo's Python files → TOML |

mod error;
mod import_py;
mod internevo;
mod known;
mod layer;
mod load;
mod origin;
mod parallel;
mod pipeline;
mod preset;
mod recompute;
mod resolved;
pub mod schema;
#[cfg(test)]
mod tests;
mod validate;

pub use error::{ConfigError, ConfigErrors};
pub use import_py::{ImportError, ImportedPy, import_py};
pub use load::{LoadRequest, load};
pub use origin::{Layer, Origin};
pub use parallel::*;
pub use pipeline::*;
pub use preset::{Preset, presets};
pub use recompute::Recompute;
pub use resolved::Resolved;
pub use schema::*;
pub use validate::{Violation, validate};

/// The JSON schema of [`Config`], for editors and documentation.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}
