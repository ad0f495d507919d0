//! Generation with a cache against the full forward pass.

use burn::tensor::Device;
use internevo_core::{batch::PackedBatch, rng::CounterRng};
use internevo_kernels::KernelSet;
use internevo_model::{Decoder, Generator, KvCache, ModelError, ModelSpec, Sampling, generate};

use crate::support::{distance, random_parameters, small_spec, training_device, wide};

fn tokens(spec: &ModelSpec, count: u64, seed: u64) -> Vec<u32> {
    let rng = CounterRng::new(seed, "prompt");
    (0..count).map(|i| rng.below(i, spec.vocab as u64) as u32).collect()
}

fn rows(logits: burn::tensor::Tensor<2>) -> Vec<Vec<f32>> {
    let width = logits.dims()[1];
    let values = logits.into_data().try_to_vec::<f32>().expect("f32");
    values.chunks(width).map(<[f32]>::to_vec).collect()
}

#[test]
fn cached_logits_equal_the_full_forward_at_every_position() {
    for (case, (kv_heads, q_per_kv)) in [(1, 1), (2, 2), (1, 4)].into_iter().enumerate() {
        for kernels in [KernelSet::Fused, KernelSet::Reference] {
            let spec = small_spec(kv_heads, q_per_kv, kernels);
            let flat = random_parameters(&spec, case as u64);
            let decoder = Decoder::from_flat(&spec, &flat, &Device::flex()).expect("a valid model");
            let tokens = tokens(&spec, 30, case as u64);
            let full = rows(decoder.logits(&PackedBatch::single(&tokens)));
            // A prompt, one token at a time, several at once; room for one token, so that the cache has to grow.
            let mut cache = KvCache::new(&spec, 1, &Device::flex());
            let mut stepwise = rows(decoder.logits_cached(&tokens[..9], &mut cache));
            for token in &tokens[9..20] {
                stepwise.extend(rows(decoder.logits_cached(&[*token], &mut cache)));
            }
            stepwise.extend(rows(decoder.logits_cached(&tokens[20..], &mut cache)));
            assert_eq!(cache.len(), tokens.len());
            for (position, (a, b)) in stepwise.iter().zip(&full).enumerate() {
                assert!(distance(a, &wide(b)) <= 1e-5, "case {case} position {position}: {}", distance(a, &wide(b)));
            }
        }
    }
}

#[test]
fn greedy_generation_is_the_argmax_of_the_full_forward() {
    let spec = small_spec(2, 2, KernelSet::Fused);
    let decoder = Decoder::from_flat(&spec, &random_parameters(&spec, 7), &training_device()).expect("a valid model");
    let prompt = tokens(&spec, 5, 7);
    let mut text = prompt.clone();
    for _ in 0..12 {
        let logits = rows(decoder.logits(&PackedBatch::single(&text)).inner()).pop().expect("a last row");
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary");
        text.push(best as u32);
    }
    let generated = generate(&decoder, &prompt, 12, &Sampling::greedy(), &[]).expect("generates");
    assert_eq!(generated, text[5..]);
    // A stop token ends the text and is not part of it.
    let stop = generated[6];
    let until = generated.iter().position(|t| *t == stop).expect("it is in there");
    assert_eq!(generate(&decoder, &prompt, 12, &Sampling::greedy(), &[stop]).expect("generates"), generated[..until]);
}

#[test]
fn generation_goes_on_beyond_the_trained_length_and_repeats_with_its_seed() {
    let spec = small_spec(1, 2, KernelSet::Fused);
    let decoder = Decoder::from_flat(&spec, &random_parameters(&spec, 8), &Device::flex()).expect("a valid model");
    let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 3 };
    let count = spec.max_positions + 20;
    let text = generate(&decoder, &[1, 2], count, &sampling, &[]).expect("generates");
    assert_eq!(text.len(), count);
    assert_eq!(generate(&decoder, &[1, 2], count, &sampling, &[]).expect("generates"), text);
    let other = Sampling { seed: 4, ..sampling };
    assert_ne!(generate(&decoder, &[1, 2], count, &other, &[]).expect("generates"), text);
}

#[test]
fn impossible_prompts_are_refused_and_damaged_weights_end_the_text() {
    let spec = small_spec(1, 1, KernelSet::Fused);
    let mut flat = random_parameters(&spec, 9);
    let decoder = Decoder::from_flat(&spec, &flat, &Device::flex()).expect("a valid model");
    assert!(matches!(generate(&decoder, &[], 3, &Sampling::greedy(), &[]), Err(ModelError::Generation(_))));
    let error = generate(&decoder, &[1, 37], 3, &Sampling::greedy(), &[]).expect_err("37 tokens are 0 to 36");
    assert!(matches!(error, ModelError::Token { token: 37, position: 1, vocab: 37 }), "{error}");

    flat[5] = f32::NAN;
    let damaged = Decoder::from_flat(&spec, &flat, &Device::flex()).expect("the sizes are right");
    let results: Vec<_> = Generator::new(&damaged, &[0], 3, &Sampling::greedy()).expect("starts").collect();
    assert!(results.len() == 1 && results[0].is_err());
}
