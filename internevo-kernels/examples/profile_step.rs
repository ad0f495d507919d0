//! Times a training step (forward and backward, no optimizer) of a small decoder and each operation in it, fused against
//! composed, on all rayon threads.
//!
//! `cargo run --release -p internevo-kernels --example profile_step -- [hidden] [ffn] [vocab] [tokens] [segment]`

use internevo_kernels::KernelSet::{Fused, Reference};
use internevo_kernels::autograd::{Function, HostTensor};
use internevo_kernels::burn::tensor::{Device, Tensor};
use internevo_kernels::*;
use std::time::{Duration, Instant};

/// Least time spent on one line of the table.
const BUDGET: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
struct Sizes {
    hidden: usize,
    ffn: usize,
    vocab: usize,
    tokens: usize,
    segment: usize,
    layout: QkvLayout,
}

const LAYERS: usize = 4;

fn main() {
    let argument = |index: usize, default: usize| {
        std::env::args().nth(index).map_or(default, |text| text.parse().expect("sizes are whole numbers"))
    };
    let hidden = argument(1, 256);
    let layout = QkvLayout { kv_heads: 4, q_per_kv: 2, head_dim: hidden / 8 };
    let (ffn, vocab) = (argument(2, 704), argument(3, 4096));
    let sizes = Sizes { hidden, ffn, vocab, tokens: argument(4, 1024), segment: argument(5, 256), layout };
    println!("{:<32} {:>9} {:>9} {:>9} {:>9}", "forward + backward", "fused ms", "ref ms", "GFLOP/s", "GB/s");
    operations(sizes);
    step_table(sizes);
}

