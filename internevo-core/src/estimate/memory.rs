//! Bytes of one rank, item by item, for the engine as it is: f32 throughout, fused kernels, AdamW.
//!
//! **State.** `P` are the elements of the rank's local vector: its rows or columns of every matrix (1/t with a tensor group that
//! divides matrices), 1/w of each in a weight group (`isp`, or the ZeRO group in stage 3), and whole norms. It exists twice, as the
//! optimizer's vector and as the modules' leaves (8P); two moments of the own share (8P/z) and sums of gradients come to it: one
//! more than doublings of the micro-batches with the tree reduction, two at most without, of 4P each, whose buffers are kept from step
//! to step; in stage 2 of 4P/z each, and two whole buckets.
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
//! Rotary works in place, residual additions and weights save nothing. Recomputing attention leaves its norm's input and what `wo`
//! projects; recomputing a block leaves its input, h/s. While it is replayed, its activations exist besides.
//!
//! **The peak** is the largest of three moments:
//!
//! | moment | beside state and activations |
//! |---|---|
//! | head | final norm, T·h and V·h/t of gradients, which the fused head makes in the forward, and a chunk of logits or, where they are gathered, all of them twice |
//! | backward of the last block | the gradients of its residual stream, of a region's input and of gate and up; with replay its activations; a weight's gradient |
//! | update | no activations: the share's gradient and parameters, two buckets on their way |
//!
//! Whole weights that are gathered: the head with the head, two matrices in the backward, two blocks of them where blocks are
//! replayed. Two of their gradients are on their way besides.
//!
//! A stage of a 1F1B pipeline of p stages holds the activations of p - stage micro-batches (Narayanan et al. 2021, 2.2.1), an
//! interleaved one those of 2(p - stage - 1) + (chunks - 1)p + 1 chunks (as Megatron's warm-up).
//!
//! Not counted: tiles inside kernels, the batch itself, the allocator's slack, code. Measured: `benches/tests/memory.rs`.

use serde::Serialize;

use super::{F32, Place, Recomputed, Step, TensorMode, loss_chunk};

/// Buckets, or whole weights' gradients, on their way at a time.
const IN_FLIGHT: u64 = 2;
/// Matrices, or where blocks are replayed blocks of them, that are gathered at a time: in use, and asked for.
const GATHERED: u64 = 2;
/// AdamW's moments.
const MOMENTS: u64 = 2;

/// Bytes of one rank at the peak of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// The modules' leaves.
    pub parameters: u64,
    /// The optimizer's vector of parameters.
    pub local_vector: u64,
    /// Sums of gradients.
    pub gradients: u64,
    /// Moments of this rank's share.
    pub optimizer: u64,
    /// Whole weights, gathered from their shards.
    pub gathered: u64,
    /// Saved by the blocks for their backward, over all micro-batches in flight.
    pub activations: u64,
    /// A replayed block's activations.
    pub replay: u64,
    /// Final norm and head.
    pub head: u64,
    /// Gradients of activations and of a weight inside the backward.
    pub backward: u64,
    /// What this rank's share of the state is updated with.
    pub update: u64,
    /// Messages on their way: buckets, or whole weights' gradients.
    pub communication: u64,
}

impl MemoryEstimate {
    /// All of it.
    pub fn total(&self) -> u64 {
        let state = self.parameters + self.local_vector + self.gradients + self.optimizer;
        let pass = self.gathered + self.activations + self.replay + self.head + self.backward;
        state + pass + self.update + self.communication
    }
}

/// What `rank` needs for `step`.
///
/// # Panics
/// If the rank is outside the layout's world.
pub fn memory(step: &Step, rank: usize) -> MemoryEstimate {
    let place = Place::new(step, rank);
    let (complete, partial) = place.local_elements();
    let local = complete + partial;
    let share = local.div_ceil(place.zero_parts());
    let bucket = step.bucket.min(local);
    // Sums of shares, and whole buckets: filling, and on their way until their shares have landed.
    let (sum, whole) = if place.adds_up_shares() { (share, IN_FLIGHT * bucket) } else { (local, 0) };
    let state = MemoryEstimate {
        parameters: F32 * local,
        local_vector: F32 * local,
        gradients: F32 * (gradient_sums(step) * sum + whole),
        optimizer: F32 * MOMENTS * share,
        ..MemoryEstimate::default()
    };
    let moments = [at_head(&place, state), at_backward(&place, state), at_update(&place, state, local, share)];
    moments.into_iter().max_by_key(MemoryEstimate::total).expect("there are three moments")
}

/// Bytes of `elements` f32 per token of a micro-batch.
fn per_token(place: &Place<'_>, elements: f64) -> u64 {
    (elements * place.step.tokens as f64 * F32 as f64).round() as u64
}

fn at_head(place: &Place<'_>, state: MemoryEstimate) -> MemoryEstimate {
    let (s, tokens) = (&place.step.shape, place.step.tokens);
    if !place.is_last() {
        return state;
    }
    let matrix = place.share(s.vocab) * s.hidden;
    // With divided sequences each rank has the loss of its own tokens, otherwise that of all of them.
    let rows = if place.is_isp() { place.own_tokens() } else { tokens };
    let chunk = rows.min(loss_chunk(s.vocab.div_ceil(place.matrix_parts())));
    let divided = place.tensor() > 1 && !place.is_isp();
    let (gradients, logits) = match place.step.gathers_logits && divided {
        true => (0, rows * (2 * s.vocab + place.share(s.vocab))),
        false => (rows * s.hidden + matrix, chunk * place.share(s.vocab)),
    };
    let gathered_input = if place.step.mode.divides_tokens() && divided { rows * s.hidden } else { 0 };
    let norm = place.own_tokens() * (2 * s.hidden + 1);
    MemoryEstimate {
        activations: activations(place),
        head: F32 * (norm + gathered_input + gradients + logits),
        gathered: if place.weight_group().1 > 1 { F32 * matrix } else { 0 },
        ..state
    }
}

