//! Forward and backward of the whole decoder against the scalar f64 model, and against itself in other arrangements.

use burn::tensor::Device;
use internevo_core::{batch::PackedBatch, rng::CounterRng};
use internevo_kernels::KernelSet;
use internevo_model::{Decoder, EvalSums, InitSpec, ModelSpec, evaluate, param_table};

use crate::{
    reference::ReferenceModel,
    support::{distance, random_batch, random_parameters, segment, small_spec, training_device, wide},
};

const SMOOTHING: f64 = 0.1;
const SCALE: f64 = 0.25;

fn loss_and_gradients(spec: &ModelSpec, flat: &[f32], batch: &PackedBatch, smoothing: f64) -> (f64, f64, Vec<f32>) {
    let decoder = Decoder::from_flat(spec, flat, &training_device()).expect("a valid model");
    let result = decoder.loss(batch, smoothing, SCALE);
    let mut gradients = result.loss_sum.backward();
    let mut flat_gradients = vec![f32::NAN; flat.len()];
    decoder.take_grads(&mut gradients, &mut flat_gradients);
    let loss = f64::from(result.loss_sum.inner().into_scalar::<f32>());
    (loss, result.nll_sum, flat_gradients)
}

#[test]
fn loss_and_logits_equal_the_scalar_model() {
    for (case, (kv_heads, q_per_kv)) in [(1, 1), (2, 2), (1, 4), (3, 1)].into_iter().enumerate() {
        for kernels in [KernelSet::Fused, KernelSet::Reference] {
            let seed = case as u64;
            let spec = small_spec(kv_heads, q_per_kv, kernels);
            let flat = random_parameters(&spec, seed);
            let batch = random_batch(&spec, &[7, 1, 12, 3], seed);
            let reference = ReferenceModel::new(&spec, &flat);
            let expected: Vec<f64> = reference.logits(&batch).into_iter().flatten().collect();
            let decoder = Decoder::from_flat(&spec, &flat, &Device::flex()).expect("a valid model");
            let logits = decoder.logits(&batch).into_data().try_to_vec::<f32>().expect("f32");
            assert!(
                distance(&logits, &expected) <= 1e-5,
                "case {case}: logits off by {}",
                distance(&logits, &expected)
            );

            let (smoothed, nll) = reference.loss(&batch, SMOOTHING);
            let (loss, nll_sum, _) = loss_and_gradients(&spec, &flat, &batch, SMOOTHING);
            assert!((loss / (smoothed * SCALE) - 1.0).abs() <= 1e-5, "case {case}: {loss} for {}", smoothed * SCALE);
            assert!((nll_sum / nll - 1.0).abs() <= 1e-5, "case {case}: {nll_sum} for {nll}");
        }
    }
}

#[test]
fn gradients_equal_finite_differences_of_the_scalar_model() {
    // In f64 a central difference with this step has a truncation error near 1e-8 and less rounding error, so what
    // remains is the f32 error of our own backward pass. 1e-3 of the parameter's RMS gradient is the design's bound.
    const STEP: f64 = 1e-4;
    const PICKS: u64 = 4;
    let spec = small_spec(2, 2, KernelSet::Fused);
    let flat = random_parameters(&spec, 21);
    let batch = random_batch(&spec, &[9, 5], 21);
    let (_, _, gradients) = loss_and_gradients(&spec, &flat, &batch, SMOOTHING);
    let mut reference = ReferenceModel::new(&spec, &flat);
    for parameter in param_table(&spec) {
        let own = &gradients[parameter.range()];
        let rms = (own.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>() / own.len() as f64).sqrt();
        assert!(rms > 0.0, "{} has a gradient", parameter.name);
        let rng = CounterRng::new(4, &parameter.name);
        for pick in 0..PICKS {
            let index = rng.below(pick, own.len() as u64) as usize;
            let at = *reference.weight_mut(&parameter.name, index);
            let mut loss_at = |x: f64| {
                *reference.weight_mut(&parameter.name, index) = x;
                reference.loss(&batch, SMOOTHING).0 * SCALE
            };
            let slope = (loss_at(at + STEP) - loss_at(at - STEP)) / (2.0 * STEP);
            loss_at(at);
            let error = (f64::from(own[index]) - slope).abs();
            let bound = 1e-3 * rms.max(slope.abs());
            assert!(error <= bound, "{}[{index}]: {} for {slope}", parameter.name, own[index]);
        }
    }
}

