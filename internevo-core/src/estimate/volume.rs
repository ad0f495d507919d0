//! Communication of one rank in one step, term by term.
//!
//! Legend: `T` tokens of a micro-batch, `h` hidden, `f` feed-forward width, `V` vocabulary, `H`/`K` query and key/value heads of
//! width `D`, `L` blocks of the stage, `M` micro-batches, `t` tensor group, `w` weight group (`isp`) or ZeRO group (ZeRO-3), `z`
//! ZeRO group, `c` context group, `P` the rank's parameters. Full buffers of f32 elements; what a rank sends of them is
//! [`Verb::ring_bytes`].
//!
//! | term | group | per step | source |
//! |---|---|---|---|
//! | `gradient` | zero1 (stage 1) | reduce-scatter P | Rajbhandari et al. 2020, 5.1 |
//! | | zero1 (stage 2) | M reduce-scatter P | as above; a micro-batch's gradients are not kept |
//! | | zero1_replica | all-reduce P/z; with z = 1 of P | hybrid ZeRO of InternEvo: one copy per group |
//! | `parameters` | zero1 (1 and 2) | all-gather P | Rajbhandari et al. 2020, 5.1 |
//! | `weight_gather` | weight, or zero1 in stage 3 | 2M all-gathers per matrix of a block: forward, and backward or replay, whose tape keeps it; embedding and head M | InternEvo `isp`; ZeRO-3 |
//! | `weight_gradient` | same | M reduce-scatters per matrix | same |
//! | `tensor` | tensor | `mtp`: 4LM all-reduces of T·h | Shoeybi et al. 2019, fig. 4 |
//! | | | `msp`: 4LM all-gathers and 4LM reduce-scatters of T·h | Korthikanti et al. 2022, 4.2.2: an all-reduce in two halves |
//! | | | `fsp`: 2LM more all-gathers: a column-parallel input is gathered again | InternEvo `fsp` |
//! | | | a replayed block: its forward half again; replayed attention: its all-gather again | |
//! | `embedding` | tensor | `mtp`: M all-reduces of T·h; `msp`, `fsp`: M reduce-scatters and all-gathers | rows of the table divided |
//! | | | `mtp`: M all-to-alls of T·h; `msp`, `fsp`: 2M of T/t·h | columns divided |
//! | `head` | tensor | `mtp`: M all-reduces of T·h (backward); `msp`, `fsp`: M all-gathers and reduce-scatters | rows of the head divided |
//! | `loss` | tensor | per chunk of tokens an all-reduce of maxima (f32) and one of three sums (f64) | Shoeybi et al. 2019, section 3 |
//! | | | M all-to-alls of the own logits to everyone | logits gathered |
//! | `exchange` | head | 2LM all-to-alls of T/t·(H+2K)·D and 2LM of T/t·H·D, K at least the ranks; replay: half again | DeepSpeed-Ulysses; InternEvo simulator |
//! | `ring` | context | LM·(c-1) messages of keys and values forward, the same and c of their gradients backward | ring attention |
//! | `pipeline` | pipeline | M messages of T·h (T/t·h with divided tokens) each way and boundary | 1F1B, interleaved |
//! | `norm_gradient` | tensor or weight | M all-reduces of the norm weights | copies that saw other tokens |
//! | `control` | data, state, tensor (`isp`) | labels, losses, gradient norm | below a kilobyte a micro-batch |

use serde::Serialize;

use super::{F32, Place, Recomputed, Step, TensorMode, loss_chunk};
use crate::{
    layout::GroupKind,
    volume::Verb::{self, AllGather, AllReduce, AllToAll, Receive, ReduceScatter, Send},
};

/// Bytes of an f64 and of an i64.
const F64: u64 = 8;
/// Sums per token of a loss on divided logits: of exponentials, the label's logit, and of logits.
const LOSS_SUMS: u64 = 3;

/// One kind of communication of a rank in one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Term {
    /// What is communicated, as in the table of this file's documentation.
    pub name: &'static str,
    /// The kind of group.
    pub group: &'static str,
    /// Its ranks.
    pub ranks: u64,
    /// The verb.
    pub verb: Verb,
    /// Calls per step.
    pub calls: u64,
    /// Bytes of all their full buffers.
    pub bytes: u64,
}

impl Term {
    /// Bytes that the rank sends.
    pub fn sent(&self) -> u64 {
        let message = if self.verb == Send { self.bytes } else { 0 };
        self.verb.ring_bytes(self.ranks as usize, self.bytes).unwrap_or(message)
    }

    /// Whether it is of the step's bookkeeping, which does not grow with the model.
    pub fn is_control(&self) -> bool {
        self.name == "control"
    }
}