fn at_backward(place: &Place<'_>, state: MemoryEstimate) -> MemoryEstimate {
    let (block, sharded) = (Block::new(place), place.weight_group().1 > 1);
    let matrices = block_matrices(place);
    let (largest, all) = (matrices.iter().copied().max().unwrap_or(0), matrices.iter().sum::<u64>());
    // What the last block needs is the most: there all others' activations exist.
    let replayed = place.blocks > 0 && place.replayed == place.blocks;
    let gathered = if replayed { GATHERED.min(place.blocks) * all } else { GATHERED * largest };
    MemoryEstimate {
        activations: activations(place),
        replay: if replayed { per_token(place, block.all() - block.input) } else { 0 },
        backward: per_token(place, block.gradients) + F32 * largest,
        gathered: if sharded { F32 * gathered } else { 0 },
        communication: if sharded { F32 * IN_FLIGHT * largest } else { 0 },
        ..state
    }
}

fn at_update(place: &Place<'_>, state: MemoryEstimate, local: u64, share: u64) -> MemoryEstimate {
    let bucket = place.step.bucket.min(local);
    // Shares of several buckets are put one after the other; a single one is used where it is.
    let gradient = if local > place.step.bucket { share } else { 0 };
    let (parameters, travelling) = if place.zero_parts() > 1 { (share, IN_FLIGHT * bucket) } else { (0, 0) };
    MemoryEstimate { update: F32 * (gradient + parameters), communication: F32 * travelling, ..state }
}

/// Bytes that the blocks of the stage keep between forward and backward.
fn activations(place: &Place<'_>) -> u64 {
    let block = Block::new(place);
    let (kept, replayed) = ((place.blocks - place.replayed) as f64, place.replayed as f64);
    let all = block.kept(place.step.recomputed) * kept + block.input * replayed;
    per_token(place, all * in_flight(place))
}

/// Elements per token of one block.
struct Block {
    /// The block's input: the residual stream.
    input: f64,
    /// 1/rms.
    inverse: f64,
    /// The inputs of the column-parallel matrices, each.
    normed: f64,
    /// What `wo` projects.
    output: f64,
    /// What attention saves, and the input of `wo` where it is another tensor.
    attention: f64,
    feed_forward: f64,
    /// Gradients in the backward of the feed-forward: of the residual stream, of a region's input, of gate and up.
    gradients: f64,
}

impl Block {
    fn new(place: &Place<'_>) -> Self {
        let s = &place.step.shape;
        let (hidden, heads, ffn) = (s.hidden as f64, s.heads as f64, s.ffn as f64);
        let (group, token_parts) = (place.tensor() as f64, place.token_parts() as f64);
        let (qkv, output) = (((s.heads + 2 * s.kv_heads) * s.head_dim) as f64, (s.heads * s.head_dim) as f64);
        let exchanged = if place.is_isp() && place.tensor() > 1 { output } else { 0.0 };
        let input = hidden / token_parts;
        let region = if place.is_isp() { input } else { hidden };
        Self {
            input,
            inverse: 1.0 / token_parts,
            normed: if place.step.mode == TensorMode::Fsp { input } else { region },
            output: output / group,
            attention: (qkv + output + heads + exchanged) / group,
            feed_forward: 3.0 * ffn / group,
            gradients: input + region + 2.0 * ffn / group,
        }
    }

    fn all(&self) -> f64 {
        2.0 * (self.input + self.inverse + self.normed) + self.attention + self.feed_forward
    }

    /// What recomputing attention does not keep.
    fn inside_attention(&self) -> f64 {
        self.inverse + self.normed + self.attention - self.output
    }

    /// Between forward and backward, for a block that is not replayed as a whole.
    fn kept(&self, recomputed: Recomputed) -> f64 {
        match recomputed {
            Recomputed::Attention => self.all() - self.inside_attention(),
            _ => self.all(),
        }
    }
}

/// Micro-batches whose activations the stage holds at its peak; a chunk counts as its share of one.
fn in_flight(place: &Place<'_>) -> f64 {
    let (stages, chunks, behind) = (place.stages, place.step.chunks, place.stages - place.stage - 1);
    let held = if chunks > 1 { 2 * behind + (chunks - 1) * stages + 1 } else { behind + 1 };
    held.min(place.step.micro_batches * chunks) as f64 / chunks as f64
}

/// Elements of each matrix of a block, whole as far as a weight group is concerned.
fn block_matrices(place: &Place<'_>) -> Vec<u64> {
    place.matrices.iter().take(if place.blocks > 0 { super::BLOCK_MATRICES } else { 0 }).map(|m| m.elements).collect()
}

/// Partial sums of gradients that exist at a time.
fn gradient_sums(step: &Step) -> u64 {
    let doublings = u64::from(step.micro_batches.max(1).ilog2());
    if step.tree { doublings + 1 } else { 1 + doublings.min(1) }
}
