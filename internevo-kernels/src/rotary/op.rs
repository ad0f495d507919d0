//! The burn operations of the rotary embedding.

use super::cpu::{Direction, rotate};
use super::{RotaryHeads, RotaryTable};
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
    apply(set, qkv, layout.into(), positions, table)
}

/// [`rotary`] for a tensor of queries or of keys alone: `x` is `[T, heads · D]`, and every head is rotated.
///
/// # Panics
/// As [`rotary`].
pub fn rotary_heads(set: KernelSet, x: Tensor<2>, heads: usize, positions: &[u32], table: &RotaryTable) -> Tensor<2> {
    apply(set, x, RotaryHeads::all(heads, table.head_dim()), positions, table)
}

fn apply(set: KernelSet, x: Tensor<2>, heads: RotaryHeads, positions: &[u32], table: &RotaryTable) -> Tensor<2> {
    let [tokens, width] = x.dims();
    assert_eq!(width, heads.width(), "rotary: width of the input for {heads:?}");
    assert_eq!(tokens, positions.len(), "rotary: tokens and positions");
    #[cfg(feature = "gpu")]
    if set.gpu_for(&x, &x) {
        return on_gpu(x, heads, positions, table);
    }
    if !set.fused_for(&x, &x) {
        return composed(x, heads, positions, table);
    }
    let (function, [x]) = Function::enter([x.into()]);
    let mut x = HostTensor::new(x);
    rotate(x.make_mut(), heads, positions, table, Direction::Forward);
    let saved = function.tracked()[0].then(|| (positions.to_vec(), table.clone()));
    function.finish(x.into_tensor(), move |dy: Tensor<2>, [needed]| {
        [needed.then(|| {
            let (positions, table) = saved.expect("kept because the input is tracked");
            let mut dy = HostTensor::new(dy.into_dispatch());
            rotate(dy.make_mut(), heads, &positions, &table, Direction::Backward);
            dy.into_dispatch()
        })]
    })
}

#[cfg(feature = "gpu")]
fn on_gpu(x: Tensor<2>, heads: RotaryHeads, positions: &[u32], table: &RotaryTable) -> Tensor<2> {
    use crate::cube::{Buffer, GpuTensor};
    table.check(heads.head_dim, positions);
    let (function, [x]) = Function::enter([x.into()]);
    let mut x = GpuTensor::new(x);
    let positions = Buffer::from_u32(x.client(), positions);
    let table = table.on_device(&x);
    super::cube::rotate(&x.client().clone(), &x.make_mut(), heads, &positions, &table, Direction::Forward);
    let saved = function.tracked()[0].then_some((positions, table));
    function.finish(x.into_tensor(), move |dy: Tensor<2>, [needed]| {
        [needed.then(|| {
            let (positions, table) = saved.expect("kept because the input is tracked");
            let mut dy = GpuTensor::new(dy.into_dispatch());
            super::cube::rotate(&dy.client().clone(), &dy.make_mut(), heads, &positions, &table, Direction::Backward);
            dy.into_dispatch()
        })]
    })
}

fn composed(x: Tensor<2>, heads: RotaryHeads, positions: &[u32], table: &RotaryTable) -> Tensor<2> {
    let RotaryHeads { groups, rotated, passed, head_dim } = heads;
    table.check(head_dim, positions);
    let (tokens, half) = (positions.len(), head_dim / 2);
    let (device, dtype) = (x.device().inner(), x.dtype());
    let (cos, sin) = (factors(positions, table, &device, true), factors(positions, table, &device, false));
    let (cos, sin) = (cos.cast(dtype), sin.cast(dtype));
    let all = x.reshape([tokens, groups, rotated + passed, head_dim]);
    let turned = all.clone().narrow(2, 0, rotated);
    let (low, high) = (turned.clone().narrow(3, 0, half), turned.narrow(3, half, half));
    let new_low = low.clone() * cos.clone() - high.clone() * sin.clone();
    let new_high = high * cos + low * sin;
    let mut parts = vec![Tensor::cat(vec![new_low, new_high], 3)];
    if passed > 0 {
        parts.push(all.narrow(2, rotated, passed));
    }
    Tensor::cat(parts, 2).reshape([tokens, heads.width()])
}

fn factors(positions: &[u32], table: &RotaryTable, device: &Device, cosine: bool) -> Tensor<4> {
    let pick = |p: &u32| if cosine { table.at(*p).0 } else { table.at(*p).1 };
    let values: Vec<f32> = positions.iter().flat_map(pick).copied().collect();
    Tensor::from_data(TensorData::new(values, [positions.len(), 1, 1, table.head_dim() / 2]), device)
}
