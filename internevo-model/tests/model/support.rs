//! Random small models and batches.

use burn::tensor::Device;
use internevo_core::{batch::PackedBatch, rng::CounterRng};
use internevo_kernels::KernelSet;
use internevo_model::{InitSpec, ModelSpec, init::initial_parameters, param_table};

/// A model whose sizes are all different, with weights large enough that attention is far from uniform.
pub fn small_spec(kv_heads: usize, q_per_kv: usize, kernels: KernelSet) -> ModelSpec {
    ModelSpec {
        hidden: 20,
        layers: 2,
        heads: kv_heads * q_per_kv,
        kv_heads,
        head_dim: 6,
        ffn: 27,
        vocab: 37,
        max_positions: 48,
        eps: 1e-5,
        rope_base: 100.0,
        kernels,
        init: InitSpec { embedding: 1.0, wqkv: 0.5, wo: 0.3, w1_w3: 0.4, w2: 0.3, head: 0.4, uniform: false },
    }
}

/// Its parameters, with norm weights that are not all one.
pub fn random_parameters(spec: &ModelSpec, seed: u64) -> Vec<f32> {
    let mut flat = initial_parameters(spec, seed);
    let rng = CounterRng::new(seed, "norms");
    for parameter in param_table(spec).iter().filter(|p| !p.decay) {
        for i in parameter.range() {
            flat[i] = 1.0 + 0.3 * rng.normal(i as u64) as f32;
        }
    }
    flat
}

/// Random documents of the given lengths, packed; about one label in six is ignored.
pub fn random_batch(spec: &ModelSpec, lengths: &[usize], seed: u64) -> PackedBatch {
    let rng = CounterRng::new(seed, "batch");
    let mut batch = PackedBatch { cu_seqlens: vec![0], ..PackedBatch::default() };
    for length in lengths {
        for position in 0..*length {
            let i = batch.tokens.len() as u64;
            batch.tokens.push(rng.below(2 * i, spec.vocab as u64) as u32);
            let label = rng.below(2 * i + 1, spec.vocab as u64) as i32;
            let ignored = rng.words(1_000_000 + i)[3].is_multiple_of(6);
            batch.labels.push(if ignored { internevo_core::batch::IGNORE_INDEX } else { label });
            batch.position_ids.push(position as u32);
        }
        batch.cu_seqlens.push(batch.tokens.len() as u32);
    }
    batch
}

/// The segment `index` of a batch as a batch of its own.
pub fn segment(batch: &PackedBatch, index: usize) -> PackedBatch {
    let (start, end) = (batch.cu_seqlens[index] as usize, batch.cu_seqlens[index + 1] as usize);
    PackedBatch {
        tokens: batch.tokens[start..end].to_vec(),
        labels: batch.labels[start..end].to_vec(),
        cu_seqlens: vec![0, (end - start) as u32],
        position_ids: batch.position_ids[start..end].to_vec(),
    }
}

/// The device of these tests, with a tape.
pub fn training_device() -> Device {
    Device::flex().autodiff()
}

/// `‖a - b‖ / ‖b‖`; infinite when something is not finite, so that NaN fails.
pub fn distance(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: f64 = a.iter().zip(b).map(|(x, y)| (f64::from(*x) - y).powi(2)).sum();
    let norm: f64 = b.iter().map(|y| y * y).sum();
    let ratio = (difference / norm).sqrt();
    if ratio.is_nan() { f64::INFINITY } else { ratio }
}

/// As f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}
