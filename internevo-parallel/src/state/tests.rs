//! The state of every layout: each element once, in every place where it belongs.

use std::collections::BTreeMap;

use internevo_core::{config::ParallelConfig, layout::ParallelLayout};
use proptest::prelude::*;

use super::*;
use crate::{ParallelError, ProcessGroups, comm::run_ranks};

fn specs(rows: usize, columns: usize) -> (Vec<ParamSpec>, Vec<Option<usize>>) {
    let spec = |name: &str, shape: &[usize]| ParamSpec { name: name.into(), shape: shape.to_vec(), decay: true };
    let specs = vec![
        spec("embedding", &[rows, columns]),
        spec("norm", &[columns]),
        spec("row", &[columns, rows]),
        spec("column", &[rows, 3]),
        spec("last_norm", &[rows]),
    ];
    (specs, vec![Some(0), None, Some(1), Some(0), None])
}

/// Layouts of 1 to 8 ranks with every mode, ZeRO stage and size.
fn layouts() -> Vec<ParallelLayout> {
    let mut found = Vec::new();
    for world in [1usize, 2, 3, 4, 6, 8] {
        for (mode, tp, wp) in [("mtp", 1, 1), ("msp", 2, 1), ("fsp", 4, 1), ("isp", 2, 4), ("isp", 1, 2), ("isp", 4, 2)]
        {
            for (stage, zero1) in [(1, -1), (1, 2), (2, -1), (3, -1), (3, 2)] {
                let mut config = ParallelConfig::default();
                (config.tensor.mode, config.tensor.size, config.weight.size) = (mode.into(), tp, wp);
                (config.zero1.stage, config.zero1.size) = (stage, zero1);
                found.extend(ParallelLayout::new(&config, world));
            }
        }
    }
    assert!(found.len() > 50, "{}", found.len());
    found
}

fn plan(layout: ParallelLayout, rows: usize, columns: usize, bucket_bytes: usize) -> StatePlan {
    let (specs, mut splits) = specs(rows, columns);
    if layout.is_isp() {
        splits = vec![None; splits.len()];
    }
    StatePlan::new(specs, splits, true, layout, bucket_bytes).expect("names differ")
}

#[test]
fn one_copy_of_the_state_holds_every_element_exactly_once() {
    for layout in layouts() {
        for (rows, columns, bucket_bytes) in [(13, 8, 1 << 20), (9, 5, 100), (8, 4, 4)] {
            let plan = plan(layout.clone(), rows, columns, bucket_bytes);
            let mut seen: BTreeMap<(usize, usize), usize> = BTreeMap::new();
            for rank in layout.group_of(internevo_core::layout::GroupKind::State, 0) {
                let (table, pieces) = plan.pieces(rank).expect("names differ");
                let mut end = 0;
                for piece in &pieces {
                    assert!(piece.at.start >= end && piece.at.len() == piece.flat.len(), "{layout:?} {pieces:?}");
                    end = piece.at.end;
                    let param = &table.params()[piece.param];
                    for run in param.slab.runs(&piece.flat).filter(|_| param.primary) {
                        (run.global..run.global + run.len)
                            .for_each(|i| *seen.entry((piece.param, i)).or_default() += 1);
                    }
                }
                assert!(end <= plan.sharding(&table).shard_len());
            }
            let total: usize = plan.specs().iter().map(ParamSpec::elements).sum();
            assert_eq!(seen.len(), total, "{layout:?}: some element is nowhere");
            assert!(seen.values().all(|n| *n == 1), "{layout:?}: some element is there twice");
        }
    }
}

#[test]
fn whole_parameters_come_together_and_go_back() {
    for layout in layouts() {
        let plan = plan(layout.clone(), 13, 6, 64);
        let value = |param: usize, global: usize| (param * 1000 + global) as f32;
        let result = run_ranks(layout.world(), |world| -> Result<(), ParallelError> {
            let rank = world.rank();
            let groups = ProcessGroups::new(&layout, world)?;
            let (table, pieces) = plan.pieces(rank)?;
            let mut shard = vec![-1.0; plan.sharding(&table).shard_len()];
            for piece in &pieces {
                for run in table.params()[piece.param].slab.runs(&piece.flat) {
                    for i in 0..run.len {
                        shard[piece.at.start + run.local - piece.flat.start + i] = value(piece.param, run.global + i);
                    }
                }
            }
            let exchange = Exchange::new(&plan, groups.state.clone())?;
            let owner = |param| Assignment { param, owner: (param * 7 + 1) % exchange.ranks() };
            let assignments: Vec<_> = [3, 0, 1, 2, 4].map(owner).into();
            let mut whole = exchange.gather(&assignments, &shard)?;
            for (param, values) in &mut whole {
                assert!(values.iter().enumerate().all(|(i, v)| *v == value(*param, i)), "{layout:?} parameter {param}");
                values.iter_mut().for_each(|v| *v += 0.5);
            }
            exchange.scatter(&assignments, &whole, &mut shard)?;
            for piece in &pieces {
                let changed = if table.params()[piece.param].primary { 0.5 } else { 0.0 };
                for run in table.params()[piece.param].slab.runs(&piece.flat) {
                    let at = piece.at.start + run.local - piece.flat.start;
                    assert_eq!(shard[at], value(piece.param, run.global) + changed, "{layout:?}");
                }
            }
            Ok(())
        });
        result.unwrap_or_else(|e| panic!("{layout:?}: {e}"));
    }
}

proptest! {
    #[test]
    fn the_shares_of_a_dimension_cover_it_in_order(
        rows in 1usize..20, columns in 1usize..20, dim in 0usize..2, parts in 1usize..6,
    ) {
        let shape = [rows, columns];
        let mut next = 0;
        let mut seen = vec![0; rows * columns];
        for index in 0..parts {
            let slab = Slab::share(&shape, dim, index, parts);
            prop_assert_eq!(slab.range.start, next);
            next = slab.range.end;
            let mut at = 0;
            for run in slab.runs(&(0..slab.elements())) {
                prop_assert_eq!(run.local, at);
                at += run.len;
                (run.global..run.global + run.len).for_each(|i| seen[i] += 1);
            }
            prop_assert_eq!(at, slab.elements());
        }
        prop_assert_eq!(next, shape[dim]);
        prop_assert!(seen.iter().all(|n| *n == 1));
    }
}

#[test]
fn a_name_that_is_used_twice_is_an_error_that_names_it() {
    let spec = ParamSpec { name: "norm.weight".into(), shape: vec![4], decay: false };
    let layout = ParallelLayout::new(&ParallelConfig::default(), 1).expect("one rank");
    let message = StatePlan::replicated(vec![spec.clone(), spec], layout, 64).expect_err("twice").to_string();
    assert!(message.contains("norm.weight"), "{message}");
}
