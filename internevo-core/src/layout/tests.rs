//! The layout against InternEvo's own examples, and its invariants over every small size.

use std::collections::BTreeSet;

use super::*;

fn config(pp: usize, tp: usize, wp: usize, zero1: i64, mode: &str) -> ParallelConfig {
    let mut config = ParallelConfig::default();
    config.pipeline.size = pp;
    config.tensor.size = tp;
    config.tensor.mode = mode.into();
    config.weight.size = wp;
    config.zero1.size = zero1;
    config
}

/// Every layout that exists with at most 16 ranks (and 24, which has three prime factors of two and one of three).
fn every_layout() -> Vec<ParallelLayout> {
    let mut layouts = Vec::new();
    for world in (1..=16).chain([24]) {
        for pp in 1..=world {
            for tp in 1..=world {
                for zero1 in -1..=world as i64 {
                    layouts.extend(ParallelLayout::new(&config(pp, tp, 1, zero1, "msp"), world));
                    for wp in 1..=world {
                        layouts.extend(ParallelLayout::new(&config(pp, tp, wp, zero1, "isp"), world));
                    }
                }
            }
        }
    }
    assert!(layouts.len() > 1000, "{}", layouts.len());
    layouts
}

#[test]
fn groups_are_those_of_internevos_documentation() {
    // Docstrings of Initializer_Pipeline, Initializer_Zero1 and Initializer_Zero1_ISP.
    let layout = ParallelLayout::new(&config(2, 4, 1, 2, "mtp"), 16).expect("16 = 2 stages x 2 x 4");
    let data = [[0, 4], [1, 5], [2, 6], [3, 7], [8, 12], [9, 13], [10, 14], [11, 15]];
    assert_eq!(layout.groups(GroupKind::Data), data);
    assert_eq!(layout.groups(GroupKind::Zero1), data);
    assert_eq!(layout.groups(GroupKind::Pipeline), (0..8).map(|i| vec![i, i + 8]).collect::<Vec<_>>());

    let layout = ParallelLayout::new(&config(2, 2, 1, 2, "fsp"), 16).expect("16 = 2 stages x 4 x 2");
    let zero1 = [[0, 2], [1, 3], [4, 6], [5, 7], [8, 10], [9, 11], [12, 14], [13, 15]];
    assert_eq!(layout.groups(GroupKind::Zero1), zero1);
    assert_eq!(layout.groups(GroupKind::Zero1Replica)[..2], [[0, 4], [1, 5]]);

    let layout = ParallelLayout::new(&config(1, 4, 8, 2, "isp"), 32).expect("32 = 4 x 8");
    assert_eq!(layout.groups(GroupKind::Weight)[1], (8..16).collect::<Vec<_>>());
    let first: Vec<_> = (0..8).map(|i| vec![i, i + 8]).collect();
    assert_eq!(layout.groups(GroupKind::Zero1)[..8], first);
    assert_eq!(layout.groups(GroupKind::Zero1)[8], [16, 24]);
}

#[test]
fn the_groups_of_every_kind_hold_each_rank_exactly_once() {
    for layout in every_layout() {
        for kind in GroupKind::ALL {
            let groups = layout.groups(kind);
            assert!(groups.iter().all(|g| g.len() == layout.size(kind) && g.is_sorted()), "{kind:?} of {layout:?}");
            let ranks: BTreeSet<usize> = groups.iter().flatten().copied().collect();
            assert_eq!(ranks.len(), groups.len() * layout.size(kind), "{kind:?} of {layout:?} overlaps");
            assert!(ranks.into_iter().eq(0..layout.world()), "{kind:?} of {layout:?} has gaps");
            for group in &groups {
                assert!(group.iter().all(|r| layout.group_of(kind, *r) == *group), "{kind:?} of {layout:?}");
            }
        }
    }
}

