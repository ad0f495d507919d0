//! What a rank of any layout communicates in a training step, counted call by call on a rank without peers, against the closed
//! formulas of `internevo_core::estimate`: equal to the byte, so that neither can change without the other.

use std::collections::BTreeMap;

use internevo_core::{
    batch::{IGNORE_INDEX, PackedBatch},
    config::{Config, Recompute, validate},
    estimate::{Step, volumes},
    layout::ParallelLayout,
    rng::CounterRng,
    volume::Verb,
};
use internevo_model::{Engine, ModelSpec};
use internevo_parallel::comm::{DryOptions, dry_world};

/// A prime: no number of ranks divides it.
const VOCAB: usize = 211;
/// More than the fused loss takes at a time for this vocabulary.
const TOKENS: usize = 1088;
const MICRO_BATCHES: usize = 2;

/// Layouts in the grammar of `internevo parity`.
const LAYOUTS: [&str; 51] = [
    "dp1+recompute",
    "dp2+zero1:1",
    "dp4",
    "dp3",
    "dp8+zero1:4",
    "dp4+zero2",
    "dp8+zero2:4",
    "dp4+zero3",
    "dp8+zero3:2",
    "dp2+zero3+module",
    "dp4+zero3+noahead",
    "dp2+zero3+recompute",
    "dp4+zero3:2+recompute:0.5",
    "dp4+zero3+selective",
    "mtp2",
    "mtp4+gathered",
    "mtp2+hidden",
    "mtp2+hidden+gathered+dp2+zero3",
    "mtp2+dp4+zero1:2",
    "mtp4+dp2+zero2",
    "mtp2+recompute",
    "mtp2+selective",
    "msp2",
    "msp4+hidden",
    "msp2+dp2+zero2",
    "msp4+gathered",
    "msp2+dp2+zero3+recompute",
    "msp2+selective",
    "msp4+recompute:0.5",
    "fsp2",
    "fsp4+hidden+gathered",
    "fsp2+dp4+zero3:2",
    "fsp2+recompute",
    "fsp2+selective",
    "fsp4+dp2+zero2+recompute:0.5",
    "isp2",
    "isp4+recompute",
    "isp8+kv2",
    "isp1x4",
    "isp4x2+selective",
    "isp2+wp2",
    "dp4+isp1+wp2+zero1:2",
    "isp2+wp4+dp2+noahead",
    "isp2+wp2+module+recompute",
    "isp2x2+wp4+dp2+recompute:0.5",
    "isp1x2+wp2+dp2+selective",
    "isp1x2+wp2+dp4+zero2",
    "isp8+wp8+kv2",
    // Thousands of ranks, one at a time.
    "dp4096+zero1:64",
    "mtp4+dp1024+zero3:256",
    "isp8+wp512+dp512+recompute",
];

fn configured(name: &str) -> (Config, ParallelLayout) {
    let mut config = Config::default();
    let model = &mut config.model;
    (model.hidden_size, model.num_layers, model.vocab_size) = (32, 2, VOCAB);
    (model.num_attention_heads, model.num_kv_attention_heads) = (8, 4);
    (model.mlp_ratio, model.multiple_of) = (2.0, 16);
    (config.data.seq_len, config.data.micro_bsz, config.data.micro_num) = (TOKENS, 1, MICRO_BATCHES);
    // Several buckets, the last of them not full.
    config.hybrid_zero_optimizer.reduce_bucket_size = 10_000;
    config.data.train_folder = "tokens".into();
    let data: usize = name.split('+').map(|part| apply(&mut config, part)).product();
    config.launch.ranks = data * config.parallel.tensor.size;
    let broken = validate(&config);
    assert!(broken.is_empty(), "{name}: {broken:?}");
    let layout = ParallelLayout::new(&config.parallel, config.launch.ranks).expect("validated");
    (config, layout)
}

/// One part of a layout's name; returns the ranks of its data-parallel group, if it says so.
fn apply(config: &mut Config, part: &str) -> usize {
    let (parallel, model) = (&mut config.parallel, &mut config.model);
    let (word, option) = part.split_once(':').map_or((part, None), |(word, option)| (word, Some(option)));
    let (name, sizes) = word.split_at(word.find(|c: char| c.is_ascii_digit()).unwrap_or(word.len()));
    let (size, context) = sizes.split_once('x').map_or((sizes, None), |(head, context)| (head, Some(context)));
    let number = |text: &str| text.parse::<usize>().unwrap_or_else(|_| panic!("{part}"));
    match (name, option) {
        ("dp", None) => return number(size),
        ("wp", None) => parallel.weight.size = number(size),
        ("kv", None) => model.num_kv_attention_heads = number(size),
        ("mtp" | "msp" | "fsp" | "isp", None) => {
            let context = context.map_or(1, number);
            (parallel.tensor.mode, parallel.tensor.size) = (name.to_owned(), number(size) * context);
            let grid = &mut parallel.sequence_2d;
            (grid.enable, grid.head_size, grid.context_size) = (context > 1, number(size), context);
        }
        ("zero", group) => {
            (parallel.zero1.stage, parallel.zero1.size) = (number(size), group.map_or(-1, |group| number(group) as i64))
        }
        ("recompute", None) => model.checkpoint = Recompute::Full,
        ("recompute", Some(share)) => model.checkpoint = Recompute::Fraction(share.parse().expect("a share")),
        ("selective", None) => model.checkpoint = Recompute::Selective,
        ("hidden", None) => model.embed_split_hidden = true,
        ("gathered", None) => model.parallel_output = false,
        ("noahead", None) => parallel.weight.overlap = false,
        ("module", None) => parallel.weight.forward_overlap_per = "module".to_owned(),
        _ => panic!("{part} is no part of a layout"),
    }
    1
}

