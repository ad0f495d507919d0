//! The formulas against a step that is played through call by call, against published totals, and against each other.

use std::collections::BTreeMap;

use super::*;
use crate::{flops::parameters, volume::Verb};

/// Dimensions that every group size used here divides.
const SHAPE: ModelShape =
    ModelShape { hidden: 256, layers: 8, heads: 16, kv_heads: 8, head_dim: 16, ffn: 704, vocab: 1024 };
const SIZES: [usize; 3] = [1, 2, 4];
const MODES: [(&str, TensorMode); 4] =
    [("mtp", TensorMode::Mtp), ("msp", TensorMode::Msp), ("fsp", TensorMode::Fsp), ("isp", TensorMode::Isp)];

#[derive(Clone, Copy)]
struct Sizes {
    world: usize,
    pipeline: usize,
    tensor: usize,
    weight: usize,
    context: usize,
    /// ZeRO stage and group size.
    zero: (usize, i64),
}

impl Default for Sizes {
    /// One rank; ZeRO-1 over all that there are.
    fn default() -> Self {
        Self { world: 1, pipeline: 1, tensor: 1, weight: 1, context: 1, zero: (1, -1) }
    }
}

/// A step of four micro-batches, if the sizes are a layout.
fn try_step(mode: TensorMode, sizes: Sizes) -> Option<Step> {
    let name = MODES.iter().find(|(_, m)| *m == mode).expect("all modes are listed").0;
    let mut config = Config::default();
    let parallel = &mut config.parallel;
    (parallel.zero1.stage, parallel.zero1.size) = sizes.zero;
    (parallel.tensor.size, parallel.tensor.mode) = (sizes.tensor, name.into());
    (parallel.pipeline.size, parallel.weight.size) = (sizes.pipeline, sizes.weight);
    let grid = &mut parallel.sequence_2d;
    (grid.enable, grid.context_size, grid.head_size) = (sizes.context > 1, sizes.context, sizes.tensor / sizes.context);
    let layout = ParallelLayout::new(parallel, sizes.world).ok()?;
    let step = Step::from_config(&config, layout, SHAPE.vocab as usize);
    Some(Step { shape: SHAPE, tokens: 4096, micro_batches: 4, ..step })
}

fn step(mode: TensorMode, sizes: Sizes) -> Step {
    try_step(mode, sizes).expect("a layout")
}

fn data_parallel(world: usize, zero1: i64, stage: usize) -> Step {
    step(TensorMode::Mtp, Sizes { world, zero: (stage, zero1), ..Sizes::default() })
}

fn sent(terms: &[Term], names: &[&str]) -> u64 {
    terms.iter().filter(|term| names.contains(&term.name)).map(Term::sent).sum()
}

/// Every combination of sizes that is a layout, in every mode, ZeRO stage and kind of recomputation, with a rank of each stage.
fn everything(mut check: impl FnMut(&Step, usize)) {
    let sizes = SIZES.iter().flat_map(|p| SIZES.map(|t| (*p, t))).flat_map(|(p, t)| SIZES.map(|w| (p, t, w)));
    for ((pipeline, tensor, weight), (_, mode)) in sizes.flat_map(|sizes| MODES.map(|mode| (sizes, mode))) {
        for zero in [(1, 1), (1, 2), (1, -1), (2, 2), (3, -1)] {
            let context = if mode == TensorMode::Isp { tensor.min(2) } else { 1 };
            let sizes = Sizes { world: pipeline * 16, pipeline, tensor, weight, context, zero };
            let Some(step) = try_step(mode, sizes) else { continue };
            for recomputed in [Recomputed::Nothing, Recomputed::Attention, Recomputed::Blocks(3), Recomputed::Blocks(8)]
            {
                for (embedding_by_columns, gathers_logits) in [(false, false), (true, true)] {
                    let options = Step { recomputed, embedding_by_columns, gathers_logits, ..step.clone() };
                    let step = Step { chunks: 2, ..options };
                    (0..pipeline).for_each(|stage| check(&step, stage * 16 + 5));
                }
            }
        }
    }
}

type Ledger = BTreeMap<(&'static str, &'static str, Verb), (u64, u64)>;