#[test]
fn a_rank_survives_the_way_to_coordinates_and_back() {
    for layout in every_layout() {
        for rank in 0..layout.world() {
            assert_eq!(layout.rank(layout.coordinates(rank)), rank, "{layout:?}");
        }
    }
}

#[test]
fn a_coordinate_is_the_place_in_the_group() {
    for layout in every_layout() {
        for rank in 0..layout.world() {
            let c = layout.coordinates(rank);
            for (kind, coordinate) in [
                (GroupKind::Data, c.data),
                (GroupKind::Tensor, c.tensor),
                (GroupKind::Sequence, c.tensor),
                (GroupKind::Weight, c.weight),
                (GroupKind::WeightData, c.weight_data),
                (GroupKind::Pipeline, c.pipeline),
                (GroupKind::Zero1, c.zero1),
                (GroupKind::Zero1Replica, c.zero1_replica),
                (GroupKind::SequenceHead, c.head),
                (GroupKind::SequenceContext, c.context),
            ] {
                assert_eq!(layout.group_of(kind, rank)[coordinate], rank, "{kind:?} of {layout:?}");
            }
        }
    }
}

#[test]
fn orthogonal_groups_share_exactly_one_rank() {
    use GroupKind::{Data, Pipeline, Tensor, Weight, WeightData, Zero1, Zero1Replica};
    let pairs = [
        (Data, Tensor),
        (Data, Pipeline),
        (Tensor, Pipeline),
        (Weight, WeightData),
        (Weight, Pipeline),
        (WeightData, Pipeline),
        (Zero1, Zero1Replica),
        (Zero1, Pipeline),
    ];
    for layout in every_layout() {
        for (a, b) in pairs {
            for rank in 0..layout.world() {
                let other: BTreeSet<usize> = layout.group_of(b, rank).into_iter().collect();
                let shared: Vec<_> = layout.group_of(a, rank).into_iter().filter(|r| other.contains(r)).collect();
                assert_eq!(shared, [rank], "{a:?} and {b:?} of {layout:?}");
            }
        }
    }
}

#[test]
fn zero_groups_and_their_replicas_make_up_the_group_with_equal_weights() {
    for layout in every_layout() {
        let equal = if layout.is_isp() { GroupKind::WeightData } else { GroupKind::Data };
        assert_eq!(layout.size(GroupKind::Zero1) * layout.size(GroupKind::Zero1Replica), layout.size(equal));
        for rank in 0..layout.world() {
            let group: BTreeSet<usize> = layout.group_of(equal, rank).into_iter().collect();
            assert!(layout.group_of(GroupKind::Zero1, rank).iter().all(|r| group.contains(r)), "{layout:?}");
        }
    }
}

#[test]
fn zero_size_follows_internevo() {
    let size = |zero1| ParallelLayout::new(&config(1, 1, 1, zero1, "mtp"), 8).map(|l| l.size(GroupKind::Zero1));
    assert_eq!([size(-1), size(0), size(1), size(4)], [Ok(8), Ok(8), Ok(1), Ok(4)]);
    assert!(size(3).is_err());
}

#[test]
fn every_broken_rule_is_reported_at_once() {
    let errors = ParallelLayout::new(&config(2, 3, 5, 3, "ring"), 8).expect_err("three rules are broken");
    let keys: Vec<_> = errors.0.iter().map(|v| v.key).collect();
    assert_eq!(keys, ["parallel.weight.size", "parallel.tensor.size", "parallel.weight.size"]);
    let errors = ParallelLayout::new(&config(1, 0, 2, 3, "mtp"), 8).expect_err("tensor of zero, weight without isp");
    assert!(errors.to_string().contains("isp") && errors.to_string().contains("at least one rank"), "{errors}");
    assert!(ParallelLayout::new(&config(3, 1, 1, -1, "mtp"), 8).is_err());
    assert!(ParallelLayout::new(&config(1, 1, 1, -1, "mtp"), 0).is_err());
}