/// What `rank` communicates in `step`. Groups of one rank and verbs without calls are left out.
///
/// # Panics
/// If the rank is outside the layout's world.
pub fn volumes(step: &Step, rank: usize) -> Vec<Term> {
    let place = Place::new(step, rank);
    let terms = [zero(&place), weights(&place), tensor(&place), vocabulary(&place), sequence(&place), pipeline(&place)];
    let all = terms.into_iter().flatten().chain(norm_gradients(&place)).chain(control(&place));
    all.filter(|term| term.ranks > 1 && term.calls > 0).collect()
}

/// `calls` calls with a full buffer of `elements` f32 each.
fn term(name: &'static str, (group, ranks): (&'static str, u64), verb: Verb, calls: u64, elements: u64) -> Term {
    Term { name, group, ranks, verb, calls, bytes: calls * elements * F32 }
}

/// Buckets of the local vector: how many, their elements with padding, and one rank's share.
fn buckets(place: &Place<'_>) -> (u64, u64, u64) {
    let (parts, most) = (place.zero_parts(), place.step.bucket.max(1));
    let (complete, partial) = place.local_elements();
    let of = |total: u64| {
        let (whole, rest) = (total / most, total % most);
        (whole + u64::from(rest > 0), whole * most.div_ceil(parts) + rest.div_ceil(parts))
    };
    let ((a, share_a), (b, share_b)) = (of(complete), of(partial));
    (a + b, (share_a + share_b) * parts, share_a + share_b)
}

/// Sums of gradients onto the owners of the optimizer state, and parameters back.
fn zero(place: &Place<'_>) -> Vec<Term> {
    let (count, padded, share) = buckets(place);
    let parts = place.zero_parts();
    let (zero1, replicas) = (("zero1", parts), ("zero1_replica", place.step.size(GroupKind::Zero1Replica)));
    let times = if place.adds_up_shares() { place.step.micro_batches } else { 1 };
    let total = |name, group, verb, times: u64, elements: u64| Term {
        calls: count * times,
        bytes: times * elements * F32,
        ..term(name, group, verb, 1, 0)
    };
    vec![
        total("gradient", zero1, ReduceScatter, times, padded),
        total("gradient", replicas, AllReduce, 1, share),
        total("parameters", zero1, AllGather, 1, padded),
    ]
}

/// Sharded weights: gathered before every use, their gradients scattered after every micro-batch.
fn weights(place: &Place<'_>) -> Vec<Term> {
    let (group, micro_batches) = (place.weight_group(), place.step.micro_batches);
    let both = |matrix: &super::Matrix| {
        let padded = matrix.elements.div_ceil(group.1) * group.1;
        [
            term("weight_gather", group, AllGather, matrix.gathers * micro_batches, padded),
            term("weight_gradient", group, ReduceScatter, micro_batches, padded),
        ]
    };
    merged(place.matrices.iter().flat_map(both))
}

/// Activations at the borders of column- and row-parallel regions: attention and feed-forward of every block.
fn tensor(place: &Place<'_>) -> Vec<Term> {
    let (group, elements) = (("tensor", place.tensor()), place.step.tokens * place.step.shape.hidden);
    let regions = 2 * place.blocks;
    // Recomputed attention ends before `wo`: it enters its region again, and does not leave it.
    let (entered, left) = match place.step.recomputed {
        Recomputed::Attention => (regions + place.blocks, regions),
        _ => (regions + 2 * place.replayed, regions + 2 * place.replayed),
    };
    let calls = |verb, count: u64| term("tensor", group, verb, count * place.step.micro_batches, elements);
    match place.step.mode {
        TensorMode::Mtp => vec![calls(AllReduce, left + regions)],
        TensorMode::Msp => vec![calls(AllGather, entered + regions), calls(ReduceScatter, left + regions)],
        TensorMode::Fsp => vec![calls(AllGather, entered + 2 * regions), calls(ReduceScatter, left + regions)],
        TensorMode::Isp => Vec::new(),
    }
}

/// Embedding, head and loss with a divided vocabulary.
fn vocabulary(place: &Place<'_>) -> Vec<Term> {
    if place.is_isp() {
        return Vec::new();
    }
    let Step { tokens, micro_batches, shape, mode, embedding_by_columns, gathers_logits, .. } = place.step;
    let (group, width) = (("tensor", place.tensor()), tokens * shape.hidden);
    let borders: &[Verb] = if *mode == TensorMode::Mtp { &[AllReduce] } else { &[AllGather, ReduceScatter] };
    let border = |name| borders.iter().map(move |verb| term(name, group, *verb, *micro_batches, width));
    let mut terms = Vec::new();
    match (place.is_first(), *embedding_by_columns, mode) {
        (false, ..) => {}
        (true, false, _) => terms.extend(border("embedding")),
        // Everyone's columns to everyone; the backward takes its own.
        (true, true, TensorMode::Mtp) => terms.push(term("embedding", group, AllToAll, *micro_batches, width)),
        // Columns of all tokens to all columns of the own tokens, and back.
        (true, true, _) => terms.push(term("embedding", group, AllToAll, 2 * micro_batches, width / group.1)),
    }
    if place.is_last() {
        terms.extend(border("head"));
        terms.push(match gathers_logits {
            true => term("loss", group, AllToAll, *micro_batches, tokens * place.share(shape.vocab) * group.1),
            false => divided_loss(place, group),
        });
    }
    terms
}

