//! Every optimizer in every layout: the bits of one rank, from a fresh start, after resuming, and around a skipped step.

mod common;

use std::{ops::Range, path::Path, sync::Arc};

use common::{MICRO_BATCHES, Mlp, Setup, bits, choice, train};
use internevo_core::{
    config::{LoadRequest, ParallelConfig, load},
    layout::{GroupKind, ParallelLayout},
    plugin::Registry,
    rng::CounterRng,
};
use internevo_parallel::{
    MicroBatches, ParallelError, ParamSpec, ProcessGroups, ShardedOptimizer, StatePlan, ZeroConfig,
    checkpoint::{self, Content, SaveRequest},
    comm::{Communicator, run_ranks},
    optimizer::OptimizerChoice,
    state::LocalTable,
    zero::ReductionOrder,
};

/// Every optimizer, with settings that reach every branch of its rule.
const OPTIMIZERS: [(&str, &str); 7] = [
    ("adamw", ""),
    ("lion", ""),
    ("adafactor", ""),
    ("adafactor", "adafactor = { relative_step = true, scale_parameter = true }"),
    ("adafactor", "adafactor = { decay_rate = 0.0, clip_threshold = 0.3 }"),
    ("muon", ""),
    (
        "muon",
        "muon = { nesterov = false, row_blocks = { \"*.wqkv.weight\" = 4, \"w1.*\" = 3 }, adamw_for = [\"w2.*\"] }",
    ),
];

/// Parameters and norms of every rank after ten steps of the small problem.
fn ten_steps(setup: Setup) -> Vec<(Vec<f32>, Vec<u64>)> {
    let result = run_ranks(setup.ranks, |comm| -> Result<_, ParallelError> {
        let rank = comm.rank();
        let mut optimizer = setup.optimizer(comm)?;
        let norms = train(&mut optimizer, &setup, rank, 0..10)?;
        Ok((optimizer.params().to_vec(), norms))
    });
    result.unwrap_or_else(|e| panic!("{setup:?}: {e}"))
}

