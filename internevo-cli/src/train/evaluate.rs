//! Validation: the loss of fixed micro-batches, shared among the ranks, and the entropy that a model without context could
//! reach on the same tokens.

use std::{collections::HashMap, sync::Arc};

use internevo_core::batch::{IGNORE_INDEX, PackedBatch};
use internevo_data::loader::{LoaderError, PackedLoader};
use internevo_model::Engine;
use internevo_parallel::comm::Buffer;

use super::job::Job;

/// Mean loss over the validation micro-batches, nats per token; `None` when none of their tokens has a label. Collective.
/// Bit-identical for any number of data-parallel ranks.
///
/// # Errors
/// A damaged store, or a failed world.
pub fn validate(job: &Job<'_>, valid: &Arc<PackedLoader>, engine: &Engine) -> anyhow::Result<Option<f64>> {
    let data = &engine.groups().data;
    let indices = valid.evaluation(job.config.data.valid_micro_num as u64);
    let ranks = data.size() as u64;
    let rounds = (indices.end - indices.start).div_ceil(ranks);
    let mut own = Vec::new();
    for round in 0..rounds {
        let index = indices.start + round * ranks + data.rank() as u64;
        // A rank without a micro-batch in the last round takes part with one that does not count: others may need its share of
        // the weights.
        let counts = index < indices.end;
        let result = engine.evaluate(&valid.micro_batch(if counts { index } else { indices.start })?)?;
        own.extend(if counts { [result.nll, result.tokens, result.correct] } else { [0.0; 3] });
    }
    let all = data.all_gather(Buffer::F64(own))?.wait()?.into_f64();
    let at = |round: u64, rank: u64| &all[3 * (rank * rounds + round) as usize..][..3];
    let in_order = (0..rounds).flat_map(|round| (0..ranks).map(move |rank| at(round, rank)));
    let [nll, tokens, _] = add_in_order(in_order);
    Ok((tokens > 0.0).then(|| nll / tokens))
}

/// Adds triples one after the other: floating-point sums depend on their order.
fn add_in_order<'a>(triples: impl Iterator<Item = &'a [f64]>) -> [f64; 3] {
    triples.fold([0.0; 3], |sum, t| [sum[0] + t[0], sum[1] + t[1], sum[2] + t[2]])
}

/// Entropy of the distribution of the labels that [`validate`] scores, nats: the loss of a model that knows how often each of
/// these tokens occurs, and nothing else.
///
/// # Errors
/// A damaged store.
pub fn unigram_entropy(valid: &PackedLoader, micro_batches: u64) -> Result<Option<f64>, LoaderError> {
    let mut counts: HashMap<i32, u64> = HashMap::new();
    for index in valid.evaluation(micro_batches) {
        count_labels(&valid.micro_batch(index)?, &mut counts);
    }
    Ok(entropy(&counts))
}

fn count_labels(batch: &PackedBatch, counts: &mut HashMap<i32, u64>) {
    for label in batch.labels.iter().filter(|l| **l != IGNORE_INDEX) {
        *counts.entry(*label).or_default() += 1;
    }
}

fn entropy(counts: &HashMap<i32, u64>) -> Option<f64> {
    let mut counts: Vec<u64> = counts.values().copied().collect();
    // A hash map has no order, and the sum depends on one.
    counts.sort_unstable();
    let total: u64 = counts.iter().sum();
    let part = |count: u64| {
        let p = count as f64 / total as f64;
        -p * p.ln()
    };
    (total > 0).then(|| counts.into_iter().map(part).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entropy_of_equally_frequent_labels_is_the_logarithm_of_their_number() {
        let batch = PackedBatch { labels: vec![3, 1, IGNORE_INDEX, 4, 2], ..PackedBatch::default() };
        let mut counts = HashMap::new();
        count_labels(&batch, &mut counts);
        count_labels(&batch, &mut counts);
        assert!((entropy(&counts).expect("labels") - 4f64.ln()).abs() < 1e-12);
        assert_eq!(entropy(&HashMap::new()), None);
    }
}
