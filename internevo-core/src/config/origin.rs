//! Where a value was written: the layer, and the place in it.

use std::{fmt, path::PathBuf};

/// A source of values. Later variants win over earlier ones, and among files the later file wins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layer {
    /// The built-in default of the key.
    Default,
    /// A built-in preset.
    Preset(String),
    /// A configuration file.
    File(PathBuf),
    /// An environment variable, by its name.
    Environment(String),
    /// A `--set` argument, as written.
    Set(String),
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Set(text) => write!(f, "--set {text}"),
        }
    }
}

/// A place in a layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The layer.
    pub layer: Layer,
    /// Line and column of the key, from 1, in layers that are texts.
    pub position: Option<(usize, usize)>,
}

impl Origin {
    /// A place in a layer that is not a text.
    pub(super) fn of(layer: Layer) -> Self {
        Self { layer, position: None }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "{}:{line}:{column}", self.layer),
            None => write!(f, "{}", self.layer),
        }
    }
}

/// Line and column, from 1, of a byte offset; columns count characters.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
