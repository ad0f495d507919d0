//! For tests of update rules: a rank that holds everything, random vectors, and the distance to a reference.

use internevo_core::{config::ParallelConfig, layout::ParallelLayout, rng::CounterRng};

use super::{Segment, ShardLayout, StepContext};
use crate::{
    comm::local_world,
    state::{Exchange, ParamSpec, StatePlan},
};

/// Parameters on one rank.
pub(crate) struct Alone {
    pub(crate) shard: ShardLayout,
    exchange: Exchange,
}

impl Alone {
    /// Parameters of these names, shapes and decay, one after the other.
    pub(crate) fn new(params: &[(&str, &[usize], bool)]) -> Self {
        let spec = |(name, shape, decay): &(&str, &[usize], bool)| ParamSpec {
            name: (*name).into(),
            shape: shape.to_vec(),
            decay: *decay,
        };
        let layout = ParallelLayout::new(&ParallelConfig::default(), 1).expect("one rank");
        let plan = StatePlan::replicated(params.iter().map(spec).collect(), layout, 1 << 30).expect("names differ");
        let (table, pieces) = plan.pieces(0).expect("names differ");
        let segments = pieces.iter().map(|p| Segment::of(p, &table.params()[p.param])).collect();
        let exchange = Exchange::new(&plan, local_world(1).swap_remove(0)).expect("names differ");
        Self { shard: ShardLayout { len: table.total(), segments, params: table.specs() }, exchange }
    }

    pub(crate) fn context(&self, lr: f64, beta2: f64, update: u64) -> StepContext<'_> {
        StepContext { lr, beta2, update, shard: &self.shard, exchange: &self.exchange }
    }
}

/// Normal numbers that depend on `name` alone.
pub(crate) fn random(name: &str, len: usize, scale: f64) -> Vec<f32> {
    let rng = CounterRng::new(5, name);
    (0..len as u64).map(|i| (rng.normal(i) * scale) as f32).collect()
}

/// `|found - expected| / |expected|`.
pub(crate) fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let error: f64 = found.iter().zip(expected).map(|(f, e)| square(f64::from(*f) - e)).sum();
    (error / expected.iter().map(|e| square(*e)).sum::<f64>()).sqrt()
}