#[test]
fn fused_and_reference_kernels_give_the_same_gradients() {
    for (case, (kv_heads, q_per_kv)) in [(2, 2), (1, 3)].into_iter().enumerate() {
        let fused = small_spec(kv_heads, q_per_kv, KernelSet::Fused);
        let composed = ModelSpec { kernels: KernelSet::Reference, ..fused.clone() };
        let flat = random_parameters(&fused, 31 + case as u64);
        let batch = random_batch(&fused, &[17, 2, 11], 31 + case as u64);
        let (_, _, a) = loss_and_gradients(&fused, &flat, &batch, 0.0);
        let (_, _, b) = loss_and_gradients(&composed, &flat, &batch, 0.0);
        for parameter in param_table(&fused) {
            let error = distance(&a[parameter.range()], &wide(&b[parameter.range()]));
            assert!(error <= 1e-5, "{}: {error}", parameter.name);
        }
    }
}

#[test]
fn documents_packed_together_cost_the_sum_of_each_alone() {
    let spec = small_spec(2, 2, KernelSet::Fused);
    let flat = random_parameters(&spec, 41);
    let batch = random_batch(&spec, &[13, 20], 41);
    let (loss, nll, gradients) = loss_and_gradients(&spec, &flat, &batch, SMOOTHING);
    let (loss_a, nll_a, gradients_a) = loss_and_gradients(&spec, &flat, &segment(&batch, 0), SMOOTHING);
    let (loss_b, nll_b, gradients_b) = loss_and_gradients(&spec, &flat, &segment(&batch, 1), SMOOTHING);
    assert!((loss / (loss_a + loss_b) - 1.0).abs() <= 1e-6);
    assert!((nll / (nll_a + nll_b) - 1.0).abs() <= 1e-6);
    let sum: Vec<f64> = gradients_a.iter().zip(&gradients_b).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
    assert!(distance(&gradients, &sum) <= 1e-5, "{}", distance(&gradients, &sum));
}

#[test]
fn a_fresh_model_is_as_unsure_as_a_die() {
    let spec = ModelSpec {
        hidden: 64,
        heads: 8,
        kv_heads: 2,
        head_dim: 8,
        vocab: 500,
        init: InitSpec::default(),
        ..small_spec(2, 4, KernelSet::Fused)
    };
    let decoder = Decoder::init(&spec, 5, &Device::flex()).expect("a valid model");
    let batch = random_batch(&spec, &[48, 48, 48, 48], 5);
    let loss = evaluate(&decoder, [&batch], None).finish().expect("labels").loss;
    // Logits of standard deviation 0.02 * sqrt(64) = 0.16 raise the expected loss by 0.16² / 2.
    assert!((loss - (500f64).ln()).abs() < 0.05, "{loss}");
}

#[test]
fn evaluation_adds_up_over_batches_and_counts_bytes() {
    let spec = small_spec(2, 1, KernelSet::Fused);
    let flat = random_parameters(&spec, 51);
    let batches = [random_batch(&spec, &[9, 4], 51), random_batch(&spec, &[16], 52)];
    let decoder = Decoder::from_flat(&spec, &flat, &training_device()).expect("a valid model");
    let token_bytes: Vec<u32> = (0..spec.vocab as u32).map(|t| t % 5 + 1).collect();
    let together = evaluate(&decoder, &batches, Some(&token_bytes));
    let apart = batches.iter().map(|b| evaluate(&decoder, [b], Some(&token_bytes)));
    assert_eq!(together, apart.fold(EvalSums::default(), EvalSums::merge));

    let reference = ReferenceModel::new(&spec, &flat);
    let nll: f64 = batches.iter().map(|b| reference.loss(b, 0.0).1).sum();
    let labels = || batches.iter().flat_map(|b| &b.labels).filter(|l| **l >= 0);
    let bytes: u32 = labels().map(|l| l % 5 + 1).sum::<i32>() as u32;
    let figures = together.finish().expect("labels");
    assert_eq!(figures.tokens as usize, labels().count());
    assert!((figures.loss * labels().count() as f64 / nll - 1.0).abs() <= 1e-5);
    let bits = nll / 2f64.ln() / f64::from(bytes);
    assert!((figures.bits_per_byte.expect("lengths were given") / bits - 1.0).abs() <= 1e-5);
    assert_eq!(EvalSums::default().finish(), None);
}
