//! Embedding on slices. `table` is `[vocab, width]`, `tokens` `[T]`, output `[T, width]`, row-major.

use crate::rows::{SharedMut, for_row_blocks};
use crate::simd::add_in_place;
use rayon::prelude::*;

/// Gathers `table[token]` for each token.
///
/// # Panics
/// If a token is not in the table; the message names its position.
pub fn forward(table: &[f32], width: usize, tokens: &[u32]) -> Vec<f32> {
    check(table.len() / width.max(1), tokens);
    let mut out = vec![0.0; tokens.len() * width];
    for_row_blocks(&mut out, width, |first, rows| {
        for (row, token) in rows.chunks_exact_mut(width).zip(&tokens[first..]) {
            row.copy_from_slice(&table[*token as usize * width..][..width]);
        }
    });
    out
}

/// Gradient of the table `[vocab, width]`: rows of `dy` added up by token, in order of position whatever the threads do.
///
/// # Panics
/// As [`forward`].
pub fn backward(vocab: usize, width: usize, tokens: &[u32], dy: &[f32]) -> Vec<f32> {
    check(vocab, tokens);
    assert_eq!(dy.len(), tokens.len() * width, "gradient of {} embeddings of width {width}", tokens.len());
    let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
    order.sort_by_key(|position| tokens[*position as usize]);
    let mut table = vec![0.0; vocab * width];
    let shared = SharedMut::new(&mut table);
    let groups: Vec<&[u32]> = order.chunk_by(|a, b| tokens[*a as usize] == tokens[*b as usize]).collect();
    groups.par_iter().with_min_len(64).for_each(|positions| {
        let token = tokens[positions[0] as usize] as usize;
        // SAFETY: a group holds all positions of one token, so no other task has this row.
        let row = unsafe { shared.slice(token * width, width) };
        for position in *positions {
            add_in_place(row, &dy[*position as usize * width..][..width]);
        }
    });
    table
}

fn check(vocab: usize, tokens: &[u32]) {
    if let Some(position) = tokens.iter().position(|token| *token as usize >= vocab) {
        panic!("embedding: token {} at position {position} is outside 0..{vocab}", tokens[position]);
    }
}
