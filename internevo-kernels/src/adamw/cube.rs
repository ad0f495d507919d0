//! AdamW on a cubecl device: one launch over all tensors of flat buffers, in place. Which elements decay how much comes from a
//! table that is made once; the gradients' factor comes from the device, so clipping needs no wait.

use super::{Segment, Update, check_segments};
use crate::cube::lanes::{is_finite, lane_indices};
use crate::cube::{Buffer, Client, ElemType, F32, Machine, address_type};
use cubecl::prelude::*;

/// Elements one cube updates.
const BLOCK: usize = 4096;

/// Marks elements that belong to no segment; less than any weight decay.
const PADDING: f32 = -1.0;

/// Flat state in device memory that is updated in place; all buffers have one length.
#[derive(Clone, Debug)]
pub struct State {
    /// Parameters, f32.
    pub master: Buffer,
    /// First moments, f32.
    pub exp_avg: Buffer,
    /// Second moments, f32.
    pub exp_avg_sq: Buffer,
    /// The parameters as another float type, if somebody computes with those.
    pub copy: Option<Buffer>,
}

/// Segments as the kernel looks them up. Depends on the layout alone: make it once.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For each block its first piece; then two words a piece: where it ends in its block, and its weight decay's bits.
    table: Buffer,
    /// A factor of 1.
    one: Buffer,
    len: usize,
}

impl Plan {
    /// The plan of `segments`, in order, of buffers of `len` elements.
    ///
    /// # Panics
    /// If segments overlap or leave the buffers.
    pub fn new(client: &Client, segments: &[Segment], len: usize) -> Self {
        check_segments(segments, len);
        let blocks = len.div_ceil(BLOCK);
        let (mut first, mut pieces) = (Vec::with_capacity(blocks + 1), Vec::new());
        let mut rest = segments.iter().filter(|segment| !segment.range.is_empty()).peekable();
        for block in (0..blocks).map(|block| block * BLOCK..(block + 1) * BLOCK) {
            first.push(pieces.len() as u32 / 2);
            let mut at = block.start;
            while at < block.end {
                let (end, decay) = match rest.peek() {
                    None => (block.end, PADDING),
                    Some(next) if at < next.range.start => (next.range.start, PADDING),
                    Some(next) => (next.range.end, next.weight_decay as f32),
                };
                if end <= block.end && decay != PADDING {
                    rest.next();
                }
                at = end.min(block.end);
                pieces.extend([(at - block.start) as u32, decay.to_bits()]);
            }
        }
        first.extend(pieces);
        // A device refuses a binding of no bytes.
        first.resize(first.len().max(1), 0);
        Self { table: Buffer::from_u32(client, &first), one: Buffer::from_f32(client, &[1.0], F32), len }
    }
}

/// One update. Gradients, of any float type, are multiplied by `update.grad_scale` and by `factor`, one f32 on the device
/// ([`crate::grad_norm::cube::norm`] makes one); if that product is not finite, nothing changes at all.
///
/// # Panics
/// If lengths or types do not fit.
pub fn step(client: &Client, state: &State, grad: &Buffer, plan: &Plan, update: Update, factor: Option<&Buffer>) {
    let State { master, exp_avg, exp_avg_sq, copy } = state;
    let f32s = [master, exp_avg, exp_avg_sq];
    assert!(f32s.iter().all(|b| (b.len, b.elem) == (plan.len, F32)), "adamw: state is f32 of {} elements", plan.len);
    assert!(grad.len == plan.len && copy.as_ref().is_none_or(|copy| copy.len == plan.len), "adamw: lengths");
    let factor = factor.unwrap_or(&plan.one);
    assert_eq!((factor.len, factor.elem), (1, F32), "adamw: factor");
    let (machine, c) = (Machine::of(client), update.constants());
    let (vector, units) = (machine.vector(F32, plan.len), machine.max_units.min(256));
    let blocks = plan.len.div_ceil(BLOCK);
    // Without a copy the kernel writes none, but wants an argument.
    let copied = copy.as_ref().map_or_else(|| BufferArg::alias(0, plan.len), Buffer::arg);
    // SAFETY: a cube beyond the last block stops, a unit beyond the last load does nothing, and the last piece of a block ends
    // at its end, so no search leaves the table.
    unsafe {
        step_kernel::launch_unchecked(
            client,
            machine.count(blocks),
            CubeDim::new_1d(units),
            address_type(&[master]),
            vector,
            master.arg(),
            exp_avg.arg(),
            exp_avg_sq.arg(),
            copied,
            grad.arg(),
            factor.arg(),
            plan.table.arg(),
            update.lr as f32,
            c.beta1,
            c.one_minus_beta1,
            c.beta2,
            c.one_minus_beta2,
            c.root_correction2,
            c.step_size,
            c.eps,
            c.grad_scale,
            plan.len / vector,
            blocks as u32,
            units,
            copy.is_some(),
            grad.elem,
            copy.as_ref().map_or(F32, |copy| copy.elem),
        );
    }
}

