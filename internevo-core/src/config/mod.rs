//! Configuration: typed sections, layers with provenance, presets, validation.

mod schema;

pub use schema::*;
