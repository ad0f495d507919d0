//! Text generation: one pass over the prompt, then one token at a time over a key/value cache.
//!
//! Not here: tokenisation. Prompts and results are token ids.

mod cache;
mod sampling;

pub use cache::{KvCache, LayerCache};
pub use sampling::Sampling;

use burn::{module::Module, tensor::Tensor};
use internevo_kernels::autograd::HostTensor;

use crate::{decoder::Decoder, error::ModelError};

/// An endless iterator over the tokens that follow a prompt. Take as many as wanted; it ends by itself only after an
/// error.
#[derive(Debug)]
pub struct Generator {
    decoder: Decoder,
    cache: KvCache,
    sampling: Sampling,
    /// Tokens not yet in the cache: the prompt at first, then the last token given out.
    pending: Vec<u32>,
    generated: u64,
    failed: bool,
}

impl Generator {
    /// Starts after `prompt`, with room for `expected` tokens before the cache has to grow. Works on a snapshot of the
    /// decoder without autodiff, so it can run between two training steps.
    ///
    /// # Errors
    /// An empty prompt, a token outside the vocabulary, or senseless sampling settings.
    pub fn new(decoder: &Decoder, prompt: &[u32], expected: usize, sampling: &Sampling) -> Result<Self, ModelError> {
        sampling.validate()?;
        decoder.spec().check_tokens(prompt)?;
        if prompt.is_empty() {
            return Err(ModelError::Generation("the prompt is empty; begin with the bos token".into()));
        }
        let decoder = decoder.valid();
        let device = decoder.devices().into_iter().next().expect("a decoder has parameters");
        let cache = KvCache::new(decoder.spec(), prompt.len() + expected, &device);
        let sampling = sampling.clone();
        Ok(Self { decoder, cache, sampling, pending: prompt.to_vec(), generated: 0, failed: false })
    }

    fn step(&mut self) -> Result<u32, ModelError> {
        let logits = self.decoder.next_logits(&self.pending, &mut self.cache);
        let token = self.sampling.pick(&host(logits), self.generated)?;
        self.pending = vec![token];
        self.generated += 1;
        Ok(token)
    }
}

impl Iterator for Generator {
    type Item = Result<u32, ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let token = self.step();
        self.failed = token.is_err();
        Some(token)
    }
}

/// At most `count` tokens after `prompt`. A token of `stop` ends the text and is not part of it.
///
/// # Errors
/// As [`Generator::new`], and when the model's output is not finite.
pub fn generate(
    decoder: &Decoder,
    prompt: &[u32],
    count: usize,
    sampling: &Sampling,
    stop: &[u32],
) -> Result<Vec<u32>, ModelError> {
    Generator::new(decoder, prompt, count, sampling)?
        .take(count)
        .take_while(|token| !matches!(token, Ok(token) if stop.contains(token)))
        .collect()
}

fn host(logits: Tensor<2>) -> HostTensor {
    HostTensor::new(logits.into_dispatch())
}
