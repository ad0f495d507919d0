//! A tokenizer outside the workspace: a token a byte.

use internevo_data::{
    plugin::Plugin,
    register_tokenizer,
    tokenizer::{TextEncoder, TokenizerError},
};

/// Bytes, and a token for the end.
struct Bytes {
    config: Config,
}

#[derive(Default, schemars::JsonSchema, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Capitals count as small letters.
    lowercase: bool,
}

/// The token that ends a document.
const EOS: u32 = 256;

impl Plugin for Bytes {
    const NAME: &'static str = "bytes";
    const ABOUT: &'static str = "A token a byte.";
    type Config = Config;
}

register_tokenizer!(Bytes { config });

impl TextEncoder for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let text = if self.config.lowercase { text.to_lowercase() } else { text.to_owned() };
        Ok(text.bytes().map(u32::from).collect())
    }

    fn vocab_size(&self) -> usize {
        EOS as usize + 1
    }

    fn eos_id(&self) -> u32 {
        EOS
    }

    fn fingerprint(&self) -> String {
        self.config.lowercase.to_string()
    }
}

#[cfg(test)]
mod tests {
    use internevo_data::assert_tokenizer;

    use super::Bytes;

    #[test]
    fn tokens_are_bytes() {
        assert_tokenizer!(Bytes, None, "lowercase = true", "Az" => [97, 122], "é" => [195, 169]);
    }
}
