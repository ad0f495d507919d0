//! Bytes of one rank, item by item, for the engine as it is: f32 throughout, fused kernels, AdamW.
//!
//! **State.** `P` are the elements of the rank's local vector: its rows or columns of every matrix (1/t with a tensor group that
//! divides matrices), 1/w of each in a weight group (`isp`, or the ZeRO group in stage 3), and whole norms. The optimizer keeps that
//! vector (4P), two moments of its share (8P/z), and sums of gradients: one more than doublings of the micro-batches with the tree
//! reduction, two at most without; of 4P each, in stage 2 of 4P/z.
//! The modules' leaves are a second copy (4P), unless weights are gathered: then two blocks of whole weights live, the one in use
//! and the one asked for.
//!
//! **Activations**, in elements per token and block; legend as in `volume.rs`, `s` is the number of ranks that divide tokens
//! (`t`, but 1 with `mtp`). What each operation saves for its backward:
//!
//! | saved by | what | elements |
//! |---|---|---|
//! | both norms | their input (the residual stream), 1/rms | 2(h + 1)/s |
//! | `wqkv`; `w1` and `w3` together | the normed input: whole with `mtp` and `msp`, this rank's tokens with `fsp` and `isp` | 2h or 2h/t |
//! | attention | rotated qkv, output, log-sum-exp of the scores | ((H+2K)·D + H·D + H)/t |
//! | `wo` | its input: attention's output, shared; another tensor after an exchange (`isp`, t > 1) | 0 or H·D/t |
//! | swiglu | gate and up | 2f/t |
//! | `w2` | its input | f/t |
//!
//! Rotary works in place, residual additions and weights save nothing. Recomputing attention drops its rows and those of `wo`, and
//! keeps the input of `wqkv` as this rank's tokens; recomputing a block leaves its input, h/s. While a block is replayed, one
//! block's activations exist besides.
//! Measured by counting what a forward leaves allocated (default model, 2048 tokens, two blocks against six): 3916.3 elements per
//! token and block, where the table gives 3914; with the head, 0.07 % more than this file says.
//!
//! The last stage keeps the final norm's input and, because the fused head makes both gradients in the forward, T·h and V·h/t.
//!
//! A stage of a 1F1B pipeline of p stages holds the activations of p - stage micro-batches (Narayanan et al. 2021, 2.2.1), an
//! interleaved one those of 2(p - stage - 1) + (chunks - 1)p + 1 chunks (as Megatron's warm-up).
//!
//! Not counted: a micro-batch's gradients between the tape and their sums (up to 4P where the tape hands over all of them at its
//! end), tiles and chunks inside kernels, the batch itself, the allocator's slack, code.

use serde::Serialize;

use super::{F32, Place, Recomputed, Step, TensorMode};
use crate::layout::GroupKind;

/// Buckets, or whole weights' gradients, on their way at a time.
const IN_FLIGHT: u64 = 2;
/// Blocks of gathered weights at a time: in use, and asked for.
const GATHERED_BLOCKS: u64 = 2;
/// AdamW's moments.
const MOMENTS: u64 = 2;

/// Bytes of one rank at the peak of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// The modules' leaves.
    pub parameters: u64,
    /// The optimizer's vector of parameters.
    pub local_vector: u64,
    /// Whole weights, gathered from their shards.
    pub gathered: u64,
    /// Sums of gradients.
    pub gradients: u64,
    /// Moments of this rank's share.
    pub optimizer: u64,
    /// Saved by the blocks for their backward, over all micro-batches in flight.
    pub activations: u64,
    /// A replayed block's activations.
    pub replay: u64,
    /// Final norm and head.
    pub head: u64,
    /// Buckets on their way.
    pub communication: u64,
}

impl MemoryEstimate {
    /// All of it.
    pub fn total(&self) -> u64 {
        let state = self.parameters + self.local_vector + self.gathered + self.gradients + self.optimizer;
        state + self.activations + self.replay + self.head + self.communication
    }
}

/// What `rank` needs for `step`.
///
/// # Panics
/// If the rank is outside the layout's world.
pub fn memory(step: &Step, rank: usize) -> MemoryEstimate {
    let place = Place::new(step, rank);
    let block = Block::new(&place);
    let (complete, partial) = place.local_elements();
    let local = complete + partial;
    let (_, sharded_over) = place.weight_group();
    let tokens = |elements: f64| (elements * step.tokens as f64 * F32 as f64).round() as u64;
    let kept =
        block.kept(step.recomputed) * (place.blocks - place.replayed) as f64 + block.input * place.replayed as f64;
    MemoryEstimate {
        parameters: F32 * if sharded_over > 1 { place.norms } else { local },
        local_vector: F32 * local,
        gathered: if sharded_over > 1 { F32 * gathered(&place) } else { 0 },
        gradients: F32
            * gradient_sums(step)
            * if place.adds_up_shares() { local.div_ceil(place.zero_parts()) } else { local },
        optimizer: F32 * MOMENTS * local.div_ceil(place.zero_parts()),
        activations: tokens(kept * in_flight(&place)),
        replay: tokens(block.replayed(step.recomputed, place.replayed)),
        head: if place.is_last() { head(&place) } else { 0 },
        communication: F32 * communication(&place, local),
    }
}

