//! The embedding table on a cubecl device. `table` is `[words, width]`, the rows of a [`VocabShard`]; outputs and gradients are
//! `[T, width]`. A unit handles one 16-byte load of a row.
//!
//! The gradient of a word is the sum of its tokens' rows in order of position: the places of every word are listed first, on
//! the host, where the tokens are anyway. No atomics, so results repeat to the bit.

use crate::cube::{Buffer, Client, ElemType, Flat, Machine, address_type};
use crate::vocab::VocabShard;
use cubecl::prelude::*;

/// `table[token]` for each token, zero for the tokens of other shards.
///
/// # Panics
/// If a token is not in the vocabulary (the message names its position) or the table is not the shard's.
pub fn forward(client: &Client, table: &Buffer, shard: &VocabShard, width: usize, tokens: &[u32]) -> Buffer {
    super::check(shard, tokens);
    assert_eq!(table.len, shard.words() * width, "embedding: table of width {width} for {shard:?}");
    let y = Buffer::empty(client, tokens.len() * width, table.elem);
    let machine = Machine::of(client);
    let Flat { vector, loads, count, dim } = machine.flat(y.len, machine.vector(table.elem, width));
    // SAFETY: a unit beyond the last load does nothing, and a place outside the table is not read.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            count,
            dim,
            address_type(&[table, &y]),
            vector,
            table.arg(),
            Buffer::from_u32(client, tokens).arg(),
            y.arg(),
            loads,
            shard.range().start as u32,
            shard.words() as u32,
            width / vector,
            table.elem,
        );
    }
    y
}

/// Gradient of the table (`[words, width]`, of type `elem`; sums are f32).
///
/// # Panics
/// As [`forward`].
pub fn backward(
    client: &Client,
    shard: &VocabShard,
    width: usize,
    tokens: &[u32],
    dy: &Buffer,
    elem: ElemType,
) -> Buffer {
    super::check(shard, tokens);
    assert_eq!(dy.len, tokens.len() * width, "gradient of {} embeddings of width {width}", tokens.len());
    let (starts, positions) = places(shard, tokens);
    let table = Buffer::empty(client, shard.words() * width, elem);
    let machine = Machine::of(client);
    let vector = machine.vector(dy.elem, width).min(machine.vector(elem, width));
    let Flat { loads, count, dim, .. } = machine.flat(table.len, vector);
    // SAFETY: a unit beyond the last load does nothing; `starts` has an end for every word, and `positions`, up to the last of
    // them, are of tokens.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            count,
            dim,
            address_type(&[&table, dy]),
            vector,
            dy.arg(),
            Buffer::from_u32(client, &starts).arg(),
            Buffer::from_u32(client, &positions).arg(),
            table.arg(),
            loads,
            width / vector,
            dy.elem,
            elem,
        );
    }
    table
}

/// Where the words of `shard` are: those of word `w` at `positions[starts[w]..starts[w + 1]]`, in order. A counting sort.
fn places(shard: &VocabShard, tokens: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let words = || tokens.iter().map(|token| shard.place_of(*token as usize));
    let mut starts = vec![0u32; shard.words() + 1];
    for word in words().flatten() {
        starts[word + 1] += 1;
    }
    for word in 0..shard.words() {
        starts[word + 1] += starts[word];
    }
    let mut next = starts.clone();
    let mut positions = vec![0u32; tokens.len()];
    for (word, position) in words().zip(0u32..) {
        if let Some(word) = word {
            positions[next[word] as usize] = position;
            next[word] += 1;
        }
    }
    (starts, positions)
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    table: &[Vector<F, N>],
    tokens: &[u32],
    y: &mut [Vector<F, N>],
    loads: usize,
    first_word: u32,
    words: u32,
    #[comptime] width: usize,
    #[define(F)] _elem: ElemType,
) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    if i < loads {
        // A token before the first word wraps around to beyond the last.
        let place = tokens[i / width] - first_word;
        if place < words {
            y[i] = table[place as usize * width + i % width];
        } else {
            y[i] = Vector::new(F::new(0.0));
        }
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<I: Float, O: Float, N: Size>(
    dy: &[Vector<I, N>],
    starts: &[u32],
    positions: &[u32],
    table: &mut [Vector<O, N>],
    loads: usize,
    #[comptime] width: usize,
    #[define(I)] _from: ElemType,
    #[define(O)] _to: ElemType,
) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    if i < loads {
        let word = i / width;
        let column = i % width;
        let end = starts[word + 1];
        let mut sum = Vector::<f32, N>::new(0.0f32);
        let mut at = starts[word];
        while at < end {
            sum += Vector::<f32, N>::cast_from(dy[positions[at as usize] as usize * width + column]);
            at += 1;
        }
        table[i] = Vector::cast_from(sum);
    }
}
