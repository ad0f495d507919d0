//! `model.checkpoint`: InternEvo's switch or fraction, and `"selective"`.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected, Visitor},
};

/// Which activations the backward pass computes again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Recompute {
    /// None: all are kept.
    #[default]
    Off,
    /// Those of every block.
    Full,
    /// Those of this share of the blocks, the first ones; 0 to 1.
    Fraction(f64),
    /// Those of attention, in every block.
    Selective,
}

impl Recompute {
    /// How many of `layers` blocks are recomputed as a whole; InternEvo rounds down.
    pub fn whole_blocks(self, layers: usize) -> usize {
        match self {
            Self::Off | Self::Selective => 0,
            Self::Full => layers,
            Self::Fraction(share) => ((layers as f64 * share) as usize).min(layers),
        }
    }
}

impl Serialize for Recompute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::Full => serializer.serialize_bool(true),
            Self::Fraction(share) => serializer.serialize_f64(*share),
            Self::Selective => serializer.serialize_str("selective"),
        }
    }
}

impl<'de> Deserialize<'de> for Recompute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Form)
    }
}

struct Form;

impl Form {
    fn fraction<E: Error>(share: f64) -> Result<Recompute, E> {
        if (0.0..=1.0).contains(&share) {
            Ok(Recompute::Fraction(share))
        } else {
            Err(E::invalid_value(Unexpected::Float(share), &Self))
        }
    }
}

impl Visitor<'_> for Form {
    type Value = Recompute;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, a fraction from 0 to 1, or \"selective\"")
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Recompute, E> {
        Ok(if on { Recompute::Full } else { Recompute::Off })
    }

    fn visit_f64<E: Error>(self, share: f64) -> Result<Recompute, E> {
        Self::fraction(share)
    }

    fn visit_i64<E: Error>(self, share: i64) -> Result<Recompute, E> {
        Self::fraction(share as f64)
    }

    fn visit_u64<E: Error>(self, share: u64) -> Result<Recompute, E> {
        Self::fraction(share as f64)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Recompute, E> {
        match name {
            "selective" => Ok(Recompute::Selective),
            // From the environment and `--set`, where everything may be text.
            "true" => Ok(Recompute::Full),
            "false" => Ok(Recompute::Off),
            other => Err(E::invalid_value(Unexpected::Str(other), &self)),
        }
    }
}

impl JsonSchema for Recompute {
    fn schema_name() -> Cow<'static, str> {
        "Recompute".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "boolean" },
                { "type": "number", "minimum": 0, "maximum": 1 },
                { "const": "selective" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Recompute, String> {
        let table: toml::Table = text.parse().expect("TOML");
        Recompute::deserialize(table["x"].clone()).map_err(|e| e.to_string())
    }

    #[test]
    fn every_form_of_internevo_is_understood_and_written_back() {
        for (text, form, blocks) in [
            ("x = true", Recompute::Full, 10),
            ("x = false", Recompute::Off, 0),
            ("x = 0.25", Recompute::Fraction(0.25), 2),
            ("x = 1", Recompute::Fraction(1.0), 10),
            ("x = \"selective\"", Recompute::Selective, 0),
        ] {
            assert_eq!(read(text), Ok(form));
            assert_eq!(form.whole_blocks(10), blocks);
            let back = toml::Value::try_from(form).expect("writes");
            assert_eq!(Recompute::deserialize(back).expect("reads"), form);
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_possible() {
        for text in ["x = 1.5", "x = -1", "x = \"most\"", "x = []"] {
            let message = read(text).expect_err(text);
            assert!(message.contains("selective"), "{message}");
        }
    }
}