fn noise(rows: usize, columns: usize, scale: f32, device: &Device) -> Tensor<2> {
    // A hash of the place: uniform in -scale..scale, and no two matrices alike.
    let value = |i: usize| {
        let z = (i as u64 ^ ((rows as u64) << 48) ^ ((columns as u64) << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z >> 40) as f32 / 8_388_608.0 - 1.0
    };
    let data: Vec<f32> = (0..rows * columns).map(|i| value(i) * scale).collect();
    let plain: Tensor<2> = HostTensor::from_vec(data, [rows, columns]).into_tensor();
    if device.is_autodiff() { plain.autodiff().require_grad() } else { plain }
}

/// Sends `gradient` into the backward of `y`, without the cost of a loss.
fn backward(y: Tensor<2>, gradient: &Tensor<2>) {
    let (function, _) = Function::enter([y.into()]);
    let gradient = gradient.clone();
    let loss: Tensor<1> = HostTensor::from_vec(vec![0.0], [1]).into_tensor();
    drop(function.finish(loss, move |_: Tensor<1>, _| [Some(gradient.into_dispatch())]).backward());
}

/// Best time of `f` in seconds.
fn best(f: impl FnMut()) -> f64 {
    best_and_cpu(f).0
}

/// Best time of `f` and its mean processor time over all threads, in seconds; the second is what to trust on a busy machine.
fn best_and_cpu(mut f: impl FnMut()) -> (f64, f64) {
    f();
    let (start, cpu, mut best, mut runs) = (Instant::now(), cpu_seconds(), f64::INFINITY, 0);
    while start.elapsed() < BUDGET {
        let one = Instant::now();
        f();
        best = best.min(one.elapsed().as_secs_f64());
        runs += 1;
    }
    (best, (cpu_seconds() - cpu) / f64::from(runs))
}

/// Processor time of this process so far; zero where `/proc` does not tell.
fn cpu_seconds() -> f64 {
    /// Clock ticks per second in `/proc`, fixed for user space.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the parenthesised name: user and system time are the 12th and 13th.
    let ticks = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// One line: `flops` and `bytes` are what forward and backward cannot do without.
fn line(name: &str, flops: f64, bytes: f64, f: impl Fn(KernelSet)) {
    let (fused, reference) = (best(|| f(Fused)), best(|| f(Reference)));
    let (gflops, gbytes) = (flops / fused / 1e9, bytes / fused / 1e9);
    println!("{name:<32} {:>9.3} {:>9.3} {gflops:>9.1} {gbytes:>9.1}", fused * 1e3, reference * 1e3);
}

fn operations(s: Sizes) {
    let device = Device::flex().autodiff();
    let plain = Device::flex();
    let matrix = |rows, columns| noise(rows, columns, 1.0, &device);
    let float = size_of::<f32>() as f64;
    let (t, h) = (s.tokens, s.hidden);
    for (name, d_in, d_out) in
        [("linear qkv", h, s.layout.qkv_width()), ("linear wo", h, h), ("linear w1", h, s.ffn), ("linear w2", s.ffn, h)]
    {
        let (x, w, dy) = (matrix(t, d_in), matrix(d_out, d_in), noise(t, d_out, 1.0, &plain));
        let flops = 6.0 * (t * d_in * d_out) as f64;
        line(name, flops, 0.0, |set| backward(linear(set, x.clone(), w.clone()), &dy));
    }
    let (x, dy) = (matrix(t, h), noise(t, h, 1.0, &plain));
    let table = matrix(s.vocab, h);
    let tokens: Vec<u32> = (0..t).map(|i| (i * 7919 % s.vocab) as u32).collect();
    line("embedding", 0.0, float * (4 * t * h + s.vocab * h) as f64, |set| {
        backward(embedding(set, table.clone(), &tokens), &dy);
    });
    let norm = Tensor::<1>::ones([h], &device).require_grad();
    line("rms_norm", 0.0, float * 5.0 * (t * h) as f64, |set| {
        backward(rms_norm(set, x.clone(), norm.clone(), 1e-5), &dy);
    });
    let (qkv, d_qkv) = (matrix(t, s.layout.qkv_width()), noise(t, s.layout.qkv_width(), 1.0, &plain));
    let (positions, rotary_table) = positions(s);
    line("rotary", 0.0, float * 4.0 * (t * s.layout.qkv_width()) as f64, |set| {
        backward(rotary(set, qkv.clone(), s.layout, &positions, &rotary_table), &d_qkv);
    });
    let cu_seqlens = segments(s);
    let pairs: f64 = cu_seqlens.windows(2).map(|p| f64::from(p[1] - p[0]) * f64::from(p[1] - p[0] + 1) / 2.0).sum();
    line("attention", 14.0 * pairs * h as f64, 0.0, |set| {
        backward(attention(set, qkv.clone(), s.layout, &cu_seqlens), &dy);
    });
    let (gate, up, d_ffn) = (matrix(t, s.ffn), matrix(t, s.ffn), noise(t, s.ffn, 1.0, &plain));
    line("swiglu", 0.0, float * 8.0 * (t * s.ffn) as f64, |set| {
        backward(swiglu(set, gate.clone(), up.clone()), &d_ffn);
    });
    let labels: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    let logits = matrix(t, s.vocab);
    line("cross_entropy", 0.0, float * 2.0 * (t * s.vocab) as f64, |set| {
        drop(cross_entropy(set, logits.clone(), &labels, 0.0, 1.0).loss_sum.backward());
    });
    line("linear_cross_entropy", 6.0 * (t * h * s.vocab) as f64, 0.0, |set| {
        drop(linear_cross_entropy(set, x.clone(), table.clone(), &labels, 0.0, 1.0).loss_sum.backward());
    });
}

fn positions(s: Sizes) -> (Vec<u32>, RotaryTable) {
    let positions = (0..s.tokens).map(|i| (i % s.segment) as u32).collect();
    (positions, RotaryTable::new(s.layout.head_dim, 10_000.0, s.segment))
}

fn segments(s: Sizes) -> Vec<u32> {
    (0..s.tokens).step_by(s.segment).chain([s.tokens]).map(|end| end as u32).collect()
}

struct Layer {
    norms: [Tensor<1>; 2],
    wqkv: Tensor<2>,
    wo: Tensor<2>,
    w1: Tensor<2>,
    w3: Tensor<2>,
    w2: Tensor<2>,
}

fn layer(s: Sizes, device: &Device) -> Layer {
    let weight = |d_out: usize, d_in: usize| noise(d_out, d_in, (3.0 / d_in as f32).sqrt(), device);
    let norm = || Tensor::<1>::ones([s.hidden], device).require_grad();
    Layer {
        norms: [norm(), norm()],
        wqkv: weight(s.layout.qkv_width(), s.hidden),
        wo: weight(s.hidden, s.layout.output_width()),
        w1: weight(s.ffn, s.hidden),
        w3: weight(s.ffn, s.hidden),
        w2: weight(s.hidden, s.ffn),
    }
}

fn step_table(s: Sizes) {
    let device = Device::flex().autodiff();
    let layers: Vec<Layer> = (0..LAYERS).map(|_| layer(s, &device)).collect();
    let table = noise(s.vocab, s.hidden, 1.0, &device);
    let head = noise(s.vocab, s.hidden, (3.0 / s.hidden as f32).sqrt(), &device);
    let norm = Tensor::<1>::ones([s.hidden], &device).require_grad();
    let tokens: Vec<u32> = (0..s.tokens).map(|i| (i * 7919 % s.vocab) as u32).collect();
    let labels: Vec<i32> = tokens.iter().skip(1).map(|token| *token as i32).chain([IGNORE_INDEX]).collect();
    let ((positions, rotary_table), cu_seqlens) = (positions(s), segments(s));
    let loss = |set: KernelSet| {
        let mut x = embedding(set, table.clone(), &tokens);
        for layer in &layers {
            let y = rms_norm(set, x.clone(), layer.norms[0].clone(), 1e-5);
            let qkv = rotary(set, linear(set, y, layer.wqkv.clone()), s.layout, &positions, &rotary_table);
            x = x + linear(set, attention(set, qkv, s.layout, &cu_seqlens), layer.wo.clone());
            let y = rms_norm(set, x.clone(), layer.norms[1].clone(), 1e-5);
            let (gate, up) = (linear(set, y.clone(), layer.w1.clone()), linear(set, y, layer.w3.clone()));
            x = x + linear(set, swiglu(set, gate, up), layer.w2.clone());
        }
        let x = rms_norm(set, x, norm.clone(), 1e-5);
        linear_cross_entropy(set, x, head.clone(), &labels, 0.0, 1.0 / s.tokens as f64).loss_sum
    };
    let block = s.layout.qkv_width() + s.layout.output_width() + 3 * s.ffn;
    let weights = LAYERS * s.hidden * block + s.vocab * s.hidden;
    let flops = 6.0 * (s.tokens * weights) as f64 + LAYERS as f64 * 6.0 * (s.tokens * s.segment * s.hidden) as f64;
    for set in [Fused, Reference] {
        let value = loss(set).into_data().try_to_vec::<f32>().expect("a loss is one f32")[0];
        let (forward, (both, cpu)) = (best(|| drop(loss(set))), best_and_cpu(|| drop(loss(set).backward())));
        let rate = s.tokens as f64 / both;
        println!(
            "step {set:?}: loss {value:.5}, forward {:.1} ms, forward + backward {:.1} ms (cpu {:.1}), {rate:.0} tokens/s, {:.1} GFLOP/s",
            forward * 1e3,
            both * 1e3,
            cpu * 1e3,
            flops / both / 1e9
        );
    }
}