/// The loss on divided logits, a chunk of tokens at a time: their maxima in f32, then their sums in f64.
fn divided_loss(place: &Place<'_>, group: (&'static str, u64)) -> Term {
    let Step { tokens, micro_batches, shape, .. } = place.step;
    let chunks = tokens.div_ceil(loss_chunk(shape.vocab.div_ceil(group.1)));
    let bytes = tokens * (F32 + LOSS_SUMS * F64);
    Term { calls: 2 * chunks * micro_batches, bytes: bytes * micro_batches, ..term("loss", group, AllReduce, 1, 0) }
}

/// Heads for tokens and back (all-to-all), and keys and values around the ring.
fn sequence(place: &Place<'_>) -> Vec<Term> {
    if !place.is_isp() {
        return Vec::new();
    }
    let s = &place.step.shape;
    let (ring, heads) = (place.step.size(GroupKind::SequenceContext), place.step.size(GroupKind::SequenceHead));
    // Fewer key/value heads than ranks are copied.
    let kv_heads = s.kv_heads.max(heads);
    let replays = if place.step.recomputed == Recomputed::Attention { place.blocks } else { place.replayed };
    let (micro_batches, own) = (place.step.micro_batches, place.own_tokens());
    let (forward, backward) = ((place.blocks + replays) * micro_batches, place.blocks * micro_batches);
    let exchange = |heads_moved: u64| {
        let elements = own * heads_moved * s.head_dim;
        term("exchange", ("head", heads), AllToAll, forward + backward, elements)
    };
    let keys_and_values = own * 2 * kv_heads * s.head_dim;
    let steps = forward * (ring - 1) + backward * (2 * ring - 1);
    let pass = |verb| term("ring", ("context", ring), verb, steps, keys_and_values);
    merged([exchange(s.heads + 2 * kv_heads), exchange(s.heads), pass(Send), pass(Receive)])
}

/// Activations to the next stage, their gradients back; with several chunks from the last stage to the first, too.
fn pipeline(place: &Place<'_>) -> Vec<Term> {
    let (chunks, micro_batches) = (place.step.chunks, place.step.micro_batches);
    let group = ("pipeline", place.stages);
    // Each chunk has a successor and a predecessor, except the model's last and first one.
    let (next, previous) = (chunks - u64::from(place.is_last()), chunks - u64::from(place.is_first()));
    let elements = place.own_tokens() * place.step.shape.hidden;
    [Send, Receive].map(|verb| term("pipeline", group, verb, (next + previous) * micro_batches, elements)).into()
}

/// Norm weights have whole copies; where these saw different tokens their gradients are added, after every micro-batch.
fn norm_gradients(place: &Place<'_>) -> Vec<Term> {
    let (_, partial) = place.local_elements();
    let calls = if partial > 0 { place.step.micro_batches } else { 0 };
    let tensor = (!place.is_isp() && place.token_parts() > 1).then_some(("tensor", place.tensor()));
    let groups = tensor.into_iter().chain([place.weight_group()]);
    groups.map(|group| term("norm_gradient", group, AllReduce, calls, partial)).collect()
}

/// Labels of the step, three sums per micro-batch, and the digits of the exact gradient norm.
fn control(place: &Place<'_>) -> Vec<Term> {
    /// Digits of the exact sum of squares, and the count of what is not finite.
    const NORM_WORDS: u64 = 69;
    const SUMS: u64 = 3;
    let data = ("data", place.step.size(GroupKind::Data));
    let copies = if place.is_isp() { place.step.size(GroupKind::Weight) } else { place.tensor() };
    let state = ("state", copies * place.step.size(GroupKind::Zero1));
    let row = |group, verb, words: u64| Term { calls: 1, bytes: words * F64, ..term("control", group, verb, 1, 0) };
    // With sequences divided each rank has a part of the loss.
    let loss = if place.is_isp() { place.tensor() } else { 1 };
    vec![
        row(("tensor", loss), AllReduce, SUMS * place.step.micro_batches),
        row(data, AllReduce, 1),
        row(data, AllGather, SUMS * place.step.micro_batches * data.1),
        row(state, AllReduce, NORM_WORDS),
    ]
}

/// Terms of the same name, group and verb as one.
fn merged(terms: impl IntoIterator<Item = Term>) -> Vec<Term> {
    let mut all: Vec<Term> = Vec::new();
    for term in terms {
        match all.iter_mut().find(|t| (t.name, t.group, t.verb) == (term.name, term.group, term.verb)) {
            Some(same) => (same.calls, same.bytes) = (same.calls + term.calls, same.bytes + term.bytes),
            None => all.push(term),
        }
    }
    all
}
