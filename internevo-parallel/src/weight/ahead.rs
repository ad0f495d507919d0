//! Which weights to ask for when one is used: a look-ahead made once from the names.
//!
//! InternEvo's choices (`weight.overlap`, `forward_overlap_per`, `launch_allgather_before`): per `module`, the next matrix; per
//! `layer`, all matrices of the next block, at a given place in the present one. The backward pass asks for the matrix before.

use std::collections::HashMap;

use internevo_core::config::{Recompute, WeightParallelConfig};

use super::Pass;
use crate::state::LocalTable;

/// How far to look ahead.
#[derive(Clone, Debug, PartialEq)]
pub struct AheadOptions {
    /// Ask for anything ahead at all.
    pub overlap: bool,
    /// By whole blocks in the forward pass, rather than by matrices.
    pub by_layer: bool,
    /// In `layers.N.….NAME.weight`, the matrix at whose use the next block is asked for.
    pub launch_at: String,
    /// What the backward pass computes again.
    pub recompute: Recompute,
}

impl AheadOptions {
    /// The settings of a job.
    pub fn new(config: &WeightParallelConfig, recompute: Recompute) -> Self {
        // Attention has no weight of its own: what comes before it is asked for when `wqkv` is used.
        let launch_at = match config.launch_allgather_before.as_str() {
            "attn" => "wqkv",
            name => name,
        };
        let by_layer = config.forward_overlap_per == "layer";
        Self { overlap: config.overlap, by_layer, launch_at: launch_at.to_owned(), recompute }
    }
}

/// The look-ahead of a model.
#[derive(Clone, Debug, Default)]
pub struct Ahead {
    after: HashMap<(usize, Pass), Vec<usize>>,
}

impl Ahead {
    /// The look-ahead over the sharded parameters of `table`, which are used in the order of the model.
    pub fn new(table: &LocalTable, options: &AheadOptions) -> Self {
        let mut ahead = Self::default();
        if !options.overlap {
            return ahead;
        }
        let order: Vec<usize> = (0..table.params().len()).filter(|i| table.params()[*i].sharded).collect();
        let name = |param: usize| table.params()[param].spec.name.as_str();
        let blocks: Vec<&[usize]> = order.chunk_by(|a, b| block_of(name(*a)) == block_of(name(*b))).collect();
        for (index, block) in blocks.iter().enumerate() {
            let next = blocks.get(index + 1).copied().unwrap_or_default();
            let marker = format!(".{}.weight", options.launch_at);
            let launch = block.iter().find(|p| name(**p).ends_with(&marker)).unwrap_or(&block[0]);
            if options.by_layer {
                ahead.after.insert((*launch, Pass::Forward), next.to_vec());
            }
            // A block that is computed again needs all of itself, and then the one before it.
            if options.recompute != Recompute::Selective {
                let before = index.checked_sub(1).map(|i| blocks[i]).filter(|b| in_block(name(b[0])));
                ahead.after.insert((block[block.len() - 1], Pass::Again), before.unwrap_or_default().to_vec());
                ahead.after.insert((block[0], Pass::Again), block[1..].to_vec());
            }
        }
        for pair in order.windows(2) {
            if !options.by_layer {
                ahead.after.insert((pair[0], Pass::Forward), vec![pair[1]]);
            }
            // The backward asks for no weight of the embedding or the head.
            if in_block(name(pair[0])) && in_block(name(pair[1])) {
                ahead.after.insert((pair[1], Pass::Backward), vec![pair[0]]);
            }
        }
        ahead
    }

    /// What to ask for when `param` is used.
    pub(super) fn after(&self, param: usize, pass: Pass) -> &[usize] {
        self.after.get(&(param, pass)).map_or(&[], Vec::as_slice)
    }
}

fn in_block(name: &str) -> bool {
    block_of(name) != name
}

/// `layers.3` of `layers.3.attention.wqkv.weight`; a parameter outside blocks is its own.
fn block_of(name: &str) -> &str {
    let end = name.match_indices('.').nth(1).map(|(at, _)| at);
    match (name.starts_with("layers."), end) {
        (true, Some(end)) => &name[..end],
        _ => name,
    }
}
