//! Embedding on slices of f32 or bf16 (f32 sums, rounded once). `table` is `[vocab, width]`, `tokens` `[T]`, output
//! `[T, width]`, row-major.

use super::check;
use crate::rows::{SharedMut, for_row_blocks, written};
use crate::simd::{add_in_place, bf16};
use crate::vocab::VocabShard;
use burn::tensor;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// An element type of the table.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// `sum[i] += x[i]`.
    fn add(sum: &mut [f32], x: &[Self]);
    /// `to[i] = sum[i]`, rounded to the nearest.
    fn store(sum: &[f32], to: &mut [Self]);
}

impl Element for f32 {
    fn add(sum: &mut [f32], x: &[f32]) {
        add_in_place(sum, x);
    }
    fn store(sum: &[f32], to: &mut [f32]) {
        to.copy_from_slice(sum);
    }
}

impl Element for tensor::bf16 {
    fn add(sum: &mut [f32], x: &[Self]) {
        bf16::add_widened(sum, x);
    }
    fn store(sum: &[f32], to: &mut [Self]) {
        bf16::round(sum, to);
    }
}

/// Gathers `table[token]` for each token.
///
/// # Panics
/// If a token is not in the table; the message names its position.
pub fn forward<T: Element>(table: &[T], width: usize, tokens: &[u32]) -> Vec<T> {
    forward_shard(table, &VocabShard::whole(table.len() / width.max(1)), width, tokens)
}

/// [`forward`] with the rows of `shard` only (`table` is `[shard.words(), width]`): zero for the tokens of other ranks, so
/// that the sum over ranks is the embedding.
///
/// # Panics
/// If a token is not in the vocabulary (the message names its position) or the table is not the shard's.
pub fn forward_shard<T: Element>(table: &[T], shard: &VocabShard, width: usize, tokens: &[u32]) -> Vec<T> {
    check(shard, tokens);
    assert_eq!(table.len(), shard.words() * width, "embedding: table of width {width} for {shard:?}");
    let gather = |out: &mut [MaybeUninit<T>]| {
        for_row_blocks(out, width, |first, rows| {
            for (row, token) in rows.chunks_exact_mut(width).zip(&tokens[first..]) {
                match shard.place_of(*token as usize) {
                    Some(place) => {
                        row.write_copy_of_slice(&table[place * width..][..width]);
                    }
                    None => row.fill(MaybeUninit::new(T::default())),
                }
            }
        });
    };
    // SAFETY: blocks are whole rows and cover the output; both arms write their row.
    unsafe { written(tokens.len() * width, gather) }
}

/// Gradient of the table `[vocab, width]`: rows of `dy` added up by token, in order of position whatever the threads do.
///
/// # Panics
/// As [`forward`].
pub fn backward<T: Element>(vocab: usize, width: usize, tokens: &[u32], dy: &[T]) -> Vec<T> {
    backward_shard(&VocabShard::whole(vocab), width, tokens, dy)
}

/// [`backward`] for the rows of `shard`: `[shard.words(), width]`, the same bits as those rows of the whole gradient.
///
/// # Panics
/// As [`forward_shard`].
pub fn backward_shard<T: Element>(shard: &VocabShard, width: usize, tokens: &[u32], dy: &[T]) -> Vec<T> {
    check(shard, tokens);
    assert_eq!(dy.len(), tokens.len() * width, "gradient of {} embeddings of width {width}", tokens.len());
    let places =
        tokens.iter().zip(0u32..).filter_map(|(token, position)| Some((shard.place_of(*token as usize)?, position)));
    let mut order: Vec<(usize, u32)> = places.collect();
    order.sort_unstable();
    let mut table = vec![T::default(); shard.words() * width];
    let shared = SharedMut::new(&mut table);
    let groups: Vec<&[(usize, u32)]> = order.chunk_by(|a, b| a.0 == b.0).collect();
    groups.par_iter().with_min_len(64).for_each_init(
        || vec![0.0; width],
        |sum, positions| {
            sum.fill(0.0);
            for (_, position) in *positions {
                T::add(sum, &dy[*position as usize * width..][..width]);
            }
            // SAFETY: a group holds all positions of one token, so no other task has this row.
            T::store(sum, unsafe { shared.slice(positions[0].0 * width, width) });
        },
    );
    table
}