#[test]
fn data_parallelism_and_zero_give_the_bits_of_one_rank() {
    for (kind, settings) in OPTIMIZERS {
        let one = Setup { kind, settings, ..Setup::new(1, 1) };
        let (params, norms) = &ten_steps(one)[0];
        assert_ne!(bits(params), bits(&Mlp::new().0), "training moves the parameters");
        for (ranks, zero1, stage) in
            [(2, 1, 1), (2, 2, 1), (2, 2, 2), (4, 1, 1), (4, 2, 1), (4, 4, 1), (4, 2, 2), (4, 4, 2)]
        {
            let setup = Setup { kind, settings, stage, ..Setup::new(ranks, zero1) };
            for (rank, (other, other_norms)) in ten_steps(setup).iter().enumerate() {
                assert_eq!(norms, other_norms, "{setup:?} rank {rank}");
                assert!(bits(params) == bits(other), "{setup:?} rank {rank}: parameters differ");
            }
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_leaves_parameters_and_state_as_they_are() {
    for (kind, settings) in OPTIMIZERS {
        let setup = Setup { kind, settings, ..Setup::new(4, 2) };
        let run = |interrupted: bool| {
            let ends = run_ranks(4, |comm| -> Result<_, ParallelError> {
                let rank = comm.rank();
                let mut optimizer = setup.optimizer(comm)?;
                train(&mut optimizer, &setup, rank, 0..2)?;
                if interrupted {
                    let before = bits(optimizer.params());
                    optimizer.accumulate(|flat| flat[7_000] = if rank == 2 { f32::NAN } else { 1.0 })?;
                    assert!(optimizer.step(1e-2, 0.95)?.skipped);
                    assert_eq!(before, bits(optimizer.params()));
                }
                train(&mut optimizer, &setup, rank, 2..4)?;
                Ok(bits(optimizer.params()))
            });
            ends.unwrap_or_else(|e| panic!("{setup:?}: {e}"))
        };
        assert!(run(true) == run(false), "{setup:?}: the skipped step left a trace");
    }
}

/// A layout of a small decoder's parameters, of which some are divided by rows, some by columns and some, a matrix among them,
/// not at all.
#[derive(Clone, Copy, Debug)]
struct Split {
    ranks: usize,
    mode: &'static str,
    tensor: usize,
    weight: usize,
    zero1: i64,
    stage: usize,
}

const ONE_RANK: Split = Split { ranks: 1, mode: "mtp", tensor: 1, weight: 1, zero1: 1, stage: 1 };
const SPLITS: [Split; 11] = [
    Split { ranks: 2, tensor: 2, ..ONE_RANK },
    Split { ranks: 4, tensor: 4, ..ONE_RANK },
    Split { ranks: 4, tensor: 2, ..ONE_RANK },
    Split { ranks: 4, tensor: 2, zero1: 2, ..ONE_RANK },
    Split { ranks: 4, tensor: 2, zero1: 2, stage: 2, ..ONE_RANK },
    Split { ranks: 8, tensor: 2, zero1: 2, ..ONE_RANK },
    Split { ranks: 4, zero1: 4, stage: 3, ..ONE_RANK },
    Split { ranks: 4, zero1: 2, stage: 3, ..ONE_RANK },
    Split { ranks: 4, tensor: 2, zero1: 2, stage: 3, ..ONE_RANK },
    Split { ranks: 4, mode: "isp", tensor: 2, weight: 2, zero1: 2, ..ONE_RANK },
    Split { ranks: 4, mode: "isp", tensor: 1, weight: 4, ..ONE_RANK },
];

impl Split {
    fn layout(&self) -> ParallelLayout {
        let mut config = ParallelConfig::default();
        (config.tensor.mode, config.tensor.size, config.weight.size) = (self.mode.into(), self.tensor, self.weight);
        (config.zero1.size, config.zero1.stage) = (self.zero1, self.stage);
        ParallelLayout::new(&config, self.ranks).unwrap_or_else(|e| panic!("{self:?}: {e}"))
    }

    fn plan(&self) -> Result<StatePlan, ParallelError> {
        let (specs, splits) = decoder();
        let divide = |split: Option<usize>| split.filter(|_| self.mode != "isp");
        StatePlan::new(specs, splits.into_iter().map(divide).collect(), false, self.layout(), 4_000)
    }

    fn optimizer(
        &self,
        comm: Arc<dyn Communicator>,
        kind: &str,
        settings: &str,
    ) -> Result<ShardedOptimizer, ParallelError> {
        let plan = self.plan()?;
        let initial = local(&plan.table(comm.rank())?, &values("init"));
        let groups = ProcessGroups::new(plan.layout(), comm)?;
        let zero = ZeroConfig { clip_grad_norm: 0.5, reduction: ReductionOrder::Tree, overlap_sync_grad: true };
        ShardedOptimizer::new(plan, initial, groups, &choice(kind, settings)?, zero)
    }
}

/// Parameters with the dimension by which tensor parallelism divides each. 65 and 7 are no multiples of any group.
fn decoder() -> (Vec<ParamSpec>, Vec<Option<usize>>) {
    let params: [(&str, &[usize], bool, Option<usize>); 7] = [
        ("tok_embeddings.weight", &[65, 32], true, Some(0)),
        ("layers.0.attention_norm.weight", &[32], false, None),
        ("layers.0.attention.wqkv.weight", &[96, 32], true, Some(0)),
        ("layers.0.attention.wo.weight", &[32, 48], true, Some(1)),
        ("layers.0.gate.weight", &[7, 32], true, None),
        ("norm.weight", &[32], false, None),
        ("output.weight", &[65, 32], true, Some(0)),
    ];
    let spec = |(name, shape, decay, split): (&str, &[usize], bool, _)| {
        (ParamSpec { name: name.into(), shape: shape.to_vec(), decay }, split)
    };
    params.into_iter().map(spec).unzip()
}

/// A random number for every element of every parameter.
fn values(name: &str) -> Vec<Vec<f32>> {
    let rng = CounterRng::new(3, name);
    let mut next = 0..;
    let mut draw = || (rng.normal(next.next().expect("endless")) * 0.1) as f32;
    decoder().0.iter().map(|spec| (0..spec.elements()).map(|_| draw()).collect()).collect()
}

/// A rank's local vector of whole parameters.
fn local(table: &LocalTable, whole: &[Vec<f32>]) -> Vec<f32> {
    let mut flat = vec![0.0; table.total()];
    for (param, whole) in table.params().iter().zip(whole) {
        for run in param.slab.runs(&param.flat) {
            let at = param.offset + run.local - param.flat.start;
            flat[at..at + run.len].copy_from_slice(&whole[run.global..run.global + run.len]);
        }
    }
    flat
}

/// Takes steps with gradients that depend on step and micro-batch alone; each rank brings what it would have computed.
fn advance(optimizer: &mut ShardedOptimizer, rank: usize, steps: Range<u64>) -> Result<(), ParallelError> {
    let layout = optimizer.plan().layout().clone();
    let (place, micro_num) = (layout.coordinates(rank), MICRO_BATCHES / layout.size(GroupKind::Data));
    let order = MicroBatches::new(&layout, micro_num);
    // Where a sequence is divided, the ranks' gradients add up: here the first has all of it.
    let share = if layout.is_isp() && place.tensor > 0 { 0.0 } else { 1.0 };
    for step in steps {
        for micro_batch in 0..micro_num {
            let gradient = values(&format!("{step}/{}", order.index(place.data, micro_batch)));
            optimizer.sink().begin(false);
            for (param, (held, whole)) in optimizer.table().params().iter().zip(&gradient).enumerate() {
                let runs = held.slab.runs(&(0..held.slab.elements()));
                let slab: Vec<f32> = runs.flat_map(|r| &whole[r.global..r.global + r.len]).map(|g| g * share).collect();
                match held.sharded {
                    true => optimizer.sink().deposit_whole(param, slab),
                    false => optimizer.sink().deposit(param, &slab),
                }
            }
            optimizer.sink().end()?;
        }
        optimizer.step(1e-2, 0.95)?;
    }
    Ok(())
}

/// The parameters after `steps` steps on one rank.
fn straight(kind: &str, settings: &str, steps: u64) -> Vec<Vec<f32>> {
    let result = run_ranks(1, |comm| -> Result<_, ParallelError> {
        let mut optimizer = ONE_RANK.optimizer(comm, kind, settings)?;
        advance(&mut optimizer, 0, 0..steps)?;
        optimizer.whole_params()
    });
    result.unwrap_or_else(|e| panic!("{kind}: {e}")).swap_remove(0)
}

#[test]
fn divided_matrices_and_their_copies_give_the_bits_of_one_rank() {
    for (kind, settings) in OPTIMIZERS {
        let expected = straight(kind, settings, 10);
        for split in SPLITS {
            let result = run_ranks(split.ranks, |comm| -> Result<bool, ParallelError> {
                let rank = comm.rank();
                let mut optimizer = split.optimizer(comm, kind, settings)?;
                advance(&mut optimizer, rank, 0..10)?;
                Ok(bits(optimizer.params()) == bits(&local(optimizer.table(), &expected)))
            });
            let equal = result.unwrap_or_else(|e| panic!("{kind} {settings} {split:?}: {e}"));
            assert!(equal.iter().all(|equal| *equal), "{kind} {settings} {split:?}: {equal:?}");
        }
    }
}

#[test]
fn the_splits_hold_an_undivided_matrix_more_than_once() {
    let copies = |split: &Split| {
        let table = split.plan().and_then(|plan| plan.table(split.ranks - 1)).expect("names differ");
        table.params().iter().any(|p| !p.primary && p.spec.shape.len() == 2)
    };
    assert!(SPLITS.iter().filter(|split| copies(split)).count() >= 4);
}

fn save(dir: &Path, step: u64, optimizer: &ShardedOptimizer) -> Result<(), ParallelError> {
    let request = SaveRequest { dir, step, config_hash: "", plugins: &[], trainer: &serde_json::Value::Null };
    Ok(checkpoint::save(&request, optimizer).map(drop)?)
}

#[test]
fn a_run_that_is_resumed_on_another_layout_ends_with_the_bits_of_an_uninterrupted_one() {
    let four = Split { ranks: 4, zero1: 4, ..ONE_RANK };
    let readers = [ONE_RANK, Split { ranks: 2, zero1: 2, ..ONE_RANK }, four, SPLITS[4], SPLITS[8]];
    for (kind, settings) in OPTIMIZERS {
        let expected = straight(kind, settings, 8);
        for writer in [four, SPLITS[3], SPLITS[6]] {
            let dir = tempfile::tempdir().expect("temporary folder");
            let written = run_ranks(writer.ranks, |comm| -> Result<(), ParallelError> {
                let rank = comm.rank();
                let mut optimizer = writer.optimizer(comm, kind, settings)?;
                advance(&mut optimizer, rank, 0..5)?;
                save(dir.path(), 5, &optimizer)
            });
            written.unwrap_or_else(|e| panic!("{kind} {writer:?}: {e}"));
            for reader in readers {
                let result = run_ranks(reader.ranks, |comm| -> Result<bool, ParallelError> {
                    let rank = comm.rank();
                    let found = checkpoint::find(&*comm, dir.path())?.found.expect("a checkpoint");
                    let mut optimizer = reader.optimizer(comm, kind, settings)?;
                    checkpoint::load(&found, &mut optimizer, Content::Everything)?;
                    advance(&mut optimizer, rank, 5..8)?;
                    Ok(bits(optimizer.params()) == bits(&local(optimizer.table(), &expected)))
                });
                let equal = result.unwrap_or_else(|e| panic!("{kind} {writer:?} to {reader:?}: {e}"));
                assert!(equal.iter().all(|equal| *equal), "{kind} {settings} {writer:?} to {reader:?}: {equal:?}");
            }
        }
    }
}

#[test]
fn a_checkpoint_of_another_optimizer_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let result = run_ranks(2, |comm| -> Result<(), ParallelError> {
        let rank = comm.rank();
        let split = Split { ranks: 2, ..ONE_RANK };
        let mut lion = split.optimizer(comm.clone(), "lion", "")?;
        advance(&mut lion, rank, 0..1)?;
        save(dir.path(), 1, &lion)?;
        let found = checkpoint::find(&*comm, dir.path())?.found.expect("a checkpoint");
        let mut muon = split.optimizer(comm, "muon", "")?;
        checkpoint::load(&found, &mut muon, Content::Everything).map(drop)
    });
    let message = result.expect_err("refused").to_string();
    assert!(message.contains("`lion`") && message.contains("`muon`"), "{message}");
}

#[test]
fn a_setting_that_does_not_fit_is_refused_with_its_place_in_the_file() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let refusal = |text: &str| {
        let path = dir.path().join("job.toml");
        std::fs::write(&path, text).expect("write");
        let resolved = load(&LoadRequest { files: vec![path.clone()], ..LoadRequest::default() }).expect("well-formed");
        let registry = Registry::collect().expect("no duplicates");
        let error = OptimizerChoice::from_config(&registry, &resolved.config).err().expect("refused");
        let located = resolved.locate(&OptimizerChoice::place(&resolved.config, &error), &error).to_string();
        located.replace(&path.display().to_string(), "job.toml")
    };
    let lion = "[optimizer]\nkind = \"lion\"\n[optimizer.settings.lion]\n";
    let message = refusal(&format!("{lion}beta1 = 1.5\n"));
    assert_eq!(message, "job.toml:4:1: optimizer.settings.lion.beta1: 1.5 must be at least 0 and below 1");
    let message = refusal(&format!("{lion}beta = 0.5\n"));
    assert!(message.starts_with("job.toml:4:1: optimizer.settings.lion.beta: unknown field"), "{message}");
    let message = refusal("[optimizer]\nkind = \"muon\"\nsettings.muon.adam = { adam_eps = \"x\" }\n");
    assert!(message.starts_with("job.toml:3:24: optimizer.settings.muon.adam.adam_eps: invalid type"), "{message}");
    let message = refusal("[optimizer]\nkind = \"muno\"\n");
    assert!(message.starts_with("job.toml:2:1: optimizer.kind: ") && message.contains("`muon`"), "{message}");
    let table = LoadRequest { sets: vec!["optimizer.settings.lion=3".into()], ..LoadRequest::default() };
    let message = load(&table).expect_err("no table").to_string();
    assert!(message.contains("expected a table with the settings of `lion`"), "{message}");
}
