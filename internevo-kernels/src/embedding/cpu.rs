//! Embedding on slices. `table` is `[vocab, width]`, `tokens` `[T]`, output `[T, width]`, row-major.

use super::check;
use crate::rows::{SharedMut, for_row_blocks};
use crate::simd::add_in_place;
use crate::vocab::VocabShard;
use rayon::prelude::*;

/// Gathers `table[token]` for each token.
///
/// # Panics
/// If a token is not in the table; the message names its position.
pub fn forward(table: &[f32], width: usize, tokens: &[u32]) -> Vec<f32> {
    forward_shard(table, &VocabShard::whole(table.len() / width.max(1)), width, tokens)
}

/// [`forward`] with the rows of `shard` only (`table` is `[shard.words(), width]`): zero for the tokens of other ranks, so
/// that the sum over ranks is the embedding.
///
/// # Panics
/// If a token is not in the vocabulary (the message names its position) or the table is not the shard's.
pub fn forward_shard(table: &[f32], shard: &VocabShard, width: usize, tokens: &[u32]) -> Vec<f32> {
    check(shard, tokens);
    assert_eq!(table.len(), shard.words() * width, "embedding: table of width {width} for {shard:?}");
    let mut out = vec![0.0; tokens.len() * width];
    for_row_blocks(&mut out, width, |first, rows| {
        for (row, token) in rows.chunks_exact_mut(width).zip(&tokens[first..]) {
            if let Some(place) = shard.place_of(*token as usize) {
                row.copy_from_slice(&table[place * width..][..width]);
            }
        }
    });
    out
}

/// Gradient of the table `[vocab, width]`: rows of `dy` added up by token, in order of position whatever the threads do.
///
/// # Panics
/// As [`forward`].
pub fn backward(vocab: usize, width: usize, tokens: &[u32], dy: &[f32]) -> Vec<f32> {
    backward_shard(&VocabShard::whole(vocab), width, tokens, dy)
}

/// [`backward`] for the rows of `shard`: `[shard.words(), width]`, the same bits as those rows of the whole gradient.
///
/// # Panics
/// As [`forward_shard`].
pub fn backward_shard(shard: &VocabShard, width: usize, tokens: &[u32], dy: &[f32]) -> Vec<f32> {
    check(shard, tokens);
    assert_eq!(dy.len(), tokens.len() * width, "gradient of {} embeddings of width {width}", tokens.len());
    let places =
        tokens.iter().zip(0u32..).filter_map(|(token, position)| Some((shard.place_of(*token as usize)?, position)));
    let mut order: Vec<(usize, u32)> = places.collect();
    order.sort_unstable();
    let mut table = vec![0.0; shard.words() * width];
    let shared = SharedMut::new(&mut table);
    let groups: Vec<&[(usize, u32)]> = order.chunk_by(|a, b| a.0 == b.0).collect();
    groups.par_iter().with_min_len(64).for_each(|positions| {
        // SAFETY: a group holds all positions of one token, so no other task has this row.
        let row = unsafe { shared.slice(positions[0].0 * width, width) };
        for (_, position) in *positions {
            add_in_place(row, &dy[*position as usize * width..][..width]);
        }
    });
    table
}