/// Documents of uneven length with masked tokens.
fn micro_batch(index: usize) -> PackedBatch {
    let rng = CounterRng::new(17, &format!("volume/{index}"));
    let mut batch = PackedBatch { cu_seqlens: vec![0], ..PackedBatch::default() };
    while batch.tokens.len() < TOKENS {
        let start = batch.tokens.len();
        let length = (1 + rng.below(start as u64, 300) as usize).min(TOKENS - start);
        for position in 0..length {
            let draw = rng.below((TOKENS + start + position) as u64, 4 * VOCAB as u64);
            batch.tokens.push(draw as u32 / 4);
            batch.labels.push(if draw.is_multiple_of(4) { IGNORE_INDEX } else { (draw / 5) as i32 });
            batch.position_ids.push(position as u32);
        }
        batch.cu_seqlens.push((start + length) as u32);
    }
    batch
}

/// Calls and bytes by group and verb.
type Table = BTreeMap<(String, Verb), (u64, u64)>;

/// One step of rank `rank`, counted; groups of one rank left out.
fn counted(config: &Config, layout: &ParallelLayout, rank: usize) -> Table {
    let (comm, recorder) = dry_world(rank, layout.world(), DryOptions::default());
    let spec = ModelSpec::from_config(&config.model, VOCAB, TOKENS).expect("a model");
    let mut engine = Engine::new(&spec, config, layout, comm).expect("a rank");
    recorder.reset();
    let batches: Vec<PackedBatch> = (0..MICRO_BATCHES).map(micro_batch).collect();
    let labels = engine.global_labels(&batches).expect("nobody else can fail");
    engine.forward_backward(&batches, labels).expect("nobody else can fail");
    let outcome = engine.update(1e-3, 0.95).expect("nobody else can fail");
    assert!(!outcome.skipped, "a skipped step sends no parameters");
    let rows = recorder.report().into_iter().filter(|row| row.ranks.len() > 1);
    rows.map(|row| ((row.group, row.verb), (row.calls, row.bytes))).collect()
}

/// The formulas' table of the terms that are, or are not, bookkeeping.
fn predicted(step: &Step, rank: usize, control: bool) -> Table {
    let mut table = Table::new();
    for term in volumes(step, rank).into_iter().filter(|term| term.is_control() == control) {
        let entry = table.entry((term.group.to_owned(), term.verb)).or_default();
        *entry = (entry.0 + term.calls, entry.1 + term.bytes);
    }
    table
}

/// What is counted beyond `control`, which must be in it.
fn without(mut counted: Table, control: &Table) -> Table {
    for (key, (calls, bytes)) in control {
        let entry = counted.entry(key.clone()).or_default();
        let rest = (entry.0.checked_sub(*calls), entry.1.checked_sub(*bytes));
        let (Some(calls), Some(bytes)) = rest else { panic!("{key:?}: {entry:?} hold no {control:?}") };
        *entry = (calls, bytes);
    }
    counted.retain(|_, (calls, _)| *calls > 0);
    counted
}

#[test]
fn every_rank_of_every_layout_sends_exactly_what_the_formulas_say() {
    let mut wrong = Vec::new();
    for name in LAYOUTS {
        let (config, layout) = configured(name);
        let step = Step::from_config(&config, layout.clone(), VOCAB);
        let last = layout.world() - 1;
        let ranks: std::collections::BTreeSet<usize> = [0, last / 3, last].into();
        for rank in ranks {
            let control = predicted(&step, rank, true);
            let found = without(counted(&config, &layout, rank), &control);
            let expected = predicted(&step, rank, false);
            let keys: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
            for key in keys.into_iter().filter(|key| found.get(key) != expected.get(key)) {
                let (found, expected) = (found.get(key), expected.get(key));
                wrong.push(format!("{name}, rank {rank}, {key:?}: counted {found:?}, predicted {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "(calls, bytes) that differ:\n{}", wrong.join("\n"));
}