/// The weight decay of each lane of a load that starts at element `start` of its block, in `piece`.
#[cube]
fn decay_of_lanes<N: Size>(table: &[u32], pieces: u32, piece: u32, start: u32) -> Vector<f32, N> {
    let width = N::value();
    let mut last = piece;
    let mut decay = Vector::<f32, N>::new(f32::reinterpret(table[(pieces + 2 * last + 1) as usize]));
    let mut end = table[(pieces + 2 * last) as usize];
    while end < start + comptime!(width as u32) {
        last += 1;
        let other = Vector::<f32, N>::new(f32::reinterpret(table[(pieces + 2 * last + 1) as usize]));
        decay = select_many(lane_indices::<N>().greater_equal(&Vector::new(end - start)), other, decay);
        end = table[(pieces + 2 * last) as usize];
    }
    decay
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn step_kernel<G: Float, C: Float, N: Size>(
    master: &mut [Vector<f32, N>],
    exp_avg: &mut [Vector<f32, N>],
    exp_avg_sq: &mut [Vector<f32, N>],
    copy: &mut [Vector<C, N>],
    grad: &[Vector<G, N>],
    factor: &[f32],
    table: &[u32],
    lr: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    root_correction2: f32,
    step_size: f32,
    eps: f32,
    grad_scale: f32,
    loads: usize,
    blocks: u32,
    #[comptime] units: u32,
    #[comptime] copied: bool,
    #[define(G)] _grad_elem: ElemType,
    #[define(C)] _copy_elem: ElemType,
) {
    let block = CUBE_POS;
    let scale = grad_scale * factor[0];
    if block >= blocks as usize || !is_finite(scale) {
        terminate!();
    }
    let width = N::value();
    let block_loads = comptime!((BLOCK / width) as u32);
    let first = block * block_loads as usize;
    let mut piece = table[block];
    let mut load = UNIT_POS_X;
    while load < block_loads && first + (load as usize) < loads {
        let i = first + load as usize;
        let start = load * comptime!(width as u32);
        while table[(blocks + 2 * piece) as usize] <= start {
            piece += 1;
        }
        let decay = decay_of_lanes::<N>(table, blocks, piece, start);
        let g = Vector::<f32, N>::cast_from(grad[i]) * Vector::new(scale);
        let (p, m, v) = (master[i], exp_avg[i], exp_avg_sq[i]);
        let new_m = Vector::new(beta1) * m + Vector::new(one_minus_beta1) * g;
        let new_v = Vector::new(beta2) * v + Vector::new(one_minus_beta2) * (g * g);
        let denominator = new_v.sqrt() / Vector::new(root_correction2) + Vector::new(eps);
        let new_p = p - (decay * Vector::new(lr) * p + Vector::new(step_size) * (new_m / denominator));
        let counts = decay.greater_equal(&Vector::new(0.0f32));
        let new_p = select_many(counts, new_p, p);
        exp_avg[i] = select_many(counts, new_m, m);
        exp_avg_sq[i] = select_many(counts, new_v, v);
        master[i] = new_p;
        if copied {
            copy[i] = Vector::cast_from(new_p);
        }
        load += units;
    }
}
