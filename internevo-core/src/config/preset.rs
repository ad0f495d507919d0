//! Built-in configurations. Their values are in `presets/*.toml`.

use super::{
    layer::{self, Leaf},
    origin::Layer,
};

/// A built-in configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Name for `--preset`.
    pub name: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
    /// Its values.
    pub toml: &'static str,
}

macro_rules! preset {
    ($name:literal, $about:literal) => {
        Preset { name: $name, about: $about, toml: include_str!(concat!("../../presets/", $name, ".toml")) }
    };
}

const PRESETS: &[Preset] = &[
    preset!("tiny", "the default: a whole job in minutes on two cores"),
    preset!("smoke", "the smallest whole job, for continuous integration"),
    preset!("small", "a night on a laptop"),
    preset!("internlm2-1_8b", "InternLM2 1.8B: dimensions and schedule of the technical report"),
    preset!("internlm2-7b", "InternLM2 7B: dimensions and schedule of the technical report"),
    preset!("internlm2-20b", "InternLM2 20B: dimensions and schedule of the technical report"),
];

/// All presets, the default one first.
pub fn presets() -> &'static [Preset] {
    PRESETS
}

/// The leaves of a preset.
pub(super) fn leaves(preset: &Preset) -> Vec<Leaf> {
    layer::of_text(preset.toml, &Layer::Preset(preset.name.to_owned())).expect("presets are valid TOML")
}
