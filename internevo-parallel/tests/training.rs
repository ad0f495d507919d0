//! Training in several layouts: the same bits wherever the promise is the same bits.

mod common;

use common::{MICRO_BATCHES, Mlp, Setup, bits, train};
use internevo_parallel::{
    ParallelError,
    comm::{RunError, run_ranks},
    zero::ReductionOrder,
};

/// Parameters and norms of every rank after ten steps.
fn ten_steps(setup: Setup) -> Vec<(Vec<f32>, Vec<u64>)> {
    let result = run_ranks(setup.ranks, |comm| -> Result<_, ParallelError> {
        let rank = comm.rank();
        let mut optimizer = setup.optimizer(comm)?;
        let norms = train(&mut optimizer, &setup, rank, 0..10)?;
        assert_eq!((optimizer.updates(), optimizer.skipped_steps()), (10, 0));
        Ok((optimizer.params().to_vec(), norms))
    });
    result.unwrap_or_else(|e| panic!("{setup:?}: {e}"))
}

fn relative_difference(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let (error, norm) = a
        .iter()
        .zip(b)
        .fold((0.0, 0.0), |(e, n), (a, b)| (e + square(f64::from(*a) - f64::from(*b)), n + square(f64::from(*b))));
    f64::sqrt(error / norm)
}

#[test]
fn every_power_of_two_layout_gives_the_bits_of_one_rank() {
    let one = ten_steps(Setup::new(1, 1));
    let (params, norms) = &one[0];
    assert_ne!(bits(params), bits(&Mlp::new().0), "training moves the parameters");
    for (ranks, zero1, stage) in
        [(2, 1, 1), (2, 2, 1), (4, 1, 1), (4, 2, 1), (4, 4, 1), (2, 2, 2), (4, 4, 2), (4, 2, 2), (4, 1, 2)]
    {
        for bucket_bytes in [10_000, 1 << 20] {
            let setup = Setup { bucket_bytes, stage, ..Setup::new(ranks, zero1) };
            for (rank, (other, other_norms)) in ten_steps(setup).iter().enumerate() {
                assert_eq!(norms, other_norms, "{setup:?} rank {rank}");
                assert!(bits(params) == bits(other), "{setup:?} rank {rank}: parameters differ");
            }
        }
    }
}

#[test]
fn layouts_that_round_differently_stay_within_a_millionth() {
    let one = &ten_steps(Setup::new(1, 1))[0].0;
    let sequential = Setup { reduction: ReductionOrder::Sequential, ..Setup::new(1, 1) };
    let other = &ten_steps(sequential)[0].0;
    assert_ne!(bits(one), bits(other), "another order of additions rounds differently");
    assert!(relative_difference(other, one) <= 1e-6);
    // Three ranks see other micro-batches than one rank with four; compare with one rank that sees the same three.
    let three = Setup { micro_num: 3, ..Setup::new(1, 1) };
    let one = &ten_steps(three)[0].0;
    for zero1 in [1, 3] {
        let all = ten_steps(Setup { micro_num: 1, ..Setup::new(3, zero1) });
        assert!(all.iter().all(|(p, _)| bits(p) == bits(&all[0].0)), "ranks disagree");
        assert!(relative_difference(&all[0].0, one) <= 1e-6);
    }
}

#[test]
fn a_gradient_that_is_not_finite_skips_the_step_on_every_rank() {
    let setup = Setup::new(4, 2);
    let results = run_ranks(4, |comm| -> Result<_, ParallelError> {
        let rank = comm.rank();
        let mut optimizer = setup.optimizer(comm)?;
        train(&mut optimizer, &setup, rank, 0..2)?;
        let before = optimizer.params().to_vec();
        let value = if rank == 2 { f32::NAN } else { 1.0 };
        optimizer.accumulate(|flat| flat[7_000] = value)?;
        let outcome = optimizer.step(1e-2, 0.95)?;
        assert!(outcome.skipped && !outcome.clipped && outcome.grad_norm.is_nan());
        assert_eq!(bits(&before), bits(optimizer.params()));
        assert_eq!((optimizer.updates(), optimizer.skipped_steps()), (2, 1));
        train(&mut optimizer, &setup, rank, 2..4)?;
        Ok(bits(optimizer.params()))
    });
    let straight = run_ranks(4, |comm| -> Result<_, ParallelError> {
        let rank = comm.rank();
        let mut optimizer = setup.optimizer(comm)?;
        train(&mut optimizer, &setup, rank, 0..4)?;
        Ok(bits(optimizer.params()))
    });
    assert!(results.expect("runs") == straight.expect("runs"), "a skipped step leaves no trace");
}

#[test]
fn the_norm_is_that_of_the_mean_gradient_and_clipping_bounds_it() {
    let gradient = {
        let model = Mlp::new();
        let parts: Vec<Vec<f32>> = (0..MICRO_BATCHES).map(|i| model.gradient(0, i)).collect();
        (0..parts[0].len()).map(|i| parts.iter().map(|p| f64::from(p[i])).sum::<f64>()).collect::<Vec<_>>()
    };
    let expected = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    let norm = f64::from_bits(ten_steps(Setup::new(4, 4))[0].1[0]);
    assert!((norm / expected - 1.0).abs() <= 1e-6, "{norm} against {expected}");
    assert!(norm > 0.5, "the test problem is clipped from the start");
}

#[test]
fn ranks_that_start_apart_are_named() {
    let setup = Setup::new(4, 2);
    let result = run_ranks(4, |comm| -> Result<(), ParallelError> {
        let rank = comm.rank();
        let healthy = setup.optimizer(comm.clone())?;
        let (specs, mut params) = (healthy.plan().specs().to_vec(), healthy.params().to_vec());
        params[3] += if rank == 2 { 1e-3 } else { 0.0 };
        let config = internevo_core::config::Config::default();
        let layout = internevo_core::layout::ParallelLayout::new(&config.parallel, 4).expect("sound");
        let groups = internevo_parallel::ProcessGroups::new(&layout, comm)?;
        let registry = internevo_core::plugin::Registry::collect()?;
        let choice = internevo_parallel::optimizer::OptimizerChoice::from_config(&registry, &config)?;
        let zero = internevo_parallel::ZeroConfig::from_config(&config)?;
        let plan = internevo_parallel::StatePlan::replicated(specs, layout, 1 << 20)?;
        internevo_parallel::ShardedOptimizer::new(plan, params, groups, &choice, zero).map(drop)
    });
    match result {
        Err(RunError::Failed { error: ParallelError::DifferentStart { ranks }, .. }) => assert_eq!(ranks, [2]),
        other => panic!("{other:?}"),
    }
}