/// Plays the forward and backward of a step as the model executes it, writing down every call about activations.
fn played(step: &Step, rank: usize) -> Ledger {
    let mut ledger = Ledger::new();
    let mut call = |name, group, verb, elements: u64| {
        let entry = ledger.entry((name, group, verb)).or_default();
        *entry = (entry.0 + 1, entry.1 + elements * 4);
    };
    let (s, tensor) = (&step.shape, step.layout.size(GroupKind::Tensor) as u64);
    let (stages, stage) = (step.layout.size(GroupKind::Pipeline) as u64, (rank / 16) as u64);
    let context = step.layout.size(GroupKind::SequenceContext) as u64;
    let (first, last, isp) = (stage == 0, stage + 1 == stages, step.mode == TensorMode::Isp);
    let (own, heads) =
        (if step.mode == TensorMode::Mtp { step.tokens } else { step.tokens / tensor }, tensor / context);
    let width = step.tokens * s.hidden;
    // What a row-parallel matrix ends with, and what a column-parallel one begins with, forward and backward.
    let (leave, enter): (&[Verb], &[Verb]) = match step.mode {
        TensorMode::Mtp => (&[Verb::AllReduce], &[]),
        TensorMode::Msp | TensorMode::Fsp => (&[Verb::ReduceScatter], &[Verb::AllGather]),
        TensorMode::Isp => (&[], &[]),
    };
    let (leave_back, enter_back): (&[Verb], &[Verb]) = match step.mode {
        TensorMode::Mtp => (&[], &[Verb::AllReduce]),
        TensorMode::Msp => (&[Verb::AllGather], &[Verb::ReduceScatter]),
        TensorMode::Fsp => (&[Verb::AllGather], &[Verb::AllGather, Verb::ReduceScatter]),
        TensorMode::Isp => (&[], &[]),
    };
    for _ in 0..step.micro_batches {
        for boundary in 0..stages * step.chunks - 1 {
            let (from, to) = (boundary % stages, (boundary + 1) % stages);
            for (sender, receiver) in [(from, to), (to, from)] {
                if sender == stage {
                    call("pipeline", "pipeline", Verb::Send, own * s.hidden);
                }
                if receiver == stage {
                    call("pipeline", "pipeline", Verb::Receive, own * s.hidden);
                }
            }
        }
        if first && !isp {
            match (step.embedding_by_columns, step.mode) {
                (false, _) => leave.iter().chain(leave_back).for_each(|v| call("embedding", "tensor", *v, width)),
                (true, TensorMode::Mtp) => call("embedding", "tensor", Verb::AllToAll, width),
                (true, _) => (0..2).for_each(|_| call("embedding", "tensor", Verb::AllToAll, width / tensor)),
            }
        }
        let per_stage = s.layers / stages;
        for block in stage * per_stage..(stage + 1) * per_stage {
            let whole = matches!(step.recomputed, Recomputed::Blocks(n) if block < n);
            let attention_runs = if whole || step.recomputed == Recomputed::Attention { 2 } else { 1 };
            let regions = [(true, attention_runs), (false, if whole { 2 } else { 1 })];
            for (attention, forwards) in regions {
                for (run, backward) in (0..forwards).map(|_| false).chain([true]).enumerate() {
                    // Attention alone is replayed up to `wo`, inside its region.
                    let inside = attention && !whole && run == 1;
                    let verbs = match (backward, inside) {
                        (true, _) => [leave_back, enter_back],
                        (false, false) => [enter, leave],
                        (false, true) => [enter, &[]],
                    };
                    verbs.concat().into_iter().for_each(|verb| call("tensor", "tensor", verb, width));
                    if !(attention && isp) {
                        continue;
                    }
                    for width in [s.heads + 2 * s.kv_heads, s.heads] {
                        call("exchange", "head", Verb::AllToAll, own * width * s.head_dim);
                    }
                    let passes = if backward { 2 * context - 1 } else { context - 1 };
                    for verb in (0..passes).flat_map(|_| [Verb::Send, Verb::Receive]) {
                        let elements = step.tokens / context * 2 * (s.kv_heads / heads) * s.head_dim;
                        call("ring", "context", verb, elements);
                    }
                }
            }
        }
        if last && !isp {
            // Losing the gathered input costs the head nothing: its gradient is made in the forward.
            let backward = enter_back.iter().filter(|verb| **verb != Verb::AllGather);
            enter.iter().chain(backward).for_each(|verb| call("head", "tensor", *verb, width));
            if step.gathers_logits {
                call("loss", "tensor", Verb::AllToAll, step.tokens * s.vocab);
            } else {
                // 1024 tokens at a time, as the vocabulary is small: maxima, then three sums of twice the size.
                let chunks = (0..step.tokens / 1024).flat_map(|_| [1024, 3 * 2 * 1024]);
                chunks.for_each(|elements| call("loss", "tensor", Verb::AllReduce, elements));
            }
        }
    }
    ledger
}

