//! Initial weights from a counter-based generator: element `i` of a parameter is a pure function of (seed, name, `i`), so
//! no layout, slice or thread count changes a weight.
//!
//! Not here: which distribution a parameter has ([`crate::param_table`]).

use std::ops::Range;

use internevo_core::rng::CounterRng;
use internevo_parallel::state::LocalTable;
use rayon::prelude::*;

use crate::spec::{Init, ModelSpec, Parameter, param_table};

/// Elements per parallel piece: large enough that handing out work is free.
const PIECE: usize = 16 * 1024;

/// Fills `out` with the elements `start..start + out.len()` of `parameter`.
///
/// # Panics
/// If the slice reaches beyond the parameter.
pub fn draw_into(parameter: &Parameter, seed: u64, start: usize, out: &mut [f32]) {
    assert!(start + out.len() <= parameter.count(), "a slice of {} lies inside it", parameter.name);
    let rng = CounterRng::new(seed, &parameter.name);
    let init = parameter.init;
    out.par_chunks_mut(PIECE).enumerate().for_each(|(piece, chunk)| {
        let first = (start + piece * PIECE) as u64;
        for (i, x) in (first..).zip(chunk) {
            *x = value(init, &rng, i);
        }
    });
}

/// The elements `range` of `parameter`.
///
/// # Panics
/// If the range reaches beyond the parameter.
pub fn draw(parameter: &Parameter, seed: u64, range: Range<usize>) -> Vec<f32> {
    let mut out = vec![0.0; range.len()];
    draw_into(parameter, seed, range.start, &mut out);
    out
}

/// All parameters of a model as one flat vector, in table order.
pub fn initial_parameters(spec: &ModelSpec, seed: u64) -> Vec<f32> {
    initial_slice(spec, seed, 0..spec.parameter_count())
}

/// The elements `range` of the flat vector: what one ZeRO shard owns, without drawing the rest.
///
/// # Panics
/// If the range reaches beyond the model.
pub fn initial_slice(spec: &ModelSpec, seed: u64, range: Range<usize>) -> Vec<f32> {
    assert!(range.end <= spec.parameter_count(), "a slice of the flat parameters lies inside them");
    let mut out = vec![0.0; range.len()];
    for parameter in param_table(spec) {
        let own = parameter.range();
        let (start, end) = (own.start.max(range.start), own.end.min(range.end));
        if start < end {
            let target = &mut out[start - range.start..end - range.start];
            draw_into(&parameter, seed, start - own.start, target);
        }
    }
    out
}

/// One rank's local vector: the elements of each parameter that `table` says it holds; padding is zero.
pub fn initial_local(spec: &ModelSpec, seed: u64, table: &LocalTable) -> Vec<f32> {
    let mut local = vec![0.0; table.total()];
    for (parameter, held) in param_table(spec).iter().zip(table.params()) {
        for run in held.slab.runs(&held.flat) {
            let at = held.offset + run.local - held.flat.start;
            draw_into(parameter, seed, run.global, &mut local[at..at + run.len]);
        }
    }
    local
}

fn value(init: Init, rng: &CounterRng, index: u64) -> f32 {
    match init {
        Init::Ones => 1.0,
        Init::Normal { std } => (rng.normal(index) * std) as f32,
        Init::Uniform { std } => ((2.0 * rng.uniform(index) - 1.0) * 3f64.sqrt() * std) as f32,
    }
}

#[cfg(test)]
mod tests {
    use internevo_core::config::ModelConfig;
    use proptest::prelude::*;

    use super::*;

    fn spec(init_type: &str) -> ModelSpec {
        let config = ModelConfig { hidden_size: 24, num_layers: 2, multiple_of: 8, ..ModelConfig::default() };
        let config = ModelConfig { num_attention_heads: 4, num_kv_attention_heads: 2, ..config };
        ModelSpec::from_config(&ModelConfig { init_type: init_type.into(), ..config }, 900, 32).expect("valid")
    }

    proptest! {
        #[test]
        fn any_slice_holds_the_same_values_as_the_whole(seed: u64, a in 0usize..60_000, b in 0usize..60_000) {
            let spec = spec("normal");
            let n = spec.parameter_count();
            let (a, b) = (a.min(b).min(n), a.max(b).min(n));
            let whole = initial_parameters(&spec, seed);
            prop_assert_eq!(&initial_slice(&spec, seed, a..b)[..], &whole[a..b]);
        }
    }

    #[test]
    fn a_value_depends_on_seed_and_name_but_not_on_the_other_parameters() {
        let small = spec("normal");
        let deep = ModelSpec { layers: 5, ..small.clone() };
        let find = |s: &ModelSpec| {
            param_table(s).into_iter().find(|p| p.name == "layers.1.attention.wqkv.weight").expect("second layer")
        };
        assert_eq!(draw(&find(&small), 3, 0..50), draw(&find(&deep), 3, 0..50));
        assert_ne!(draw(&find(&small), 3, 0..50), draw(&find(&small), 4, 0..50));
        let first = param_table(&small).into_iter().find(|p| p.name == "layers.0.attention.wqkv.weight");
        assert_ne!(draw(&find(&small), 3, 0..50), draw(&first.expect("first layer"), 3, 0..50));
    }

    #[test]
    fn both_distributions_have_the_asked_standard_deviation() {
        for kind in ["normal", "uniform"] {
            let table = param_table(&spec(kind));
            let embedding = &table[0];
            let values = draw(embedding, 11, 0..embedding.count());
            let n = values.len() as f64;
            let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
            let std = (values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n).sqrt();
            // Four standard errors of 23,040 draws.
            assert!(mean.abs() < 4.0 * 0.02 / n.sqrt(), "{kind}: mean {mean}");
            assert!((std / 0.02 - 1.0).abs() < 4.0 / (2.0 * n).sqrt(), "{kind}: std {std}");
        }
    }
}
