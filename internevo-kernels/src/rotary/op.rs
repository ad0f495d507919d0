//! The burn operation of the rotary embedding.

use super::RotaryTable;
use super::cpu::{Direction, rotate};
use crate::KernelSet;
use crate::attention::QkvLayout;
use crate::autograd::{Function, HostTensor};
use burn::tensor::{Device, Tensor, TensorData};

/// Rotates the query and key heads of `qkv` (`[T, (H + 2K) · D]`, interleaved) by the angles of `positions` (`[T]`).
///
/// The buffer is rotated in place when nobody else holds it, forward and backward.
///
/// # Panics
/// If sizes do not fit or a position is outside the table; the message names the token.
pub fn rotary(set: KernelSet, qkv: Tensor<2>, layout: QkvLayout, positions: &[u32], table: &RotaryTable) -> Tensor<2> {
    let [tokens, width] = qkv.dims();
    assert_eq!(width, layout.qkv_width(), "rotary: width of qkv for {layout:?}");
    assert_eq!(tokens, positions.len(), "rotary: tokens and positions");
    if !set.fused_for(&qkv, &qkv) {
        return composed(qkv, layout, positions, table);
    }
    let (function, [qkv]) = Function::enter([qkv.into()]);
    let mut qkv = HostTensor::new(qkv);
    rotate(qkv.make_mut(), layout, positions, table, Direction::Forward);
    let saved = function.tracked()[0].then(|| (positions.to_vec(), table.clone()));
    function.finish(qkv.into_tensor(), move |dy: Tensor<2>, [needed]| {
        [needed.then(|| {
            let (positions, table) = saved.expect("kept because the input is tracked");
            let mut dy = HostTensor::new(dy.into_dispatch());
            rotate(dy.make_mut(), layout, &positions, &table, Direction::Backward);
            dy.into_dispatch()
        })]
    })
}

fn composed(qkv: Tensor<2>, layout: QkvLayout, positions: &[u32], table: &RotaryTable) -> Tensor<2> {
    let (tokens, half, rotated) = (positions.len(), layout.head_dim / 2, layout.q_per_kv + 1);
    let (device, dtype) = (qkv.device().inner(), qkv.dtype());
    let (cos, sin) = (factors(positions, table, &device, true), factors(positions, table, &device, false));
    let (cos, sin) = (cos.cast(dtype), sin.cast(dtype));
    let heads = qkv.reshape([tokens, layout.kv_heads, layout.q_per_kv + 2, layout.head_dim]);
    let value = heads.clone().narrow(2, rotated, 1);
    let heads = heads.narrow(2, 0, rotated);
    let (low, high) = (heads.clone().narrow(3, 0, half), heads.narrow(3, half, half));
    let new_low = low.clone() * cos.clone() - high.clone() * sin.clone();
    let new_high = high * cos + low * sin;
    let heads = Tensor::cat(vec![new_low, new_high], 3);
    Tensor::cat(vec![heads, value], 2).reshape([tokens, layout.qkv_width()])
}

fn factors(positions: &[u32], table: &RotaryTable, device: &Device, cosine: bool) -> Tensor<4> {
    let pick = |p: &u32| if cosine { table.at(*p).0 } else { table.at(*p).1 };
    let values: Vec<f32> = positions.iter().flat_map(pick).copied().collect();
    Tensor::from_data(TensorData::new(values, [positions.len(), 1, 1, table.head_dim() / 2]), device)
}