#[test]
fn activations_travel_as_in_a_step_that_is_played_through() {
    let names = ["pipeline", "embedding", "tensor", "exchange", "ring", "head", "loss"];
    everything(|step, rank| {
        let mut expected = played(step, rank);
        let size = |group: &str| match group {
            "pipeline" => step.layout.size(GroupKind::Pipeline),
            "context" => step.layout.size(GroupKind::SequenceContext),
            "head" => step.layout.size(GroupKind::SequenceHead),
            _ => step.layout.size(GroupKind::Tensor),
        };
        expected.retain(|(_, group, _), _| size(group) > 1);
        let terms = volumes(step, rank);
        let found: Ledger = terms
            .iter()
            .filter(|term| names.contains(&term.name))
            .map(|term| ((term.name, term.group, term.verb), (term.calls, term.bytes)))
            .collect();
        assert_eq!(found, expected, "rank {rank} of {step:?}");
    });
}

#[test]
fn zero_moves_what_its_paper_says() {
    // Rajbhandari et al. 2020, section 7: 2Ψ elements for data parallelism and for stages 1 and 2, 3Ψ for stage 3, in the limit
    // of many ranks. A micro-batch per step; the matrices alone, since norms are not sharded.
    let one = |step: Step| Step { micro_batches: 1, ..step };
    let elements = parameters(&SHAPE) as f64 * 4.0;
    let ratio = |step: Step| {
        let names = ["gradient", "parameters", "weight_gather", "weight_gradient"];
        sent(&volumes(&one(step), 3), &names) as f64 / (elements * 63.0 / 64.0)
    };
    for (zero1, stage) in [(1, 1), (-1, 1), (-1, 2)] {
        let ratio = ratio(data_parallel(64, zero1, stage));
        assert!((ratio - 2.0).abs() < 1e-4, "zero1 {zero1}, stage {stage}: {ratio}");
    }
    // The embedding is looked up once and the fused head computes its gradient in the forward: these two are gathered once.
    let ends = 2.0 * (SHAPE.vocab * SHAPE.hidden) as f64 * 4.0 / elements;
    let ratio = ratio(data_parallel(64, -1, 3));
    assert!((ratio - (3.0 - ends)).abs() < 1e-2, "stage 3: {ratio}");
}

#[test]
fn sequence_parallelism_costs_nothing_beyond_tensor_parallelism() {
    // Korthikanti et al. 2022, section 4.2.2.
    let terms = |mode| volumes(&step(mode, Sizes { world: 8, tensor: 4, ..Sizes::default() }), 2);
    let names = ["tensor", "embedding", "head"];
    assert_eq!(sent(&terms(TensorMode::Mtp), &names), sent(&terms(TensorMode::Msp), &names));
    let msp = sent(&terms(TensorMode::Msp), &["tensor"]);
    let fsp = sent(&terms(TensorMode::Fsp), &["tensor"]);
    assert_eq!(fsp * 4, msp * 5, "two more halves on top of eight");
}

#[test]
fn isp_exchanges_what_internevos_simulator_counts() {
    // (4(ckpt + 1) + 4) all-to-alls of b·s/sp·h per block, for as many key/value heads as heads.
    let sizes = Sizes { world: 8, tensor: 8, weight: 4, ..Sizes::default() };
    let mut step = step(TensorMode::Isp, sizes);
    step.shape.kv_heads = step.shape.heads;
    for (checkpoint, recomputed) in [(0, Recomputed::Nothing), (1, Recomputed::Blocks(8))] {
        step.recomputed = recomputed;
        let terms = volumes(&step, 0);
        let exchange = terms.iter().find(|term| term.name == "exchange").expect("isp exchanges heads");
        let per_block = (4 * (checkpoint + 1) + 4) * step.tokens / 8 * step.shape.hidden * 4;
        assert_eq!(exchange.bytes, per_block * step.shape.layers * step.micro_batches);
        let gather = terms.iter().find(|term| term.name == "weight_gather").expect("isp gathers weights");
        // Its simulator gathers once more for a replayed block; here the replay's tape keeps the weights.
        assert_eq!(gather.calls, step.micro_batches * (step.shape.layers * 5 * 2 + 2));
    }
}

#[test]
fn buckets_are_padded_to_equal_shares_and_counted() {
    let mut step = data_parallel(8, 4, 1);
    step.bucket = 1001;
    let total = parameters(&SHAPE);
    let (whole, rest) = (total / 1001, total % 1001);
    let padded = whole * 1004 + rest.div_ceil(4) * 4;
    let terms = volumes(&step, 0);
    let find =
        |group, verb| terms.iter().find(|t| t.group == group && t.verb == verb && !t.is_control()).expect("a term");
    for verb in [Verb::ReduceScatter, Verb::AllGather] {
        assert_eq!((find("zero1", verb).calls, find("zero1", verb).bytes), (whole + 1, padded * 4));
    }
    assert_eq!(find("zero1_replica", Verb::AllReduce).bytes, padded);
}