/// Elements per token that a block's operations save.
struct Block {
    /// The block's input: the residual stream.
    input: f64,
    /// Both norms, the residual stream between attention and feed-forward among them.
    norms: f64,
    /// The inputs of the column-parallel matrices, each.
    normed: f64,
    /// One of them as this rank's tokens only.
    own_normed: f64,
    /// qkv, output, log-sum-exp, and the input of `wo` where it is another tensor.
    attention: f64,
    feed_forward: f64,
}

impl Block {
    fn new(place: &Place<'_>) -> Self {
        let s = &place.step.shape;
        let (hidden, heads, ffn) = (s.hidden as f64, s.heads as f64, s.ffn as f64);
        let (group, token_parts) = (place.tensor() as f64, place.token_parts() as f64);
        let (qkv, output) = (((s.heads + 2 * s.kv_heads) * s.head_dim) as f64, (s.heads * s.head_dim) as f64);
        let exchanged = if place.is_isp() && place.tensor() > 1 { output } else { 0.0 };
        let own_normed = hidden / token_parts;
        let gathered = place.step.mode == TensorMode::Msp;
        Self {
            input: hidden / token_parts,
            norms: 2.0 * (hidden + 1.0) / token_parts,
            normed: if gathered { hidden } else { own_normed },
            own_normed,
            attention: (qkv + output + heads + exchanged) / group,
            feed_forward: 3.0 * ffn / group,
        }
    }

    fn all(&self) -> f64 {
        self.norms + 2.0 * self.normed + self.attention + self.feed_forward
    }

    /// Between forward and backward, for a block that is not replayed as a whole.
    fn kept(&self, recomputed: Recomputed) -> f64 {
        match recomputed {
            Recomputed::Attention => self.norms + self.own_normed + self.normed + self.feed_forward,
            _ => self.all(),
        }
    }

    /// Besides what is kept, while the backward runs a forward again.
    fn replayed(&self, recomputed: Recomputed, blocks: u64) -> f64 {
        match recomputed {
            Recomputed::Attention => self.attention + self.normed,
            Recomputed::Blocks(_) if blocks > 0 => self.all(),
            _ => 0.0,
        }
    }
}

/// Micro-batches whose activations the stage holds at its peak; a chunk counts as its share of one.
fn in_flight(place: &Place<'_>) -> f64 {
    let (stages, chunks, behind) = (place.stages, place.step.chunks, place.stages - place.stage - 1);
    let held = if chunks > 1 { 2 * behind + (chunks - 1) * stages + 1 } else { behind + 1 };
    held.min(place.step.micro_batches * chunks) as f64 / chunks as f64
}

fn head(place: &Place<'_>) -> u64 {
    let s = &place.step.shape;
    let norm = place.own_tokens() * (s.hidden + 1);
    let gradients = place.step.tokens * s.hidden / if place.is_isp() { place.tensor() } else { 1 }
        + s.vocab * s.hidden / place.matrix_parts();
    F32 * (norm + gradients)
}

/// Elements of whole weights at a time: two blocks, or an embedding or head if that is more.
fn gathered(place: &Place<'_>) -> u64 {
    let s = &place.step.shape;
    let layer = (2 * (s.heads + s.kv_heads) * s.head_dim + 3 * s.ffn) * s.hidden / place.matrix_parts();
    (GATHERED_BLOCKS.min(place.blocks) * layer).max(largest(place))
}

fn largest(place: &Place<'_>) -> u64 {
    place.matrices.iter().map(|matrix| matrix.elements).max().unwrap_or(0)
}

/// Partial sums of gradients that exist at a time.
fn gradient_sums(step: &Step) -> u64 {
    let doublings = u64::from(step.micro_batches.max(1).ilog2());
    if step.tree { doublings + 1 } else { 1 + doublings.min(1) }
}

/// Elements of messages under way: buckets of parameters or gradients, or whole weights' gradients.
fn communication(place: &Place<'_>, local: u64) -> u64 {
    let equals = place.step.size(GroupKind::Zero1) * place.step.size(GroupKind::Zero1Replica);
    let buckets = if equals > 1 { IN_FLIGHT * place.step.bucket.min(local) } else { 0 };
    let weights = if place.weight_group().1 > 1 { IN_FLIGHT * largest(place) } else { 0 };
    buckets.max(weights)
}
