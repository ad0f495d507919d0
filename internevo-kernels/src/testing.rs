//! What the tests of all operations share: fresh random inputs, comparison with f64, tensors and gradients. No kernels.

use crate::VocabShard;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest `‖out − ref‖ / ‖ref‖` of a kernel against f64.
pub const TOLERANCE: f64 = 1e-5;

/// SplitMix64, seeded afresh in each test; `KERNELS_SEED` repeats a run.
pub struct Random(u64);

impl Random {
    /// A fresh generator; prints the seed, which the test harness shows when the test fails.
    pub fn fresh() -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("KERNELS_SEED").map_or(clock, |seed| seed.parse().unwrap());
        println!("KERNELS_SEED={seed}");
        Self(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.word() % (high - low + 1) as u64) as usize
    }

    /// Roughly normal f32 values (sum of uniforms), widened exactly to f64 by [`wide`].
    pub fn values(&mut self, n: usize) -> Vec<f32> {
        let uniform = |random: &mut Self| (random.word() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        (0..n).map(|_| (0..3).map(|_| uniform(self)).sum::<f32>()).collect()
    }

    /// Segment boundaries over `total` tokens: ragged, with a segment of one token.
    pub fn segments(&mut self, total: usize) -> Vec<u32> {
        let mut ends = vec![0, 1];
        while *ends.last().unwrap() < total as u32 {
            let last = *ends.last().unwrap();
            ends.push((last + self.between(1, 150) as u32).min(total as u32));
        }
        ends
    }

    /// A vocabulary cut at random for `ranks` ranks; of four, the second gets nothing.
    pub fn shards(&mut self, vocab: usize, ranks: usize) -> Vec<VocabShard> {
        let mut cuts: Vec<_> = (1..ranks).map(|_| self.between(0, vocab)).chain([0, vocab]).collect();
        cuts.sort_unstable();
        if ranks == 4 {
            cuts[2] = cuts[1];
        }
        cuts.windows(2).map(|pair| VocabShard::new(pair[0]..pair[1], vocab)).collect()
    }
}

/// f32 to f64, exactly.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Fails unless `out` is `reference` up to [`TOLERANCE`] in norm. A NaN fails.
#[track_caller]
pub fn assert_close(what: &str, out: &[f32], reference: &[f64]) {
    assert_eq!(out.len(), reference.len(), "{what}: length");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut out.iter().zip(reference).map(|(a, b)| f64::from(*a) - b));
    let relative = difference / norm(&mut reference.iter().copied()).max(f64::MIN_POSITIVE);
    assert!(relative <= TOLERANCE, "{what}: relative error {relative:.2e}");
}

/// Checks `gradient` of `f` at `x` by a central difference along a random direction.
#[track_caller]
pub fn assert_gradient(what: &str, random: &mut Random, x: &[f64], gradient: &[f64], f: impl Fn(&[f64]) -> f64) {
    let direction = wide(&random.values(x.len()));
    let step = 1e-5;
    let moved = |sign: f64| f(&x.iter().zip(&direction).map(|(x, d)| x + sign * step * d).collect::<Vec<_>>());
    let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * step);
    let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
    let size = gradient.iter().zip(&direction).map(|(g, d)| (g * d).abs()).sum::<f64>().max(1e-12);
    assert!((numeric - exact).abs() <= 1e-6 * size, "{what}: numeric {numeric}, exact {exact}");
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The devices a fused op must serve with gradients: without and with burn's checkpointing.
pub fn tracked_devices() -> [Device; 2] {
    [Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()]
}

/// The same on each runtime of cubecl that this build was given.
#[cfg(feature = "gpu")]
pub fn gpu_devices() -> Vec<Device> {
    let devices: Vec<Device> = vec![
        #[cfg(feature = "wgpu")]
        Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "cpu")]
        Device::cpu(),
        #[cfg(feature = "cuda")]
        Device::cuda(0),
    ];
    let tracked = |device: Device| [device.clone().autodiff(), device.autodiff().gradient_checkpointing()];
    devices.into_iter().flat_map(tracked).collect()
}

pub fn leaf<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device).require_grad()
}

pub fn plain<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.without_autodiff().into_data().try_to_vec().unwrap()
}

pub fn gradient<const D: usize>(leaf: &Tensor<D>, gradients: &Gradients) -> Vec<f32> {
    values(leaf.grad(gradients).unwrap())
}

/// `(y · weights).sum().backward()`: sends `weights` into the backward of `y`.
pub fn backward_with(y: Tensor<2>, weights: &[f32]) -> Gradients {
    let weights = Tensor::from_data(TensorData::new(weights.to_vec(), y.dims()), &y.device().inner());
    (y * weights).sum().backward()
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Runs `f` alone, again, in pools of 1, 2 and 3 threads, and on two threads at once; all results must be equal to the bit.
#[track_caller]
pub fn assert_deterministic(what: &str, f: impl Fn() -> Vec<f32> + Sync) {
    let first = bits(&f());
    let check = |again: Vec<f32>, how: &str| assert!(bits(&again) == first, "{what}: other bits {how}");
    check(f(), "in a second run");
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        check(pool.install(&f), &format!("with {threads} threads"));
    }
    let (a, b) = std::thread::scope(|scope| {
        let ranks = [scope.spawn(&f), scope.spawn(&f)];
        let [a, b] = ranks.map(|rank| rank.join().unwrap());
        (a, b)
    });
    check(a, "beside another rank");
    check(b, "beside another rank");
}