#[test]
fn one_rank_alone_sends_nothing() {
    assert_eq!(volumes(&data_parallel(1, -1, 1), 0), []);
}

#[test]
fn every_parameter_is_somewhere_exactly_once() {
    for (_, mode) in MODES {
        let weight = if mode == TensorMode::Isp { 2 } else { 1 };
        let step = step(mode, Sizes { world: 16, pipeline: 4, tensor: 2, weight, ..Sizes::default() });
        let all: u64 = (0..16).map(|rank| memory(&step, rank).optimizer).sum();
        // Norms are whole on every rank of a tensor or weight group: the second copy of two.
        let norms = (2 * SHAPE.layers + 1) * SHAPE.hidden;
        assert_eq!(all, 8 * (parameters(&SHAPE) + norms), "{mode:?}");
    }
}

#[test]
fn zero_stages_divide_what_they_say() {
    let bytes = |stage, micro_batches| memory(&Step { micro_batches, ..data_parallel(8, -1, stage) }, 0);
    let total = parameters(&SHAPE);
    let norms = (2 * SHAPE.layers + 1) * SHAPE.hidden;
    let (one, two, three) = (bytes(1, 1), bytes(2, 1), bytes(3, 1));
    assert_eq!((one.parameters, one.gradients, one.optimizer), (4 * total, 4 * total, total));
    let buckets = 2 * 4 * total;
    assert_eq!((two.parameters, two.gradients, two.optimizer), (4 * total, total / 2 + buckets, total));
    let shard = (total - norms) / 8 + norms;
    assert_eq!((three.local_vector, three.gradients, three.optimizer), (4 * shard, 4 * shard, 8 * shard));
    assert_eq!(three.parameters, 4 * shard, "the leaves are shares, too");
    // Eight micro-batches: three doublings.
    assert_eq!(bytes(1, 8).gradients, 4 * one.gradients);
    assert_eq!(
        memory(&Step { tree: false, micro_batches: 8, ..data_parallel(8, -1, 1) }, 0).gradients,
        2 * one.gradients
    );
}

#[test]
fn activations_are_what_each_mode_divides() {
    let of = |mode, tensor, recomputed| {
        let step = step(mode, Sizes { world: 4, tensor, ..Sizes::default() });
        let memory = memory(&Step { recomputed, ..step }, 0);
        assert_eq!(memory.activations % (4096 * 4), 0, "whole elements per token");
        memory.activations / (4096 * 4) / SHAPE.layers
    };
    let (h, f, qkv, heads) = (SHAPE.hidden, SHAPE.ffn, 512, SHAPE.heads);
    let nothing = Recomputed::Nothing;
    let whole = 4 * h + 2 + qkv + h + heads + 3 * f;
    for (_, mode) in MODES {
        assert_eq!(of(mode, 1, nothing), whole, "{mode:?} alone");
    }
    let divided = (qkv + h + heads + 3 * f) / 4;
    assert_eq!(of(TensorMode::Mtp, 4, nothing), 4 * h + 2 + divided);
    // The two 1/rms are half an element per token and rank.
    assert_eq!(of(TensorMode::Msp, 4, nothing), 2 * h + 2 * h / 4 + divided);
    assert_eq!(of(TensorMode::Fsp, 4, nothing), h + divided);
    assert_eq!(of(TensorMode::Isp, 4, nothing), h + divided + h / 4, "and the exchanged output");
    assert_eq!(of(TensorMode::Mtp, 1, Recomputed::Blocks(8)), h);
    assert_eq!(
        of(TensorMode::Mtp, 1, Recomputed::Attention),
        whole - (1 + h + qkv + heads),
        "what `wo` projects is kept, in place of the output"
    );
}

#[test]
fn early_stages_hold_more_micro_batches() {
    let step = step(TensorMode::Mtp, Sizes { world: 4, pipeline: 4, ..Sizes::default() });
    let held = |chunks, micro_batches| {
        let step = Step { chunks, micro_batches, ..step.clone() };
        [0, 1, 2, 3].map(|rank| memory(&step, rank).activations)
    };
    let one = held(1, 1)[3];
    assert_eq!(held(1, 1), [one; 4]);
    assert_eq!(held(1, 8), [4 * one, 3 * one, 2 * one, one]);
    // 11 chunks of half a stage on the first stage: 6 of warm-up, 4 of the second chunk, 1 in work.
    assert_eq!(held(2, 8)[0], 11 * one / 2);
}
