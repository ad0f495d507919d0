//! Peak memory of a training step, counted by the allocator, beside the estimate. `cargo run --release -p benches --example memory`
//! prints the table; `tests/memory.rs` holds the estimate to it. A binary that measures makes [`Counting`] its allocator.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use internevo_core::{
    batch::PackedBatch,
    config::{Config, Recompute},
    estimate::{MemoryEstimate, Step, memory},
    layout::ParallelLayout,
};
use internevo_model::{Engine, EngineError, ModelSpec};
use internevo_parallel::comm::{Communicator, DryOptions, RunError, dry_world, run_ranks};

/// Rows of the vocabulary.
const VOCAB: usize = 1024;
/// Tokens of a micro-batch, in two documents.
const TOKENS: usize = 512;
/// Stack of the thread that trains: autodiff recurses over the tape.
const STACK_BYTES: usize = 64 << 20;

/// The system's allocator with a count of the bytes that live and of the most that lived since `restart`.
pub struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grown(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call goes to `System` with the same arguments; the counters touch no memory of the allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        grown(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

fn restart() {
    PEAK.store(live(), Ordering::Relaxed);
}

/// A layout to measure.
pub struct Case {
    /// Its name, as `internevo parity` has it.
    pub name: &'static str,
    /// Its configuration.
    pub config: Config,
}

/// The layouts of the table.
pub fn cases() -> Vec<Case> {
    let case = |name, change: fn(&mut Config)| {
        let mut config = base();
        change(&mut config);
        Case { name, config }
    };
    fn zero(config: &mut Config, stage: usize) {
        (config.launch.ranks, config.parallel.zero1.stage) = (2, stage);
    }
    fn tensor(config: &mut Config, mode: &str) {
        config.launch.ranks = 2;
        (config.parallel.tensor.mode, config.parallel.tensor.size) = (mode.to_owned(), 2);
    }
    vec![
        case("dp1", |_| {}),
        case("dp1+recompute", |config| config.model.checkpoint = Recompute::Full),
        case("dp1+selective", |config| config.model.checkpoint = Recompute::Selective),
        case("dp2+zero1", |config| zero(config, 1)),
        case("dp2+zero2", |config| zero(config, 2)),
        case("dp2+zero3", |config| zero(config, 3)),
        case("dp2+zero3+recompute", |config| {
            zero(config, 3);
            config.model.checkpoint = Recompute::Full;
        }),
        case("mtp2", |config| tensor(config, "mtp")),
        case("msp2", |config| tensor(config, "msp")),
        case("fsp2", |config| tensor(config, "fsp")),
        case("isp2", |config| tensor(config, "isp")),
        case("isp2+wp2", |config| {
            tensor(config, "isp");
            config.parallel.weight.size = 2;
        }),
    ]
}

/// A decoder of 2.8 million parameters, whose gradients travel in buckets of a tenth; two micro-batches a step.
fn base() -> Config {
    let mut config = Config::default();
    let model = &mut config.model;
    (model.hidden_size, model.num_layers, model.vocab_size) = (192, 6, VOCAB);
    (model.num_attention_heads, model.num_kv_attention_heads) = (6, 2);
    (config.data.seq_len, config.data.micro_bsz, config.data.micro_num) = (TOKENS, 1, 2);
    config.hybrid_zero_optimizer.reduce_bucket_size = 1 << 20;
    config
}

/// Tokens of the step that [`long_cases`] measures.
const LONG: usize = 4096;

/// One step over 4,096 tokens in two documents, with the fused kernels and with burn's own operations.
pub fn long_cases() -> [Case; 2] {
    ["fused", "reference"].map(|kernels| {
        let mut config = base();
        (config.model.hidden_size, config.model.num_layers) = (64, 2);
        (config.model.num_attention_heads, config.model.num_kv_attention_heads) = (4, 2);
        (config.data.seq_len, config.data.micro_num) = (LONG, 1);
        config.model.kernels = kernels.to_owned();
        Case { name: kernels, config }
    })
}

/// Bytes that burn's own operations keep for the backward of [`long_cases`] and the fused kernels never have: the attention
/// probabilities of every layer and the logits, each once.
pub fn materialised() -> u64 {
    let [_, Case { config, .. }] = long_cases();
    let document = (LONG / 2) as u64;
    let probabilities = 2 * document * document * (config.model.num_layers * config.model.num_attention_heads) as u64;
    4 * (probabilities + (LONG * VOCAB) as u64)
}

/// Bytes of one rank.
pub struct Row {
    /// The layout.
    pub name: &'static str,
    /// What the formula says.
    pub predicted: MemoryEstimate,
    /// The peak of a rank without peers, whose messages arrive whole and at once.
    pub alone: u64,
    /// The peak of all ranks in one process, divided by their number.
    pub together: u64,
}

/// Measures the peak of a third step, when buffers that are kept exist: of one rank without peers, and of all as threads.
///
/// # Errors
/// What stopped a rank.
pub fn measure(case: &Case) -> Result<Row, Box<dyn std::error::Error + Send + Sync>> {
    let layout = ParallelLayout::new(&case.config.parallel, case.config.launch.ranks)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).stack_size(STACK_BYTES).build()?;
    let rank = |comm: Arc<dyn Communicator>| steps(case, &layout, comm);
    let dry = || rank(dry_world(0, layout.world(), DryOptions::default()).0);
    // Threads keep scratch space of matrix products: a first run is not counted.
    pool.install(dry)?;
    let before = live();
    let alone = pool.install(dry)? - before;
    let all = || run_ranks(layout.world(), rank);
    all()?;
    let before = live();
    let peaks = all().map_err(|error: RunError<EngineError>| error)?;
    let together = peaks.into_iter().max().unwrap_or(before) - before;
    let predicted = memory(&Step::from_config(&case.config, layout.clone(), VOCAB), 0);
    Ok(Row { name: case.name, predicted, alone: alone as u64, together: (together / layout.world()) as u64 })
}

/// Three steps of one rank; the most bytes that lived during the third.
fn steps(case: &Case, layout: &ParallelLayout, comm: Arc<dyn Communicator>) -> Result<usize, EngineError> {
    let length = case.config.data.seq_len;
    let spec = ModelSpec::from_config(&case.config.model, VOCAB, length)?;
    let mut engine = Engine::new(&spec, &case.config, layout, comm)?;
    let length = length as u32;
    let tokens: Vec<u32> = (0..length).map(|i| i * 7919 % VOCAB as u32).collect();
    let mut batch = PackedBatch::single(&tokens);
    batch.cu_seqlens = vec![0, length / 2, length];
    batch.position_ids = (0..length).map(|i| i % (length / 2)).collect();
    let batches = vec![batch; case.config.data.micro_num];
    for _ in 0..3 {
        let labels = engine.global_labels(&batches)?;
        restart();
        engine.forward_backward(&batches, labels)?;
        engine.update(1e-3, 0.95)?;
    }
    // All ranks have ended the step before anyone gives memory back.
    engine.global_labels(&batches)?;
    Ok(PEAK.load(Ordering::Relaxed))
}
