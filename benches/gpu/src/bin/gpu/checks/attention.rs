//! Attention, forward and backward, by each route that serves the type: packed documents of uneven lengths, grouped queries.

use internevo_kernels::QkvLayout;
use internevo_kernels::attention::cube::{self as kernels, Attention, Outcome, Route};
use internevo_kernels::attention::{AttentionMask, Segments, reference};
use internevo_kernels::cube::{Buffer, Client, ElemType, F32};

use super::{Check, Draw, add as check, error, worst};

/// Adds the checks. The f64 reference takes seconds for a thousand tokens; tiles of longer rows are the same loop.
pub fn add(checks: &mut Vec<Check>, elem: ElemType, tiny: bool) {
    let (ends, head_dims): (&[u32], &[usize]) =
        if tiny { (&[0, 5, 37], &[16]) } else { (&[0, 1, 300, 1024], &[64, 96, 128, 256]) };
    for &head_dim in head_dims {
        let layout = QkvLayout { kv_heads: 2, q_per_kv: if tiny { 2 } else { 4 }, head_dim };
        let routes: &[Route] =
            if elem == F32 { &[Route::Portable] } else { &[Route::Wgmma, Route::Mma, Route::Portable] };
        for &route in routes {
            let shape = format!("{ends:?}×{}/2×{head_dim}", 2 * layout.q_per_kv);
            let added = check(checks, &format!("attention by {route:?}"), elem, shape, move |client, seed| {
                compare(client, seed, route, elem, layout, ends)
            });
            added.served = Box::new(move |client| {
                let segments = Segments::packed(ends);
                let like = Buffer::empty(client, segments.queries() * layout.qkv_width(), elem);
                let operands = layout.interleaved().map(|heads| heads.on(&like));
                route.serves(client, &operands, &attention(layout, &segments))
            });
        }
    }
}

fn attention(layout: QkvLayout, segments: &Segments) -> Attention<'_> {
    Attention::new(layout, segments, AttentionMask::default())
}

fn compare(
    client: &Client,
    seed: u64,
    route: Route,
    elem: ElemType,
    layout: QkvLayout,
    ends: &[u32],
) -> anyhow::Result<f64> {
    let segments = Segments::packed(ends);
    let tokens = segments.queries();
    let mut draw = Draw::new(client, seed);
    let (qkv, qkv_gpu) = draw.floats(tokens * layout.qkv_width(), elem)?;
    let (dy, dy_gpu) = draw.floats(tokens * layout.output_width(), elem)?;
    let operands = layout.interleaved().map(|heads| heads.on(&qkv_gpu));
    let attention = attention(layout, &segments);
    let (output, lse) = kernels::forward_by(route, client, &operands, &attention);
    // Every row belongs to a segment, so all of the gradient must be written.
    let d_qkv_gpu = Buffer::from_f32(client, &vec![f32::NAN; qkv_gpu.len], elem);
    let gradients = layout.interleaved().map(|heads| heads.on(&d_qkv_gpu));
    let outcome = Outcome { output: &output, lse: &lse, d_output: &dy_gpu, d_lse: None };
    kernels::backward_by(route, client, &operands, &outcome, &attention, &gradients);
    let y = reference::packed(&qkv, layout, ends);
    let d_qkv = reference::packed_backward(&qkv, layout, ends, &dy);
    worst([error(client, &output, &y), error(client, &d_qkv_gpu, &d_qkv)])
}
