//! Peak memory of recomputation, measured: the one test of this binary, since its allocator counts for the whole process.

use internevo_kernels::autograd::{Recording, deliver, recompute};
use internevo_kernels::burn::tensor::{Device, Tensor};
use internevo_kernels::{KernelSet, linear, swiglu};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator with a count of the bytes that live and of the most that ever lived.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to `System` with the same arguments; the counters touch no memory of the allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TOKENS: usize = 512;
const WIDTH: usize = 32;
const INNER: usize = 8 * WIDTH;
const BLOCKS: usize = 12;

fn block(x: Tensor<2>, [gate, up, down]: [Tensor<2>; 3]) -> Tensor<2> {
    let set = KernelSet::Fused;
    let inner = swiglu(set, linear(set, x.clone(), gate), linear(set, x.clone(), up));
    x + linear(set, inner, down)
}

/// Bytes that live after the forward, and at most until the end of the backward, beyond those before it.
fn bytes(recomputed: bool, device: &Device) -> (usize, usize) {
    let weight = |rows, columns| Tensor::<2>::ones([rows, columns], device).require_grad();
    let x = Tensor::<2>::ones([TOKENS, WIDTH], device).require_grad();
    let weights: Vec<[Tensor<2>; 3]> =
        (0..BLOCKS).map(|_| [weight(INNER, WIDTH), weight(INNER, WIDTH), weight(WIDTH, INNER)]).collect();
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let y = weights.iter().cloned().fold(x.clone(), |x, weights| {
        let f = move |x, recording: Recording| {
            block(x, weights.clone().map(|weight| deliver(recording.of(weight), None, drop)))
        };
        if recomputed { recompute(x, f) } else { f(x, Recording::On) }
    });
    let forward = LIVE.load(Ordering::Relaxed) - before;
    let gradients = y.sum().backward();
    assert!(x.grad(&gradients).is_some());
    (forward, PEAK.load(Ordering::Relaxed) - before)
}

#[test]
fn recomputation_keeps_one_input_per_block_and_the_activations_of_one_block() {
    let activation = TOKENS * WIDTH * size_of::<f32>();
    // gate, up and their product; as much again for the gradients in the block that is being differentiated.
    let inner = 3 * TOKENS * INNER * size_of::<f32>();
    // Weight gradients of a block, and what the tape itself allocates.
    let rest = 3 * INNER * WIDTH * size_of::<f32>() + (64 << 10);
    // One thread, and a first run that is not counted: threads keep scratch space of matrix products.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let measure = |recomputed, device: &Device| pool.install(|| bytes(recomputed, device));
    for device in [Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()] {
        measure(true, &device);
        let (plain, recomputed) = (measure(false, &device), measure(true, &device));
        println!("bytes after the forward and at the peak: plain tape {plain:?}, recomputed {recomputed:?}");
        assert!(recomputed.0 <= (BLOCKS + 1) * activation, "after the forward: {} bytes", recomputed.0);
        assert!(recomputed.1 <= (BLOCKS + 6) * activation + 2 * inner + rest, "peak: {} bytes", recomputed.1);
        assert!(plain.0 >= BLOCKS * (inner * 2 / 3), "the plain tape keeps what recomputation does not: {plain:?}");
    }
}
