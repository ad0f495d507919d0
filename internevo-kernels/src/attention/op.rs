//! The burn operations of attention.

use super::cpu::{self, Saved};
use super::{QkvLayout, check_segments};
use crate::KernelSet;
use crate::autograd::{Function, HostTensor};
use burn::tensor::{Bool, Tensor, activation::softmax};

/// Causal attention inside the segments of a packed batch: `qkv` is `[T, (H + 2K) · D]` interleaved (rotated already),
/// the result `[T, H · D]`.
///
/// `cu_seqlens` are the boundaries of the segments: 0 first, T last, increasing.
///
/// # Panics
/// If the boundaries or the width of `qkv` are wrong.
pub fn attention(set: KernelSet, qkv: Tensor<2>, layout: QkvLayout, cu_seqlens: &[u32]) -> Tensor<2> {
    let [tokens, width] = qkv.dims();
    assert_eq!(width, layout.qkv_width(), "attention: width of qkv for {layout:?}");
    check_segments(cu_seqlens, tokens);
    if !set.fused_for(&qkv, &qkv) {
        let segments = cu_seqlens.windows(2).map(|pair| {
            let segment = qkv.clone().narrow(0, pair[0] as usize, (pair[1] - pair[0]) as usize);
            composed(segment, layout)
        });
        return Tensor::cat(segments.collect(), 0);
    }
    let (function, [qkv]) = Function::enter([qkv.into()]);
    let qkv = HostTensor::new(qkv);
    let (output, log_sum_exp) = cpu::forward(&qkv, layout, cu_seqlens);
    let output = HostTensor::from_vec(output, [tokens, layout.output_width()]);
    let saved = function.tracked()[0].then(|| (qkv, output.clone(), log_sum_exp, cu_seqlens.to_vec()));
    function.finish(output.into_tensor(), move |dy: Tensor<2>, [needed]| {
        [needed.then(|| {
            let (qkv, output, log_sum_exp, cu_seqlens) = saved.expect("kept because the input is tracked");
            let dy = HostTensor::new(dy.into_dispatch());
            let saved = Saved { qkv: &qkv, output: &output, log_sum_exp: &log_sum_exp };
            HostTensor::from_vec(cpu::backward(saved, layout, &cu_seqlens, &dy), [tokens, width]).into_dispatch()
        })]
    })
}

/// Attention of new queries over a cache, for inference: `q` is `[T_q, H · D]`, `k` and `v` are `[T_k, K · D]`, the result
/// `[T_q, H · D]`. Causal, aligned at the end: the last query sees all keys. Records nothing for a backward.
///
/// # Panics
/// If the widths do not fit the layout, or there are more queries than keys.
pub fn attention_cached(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, layout: QkvLayout) -> Tensor<2> {
    let ([queries, q_width], [keys, k_width]) = (q.dims(), k.dims());
    assert_eq!((q_width, k_width), (layout.output_width(), layout.kv_width()), "attention: widths for {layout:?}");
    assert_eq!(k.dims(), v.dims(), "attention: shapes of keys and values");
    assert!(queries <= keys, "attention: {queries} queries see only {keys} keys");
    let (q, k, v) = (q.without_autodiff(), k.without_autodiff(), v.without_autodiff());
    if KernelSet::Fused.fused_for(&q, &k) && HostTensor::accepts(&v) {
        let host = |t: Tensor<2>| HostTensor::new(t.into_dispatch());
        let output = cpu::forward_cached(&host(q), &host(k), &host(v), layout);
        return HostTensor::from_vec(output, [queries, q_width]).into_tensor();
    }
    let (groups, d) = (layout.kv_heads, layout.head_dim);
    let q = q.reshape([queries, groups, layout.q_per_kv, d]).permute([1, 2, 0, 3]);
    let cached = |t: Tensor<2>| t.reshape([keys, groups, 1, d]).permute([1, 2, 0, 3]);
    scaled_dot_product(q, cached(k), cached(v), layout)
}

fn composed(qkv: Tensor<2>, layout: QkvLayout) -> Tensor<2> {
    let (len, g) = (qkv.dims()[0], layout.q_per_kv);
    let heads = qkv.reshape([len, layout.kv_heads, g + 2, layout.head_dim]).permute([1, 2, 0, 3]);
    let (q, k) = (heads.clone().narrow(1, 0, g), heads.clone().narrow(1, g, 1));
    scaled_dot_product(q, k, heads.narrow(1, g + 1, 1), layout)
}

/// `q` is `[K, G, T_q, D]`, `k` and `v` are `[K, 1, T_k, D]`; the result `[T_q, H · D]`.
fn scaled_dot_product(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, layout: QkvLayout) -> Tensor<2> {
    let ([groups, g, queries, d], keys) = (q.dims(), k.dims()[2]);
    let device = q.device().inner();
    let scores = q.matmul(k.expand([groups, g, keys, d]).swap_dims(2, 3)) * layout.scale();
    let hidden = Tensor::<2, Bool>::tril_mask([queries, keys], (keys - queries) as i64, &device);
    let scores =
        scores.mask_fill(hidden.reshape([1, 1, queries, keys]).expand([groups, g, queries, keys]), f32::NEG_INFINITY);
    let output = softmax(scores, 3).matmul(v.expand([groups, g, keys, d]));
    output.permute([2, 0, 1, 3]).reshape([queries, layout.output_width()])
}
