//! A rank of a large world without its peers: the optimizer runs, and what it would send is what the formulas say.

use std::sync::Arc;

use internevo_core::{
    config::Config,
    estimate::{Step, volumes},
    layout::{GroupKind, ParallelLayout},
    plugin::Registry,
    volume::{Verb, VolumeRow},
};
use internevo_parallel::{
    ParamSpec, ProcessGroups, ShardedOptimizer, ZeroConfig,
    comm::{Communicator, DryOptions, dry_world},
    optimizer::OptimizerChoice,
    state::BLOCK,
};

/// Bytes of a block's sum of squares, which the gradient norm gathers besides the parameters.
const BLOCK_SUM: u64 = 8;

/// Buckets of 16 blocks, data parallelism alone.
fn config(zero1: i64) -> Config {
    let mut config = Config::default();
    config.parallel.zero1.size = zero1;
    config.hybrid_zero_optimizer.reduce_bucket_size = 16 * BLOCK * 4;
    config
}

fn groups(layout: &ParallelLayout, world: Arc<dyn Communicator>) -> ProcessGroups {
    let group = |kind, name| world.subgroup_named(name, &layout.group_of(kind, world.rank())).expect("a member");
    ProcessGroups {
        data: group(GroupKind::Data, "data"),
        zero1: group(GroupKind::Zero1, "zero1"),
        zero1_replica: group(GroupKind::Zero1Replica, "zero1_replica"),
        world,
    }
}

/// What rank `rank` of `world` counts in one step over `elements` parameters.
fn counted(config: &Config, layout: &ParallelLayout, rank: usize, elements: usize) -> Vec<VolumeRow> {
    let (comm, recorder) = dry_world(rank, layout.world(), DryOptions::default());
    let adamw = OptimizerChoice::from_config(&Registry::collect().expect("plugins"), config).expect("adamw");
    let specs = vec![ParamSpec { name: "w".into(), shape: vec![elements], decay: false }];
    let zero = ZeroConfig::from_config(config).expect("a known reduction");
    let mut optimizer =
        ShardedOptimizer::new(specs, vec![0.5; elements], groups(layout, comm), &adamw, zero).expect("a valid start");
    recorder.reset();
    for _ in 0..config.data.micro_num {
        optimizer.accumulate(|gradient| gradient.fill(0.25));
    }
    optimizer.step(0.1, 0.95).expect("nobody else can fail");
    recorder.report()
}

#[test]
fn a_rank_of_thousands_sends_what_the_formulas_predict() {
    for (world, zero1, rank) in [(2, -1, 1), (8, 2, 5), (8, 1, 0), (64, -1, 63), (4096, 64, 4095), (4096, 32, 17)] {
        let config = config(zero1);
        let layout = ParallelLayout::new(&config.parallel, world).expect("a layout");
        let mut step = Step::from_config(&config, layout.clone(), 4096);
        // Only the number of parameters matters to data parallelism: all of them in a model without blocks.
        step.shape.layers = 0;
        (step.shape.hidden, step.shape.vocab) = (1, (64 * BLOCK as u64 - 1) / 2);
        let elements = 2 * step.shape.vocab + 1;
        let rows = counted(&config, &layout, rank, elements as usize);
        let terms = volumes(&step, rank);
        for term in terms.iter().filter(|term| !term.is_control()) {
            let found = rows.iter().find(|row| row.group == term.group && row.verb == term.verb);
            let row = found.unwrap_or_else(|| panic!("{term:?} is not in {rows:?}"));
            let norm = if term.verb == Verb::AllGather { 64 * BLOCK_SUM } else { 0 };
            assert_eq!(row.ranks.len() as u64, term.ranks);
            // The model is one element short of 64 blocks, to which the engine fills it up.
            let missing = row.bytes - norm - term.bytes;
            assert!(missing <= 4, "{world} ranks, zero1 {zero1}: {row:?} against {term:?}");
        }
        let predicted = terms.iter().filter(|term| !term.is_control()).count();
        assert_eq!(rows.len(), predicted, "{world} ranks, zero1 {zero1}: {rows:?} against {terms:?}");
    }
}
