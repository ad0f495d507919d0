//! A rank of a large world without its peers: the optimizer runs, and what it would send is what the formulas say.

use internevo_core::{
    config::Config,
    estimate::{Step, volumes},
    layout::{GroupKind, ParallelLayout},
    plugin::Registry,
    volume::{Verb, VolumeRow},
};
use internevo_parallel::{
    ParamSpec, ProcessGroups, ShardedOptimizer, StatePlan, ZeroConfig,
    comm::{DryOptions, dry_world},
    optimizer::OptimizerChoice,
};

/// Parameters of a model with the dimension that a tensor group divides.
fn parameters(step: &Step) -> Vec<(ParamSpec, Option<usize>)> {
    let s = &step.shape;
    let spec = |name: String, shape: Vec<u64>| ParamSpec {
        decay: shape.len() > 1,
        name,
        shape: shape.into_iter().map(|n| n as usize).collect(),
    };
    let qkv = (s.heads + 2 * s.kv_heads) * s.head_dim;
    let mut all = vec![(spec("tok".into(), vec![s.vocab, s.hidden]), Some(0))];
    for i in 0..s.layers {
        all.push((spec(format!("{i}.attention_norm"), vec![s.hidden]), None));
        all.push((spec(format!("{i}.wqkv"), vec![qkv, s.hidden]), Some(0)));
        all.push((spec(format!("{i}.wo"), vec![s.hidden, s.heads * s.head_dim]), Some(1)));
        all.push((spec(format!("{i}.ffn_norm"), vec![s.hidden]), None));
        all.push((spec(format!("{i}.w1"), vec![s.ffn, s.hidden]), Some(0)));
        all.push((spec(format!("{i}.w3"), vec![s.ffn, s.hidden]), Some(0)));
        all.push((spec(format!("{i}.w2"), vec![s.hidden, s.ffn]), Some(1)));
    }
    all.push((spec("norm".into(), vec![s.hidden]), None));
    all.push((spec("output".into(), vec![s.vocab, s.hidden]), Some(0)));
    all
}

/// What rank `rank` counts in one step.
fn counted(config: &Config, layout: &ParallelLayout, step: &Step, rank: usize) -> Vec<VolumeRow> {
    let (comm, recorder) = dry_world(rank, layout.world(), DryOptions::default());
    let choice = OptimizerChoice::from_config(&Registry::collect().expect("plugins"), config).expect("adamw");
    let (specs, splits): (Vec<_>, Vec<_>) = parameters(step).into_iter().unzip();
    let splits = if layout.is_isp() { vec![None; splits.len()] } else { splits };
    let partial = matches!(config.parallel.tensor.mode.as_str(), "msp" | "fsp");
    let bucket = config.hybrid_zero_optimizer.reduce_bucket_size;
    let plan = StatePlan::new(specs, splits, partial, layout.clone(), bucket).expect("names differ");
    let zero = ZeroConfig::from_config(config).expect("a known reduction");
    let groups = ProcessGroups::new(layout, comm).expect("groups");
    let initial = vec![0.5; plan.table(rank).expect("names differ").total()];
    let mut optimizer = ShardedOptimizer::new(plan, initial, groups, &choice, zero).expect("a valid start");
    recorder.reset();
    let sink = optimizer.sink().clone();
    for micro_batch in 0..step.micro_batches {
        sink.begin(micro_batch + 1 == step.micro_batches);
        for (index, param) in optimizer.table().params().iter().enumerate().rev() {
            match param.sharded {
                true => sink.deposit_whole(index, vec![0.25; param.slab.elements()]),
                false => sink.deposit(index, &vec![0.25; param.flat.len()]),
            }
        }
        sink.end().expect("nobody else can fail");
    }
    optimizer.step(0.1, 0.95).expect("nobody else can fail");
    recorder.report()
}

#[test]
fn the_optimizer_sends_what_the_formulas_predict() {
    let mut checked = 0;
    let names = ["gradient", "parameters", "weight_gradient", "norm_gradient"];
    for (mode, tensor, weight) in
        [("mtp", 1, 1), ("mtp", 4, 1), ("msp", 4, 1), ("fsp", 2, 1), ("isp", 2, 4), ("isp", 4, 1)]
    {
        for (world, zero1, stage, rank) in [
            (8, 2, 1, 5),
            (8, 1, 1, 0),
            (64, -1, 1, 63),
            (4096, 64, 1, 4095),
            (64, 4, 2, 17),
            (64, -1, 2, 2),
            (64, 4, 3, 33),
            (64, -1, 3, 1),
        ] {
            let mut config = Config::default();
            config.parallel.zero1.size = zero1;
            config.parallel.zero1.stage = stage;
            config.parallel.tensor.mode = mode.into();
            config.parallel.tensor.size = tensor;
            config.parallel.weight.size = weight;
            config.hybrid_zero_optimizer.reduce_bucket_size = 40_000;
            config.data.micro_num = 3;
            let Ok(layout) = ParallelLayout::new(&config.parallel, world) else { continue };
            let mut step = Step::from_config(&config, layout.clone(), 640);
            (
                step.shape.hidden,
                step.shape.layers,
                step.shape.heads,
                step.shape.kv_heads,
                step.shape.head_dim,
                step.shape.ffn,
            ) = (64, 3, 8, 4, 8, 176);
            let rows = counted(&config, &layout, &step, rank);
            let mut expected = std::collections::BTreeMap::new();
            for term in volumes(&step, rank).iter().filter(|t| names.contains(&t.name)) {
                let entry: &mut (u64, u64) = expected.entry((term.group.to_owned(), term.verb)).or_default();
                *entry = (entry.0 + term.calls, entry.1 + term.bytes);
            }
            let found: std::collections::BTreeMap<_, _> = rows
                .iter()
                .filter(|r| r.group != "state" && r.ranks.len() > 1)
                .map(|r| ((r.group.clone(), r.verb), (r.calls, r.bytes)))
                .collect();
            checked += found.len();
            assert_eq!(found, expected, "{mode} {tensor} {weight}, {world} ranks, zero1 {zero1} stage {stage}");
            let norm = rows.iter().find(|r| r.group == "state" && r.verb == Verb::AllReduce);
            if layout.size(GroupKind::State) > 1 {
                assert_eq!(norm.map(|r| r.bytes), Some(69 * 8));
            }
        }
    }
    assert!(checked > 100, "{checked} rows were compared");
}
