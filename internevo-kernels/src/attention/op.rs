//! The burn operations of attention.

use super::cpu::{self, Outcome};
use super::{AttentionMask, QkvLayout, Segments, check_segments};
use crate::KernelSet;
use crate::autograd::{Function, HostTensor};
use burn::tensor::{Bool, DType, Device, FloatDType, Tensor, TensorData};

/// Causal attention inside the segments of a packed batch: `qkv` is `[T, (H + 2K) · D]` interleaved (rotated already),
/// the result `[T, H · D]`.
///
/// `cu_seqlens` are the boundaries of the segments: 0 first, T last, increasing.
///
/// # Panics
/// If the boundaries or the width of `qkv` are wrong.
pub fn attention(set: KernelSet, qkv: Tensor<2>, layout: QkvLayout, cu_seqlens: &[u32]) -> Tensor<2> {
    attention_masked(set, qkv, layout, cu_seqlens, AttentionMask::default())
}

/// [`attention`] under any mask: a sliding window, or without causality.
///
/// # Panics
/// As [`attention`], or if the window is 0.
pub fn attention_masked(
    set: KernelSet,
    qkv: Tensor<2>,
    layout: QkvLayout,
    cu_seqlens: &[u32],
    mask: AttentionMask,
) -> Tensor<2> {
    let [tokens, width] = qkv.dims();
    assert_eq!(width, layout.qkv_width(), "attention: width of qkv for {layout:?}");
    check_segments(cu_seqlens, tokens);
    mask.check();
    let segments = Segments::packed(cu_seqlens);
    if narrow_on_host(set, &qkv) {
        let dtype = qkv.dtype();
        return attention_masked(set, qkv.cast(FloatDType::F32), layout, cu_seqlens, mask).cast(dtype);
    }
    #[cfg(feature = "gpu")]
    if set.gpu_for(&qkv, &qkv) {
        return super::cube::op::interleaved(qkv, layout, segments, mask);
    }
    if !set.fused_for(&qkv, &qkv) {
        let [q, k, v] = split(qkv, layout);
        return composed(q, k, v, layout, &segments, mask).0.reshape([tokens, layout.output_width()]);
    }
    let (function, [qkv]) = Function::enter([qkv.into()]);
    let qkv = HostTensor::new(qkv);
    let (output, log_sum_exp) = cpu::forward(cpu::interleaved(&qkv, layout), layout, &segments, mask);
    let output = HostTensor::from_vec(output, [tokens, layout.output_width()]);
    let saved = function.tracked()[0].then(|| (qkv, output.clone(), log_sum_exp, segments));
    function.finish(output.into_tensor(), move |dy: Tensor<2>, [needed]| {
        [needed.then(|| {
            let (qkv, output, log_sum_exp, segments) = saved.expect("kept because the input is tracked");
            let d_output = HostTensor::new(dy.into_dispatch());
            let outcome =
                Outcome { output: &output, log_sum_exp: &log_sum_exp, d_output: &d_output, d_log_sum_exp: None };
            let gradient = cpu::backward_interleaved(&qkv, outcome, layout, &segments, mask);
            HostTensor::from_vec(gradient, [tokens, width]).into_dispatch()
        })]
    })
}

/// Attention over separate tensors: `q` is `[T_q, H, D]`, `k` and `v` are `[T_k, K, D]`, H a multiple of K (query heads
/// `g · H/K ..` share key/value head `g`). Returns the output `[T_q, H, D]` and the log-sum-exp of each row of scaled
/// scores, `[T_q, H]`, f32, natural logarithm; both may be differentiated.
///
/// A segment may have other numbers of queries and keys: the last query then stands at the last key, as in FlashAttention
/// 2.1 and later. A query that sees no key gets output 0, log-sum-exp `-∞`, and takes part in no gradient.
///
/// ```
/// use internevo_kernels::burn::tensor::{Device, Distribution, Tensor};
/// use internevo_kernels::{KernelSet, attention::{AttentionMask, Segments, flash_attention}};
///
/// let device = Device::flex().autodiff();
/// let random = |tokens, heads| Tensor::<3>::random([tokens, heads, 64], Distribution::Default, &device).require_grad();
/// let (q, k, v) = (random(5, 4), random(9, 2), random(9, 2));
/// let segments = Segments::new(vec![0, 5], vec![0, 9]);
/// let (output, log_sum_exp) =
///     flash_attention(KernelSet::Fused, q.clone(), k, v, &segments, AttentionMask::sliding(4));
/// assert_eq!((output.dims(), log_sum_exp.dims()), ([5, 4, 64], [5, 4]));
/// let gradients = output.sum().backward();
/// assert_eq!(q.grad(&gradients).unwrap().dims(), [5, 4, 64]);
/// ```
///
/// # Panics
/// If shapes do not fit each other or the segments, or the window is 0.
pub fn flash_attention(
    set: KernelSet,
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    segments: &Segments,
    mask: AttentionMask,
) -> (Tensor<3>, Tensor<2>) {
    let layout = layout_of(&q, &k, &v, segments);
    mask.check();
    if [&q, &k, &v].into_iter().all(|x| narrow_on_host(set, x)) {
        let dtype = q.dtype();
        let [q, k, v] = [q, k, v].map(|x| x.cast(FloatDType::F32));
        let (output, lse) = flash_attention(set, q, k, v, segments, mask);
        return (output.cast(dtype), lse);
    }
    #[cfg(feature = "gpu")]
    if set.gpu_for(&q, &k) && set.gpu_for(&q, &v) {
        return super::cube::op::separate(q, k, v, layout, segments.clone(), mask);
    }
    if !(set.fused_for(&q, &k) && HostTensor::accepts(&v)) {
        return composed(q, k, v, layout, segments, mask);
    }
    let shapes = [q.dims(), k.dims(), v.dims()];
    let (function, inputs) = Function::enter([q.into(), k.into(), v.into()]);
    let inputs = inputs.map(HostTensor::new);
    let [q, k, v] = &inputs;
    let (output, lse) = cpu::forward(cpu::separate(q, k, v, layout), layout, segments, mask);
    let output = HostTensor::from_vec(output, shapes[0]);
    let lse = HostTensor::from_vec(lse, [segments.queries(), layout.heads()]);
    let tracked = function.tracked().contains(&true);
    let saved = tracked.then(|| (inputs, output.clone(), lse.clone(), segments.clone()));
    let outputs = (output.into_tensor(), lse.into_tensor());
    function.finish_pair(outputs, move |dy: Option<Tensor<3>>, d_lse: Option<Tensor<2>>, needed| {
        let ([q, k, v], output, lse, segments) = saved.expect("kept because an input is tracked");
        let d_output = match dy {
            Some(dy) => HostTensor::new(dy.into_dispatch()),
            None => HostTensor::from_vec(vec![0.0; output.len()], shapes[0]),
        };
        let d_lse = d_lse.map(|gradient| HostTensor::new(gradient.into_dispatch()));
        let outcome =
            Outcome { output: &output, log_sum_exp: &lse, d_output: &d_output, d_log_sum_exp: d_lse.as_deref() };
        let gradients = cpu::backward(cpu::separate(&q, &k, &v, layout), outcome, layout, &segments, mask);
        let mut gradients = gradients.into_iter().zip(shapes).zip(needed);
        std::array::from_fn(|_| {
            let ((gradient, shape), needed) = gradients.next().expect("one of three");
            needed.then(|| HostTensor::from_vec(gradient, shape).into_dispatch())
        })
    })
}

/// Whether the fused kernel takes `x` widened to f32: f16 and bf16 in host memory.
fn narrow_on_host<const D: usize>(set: KernelSet, x: &Tensor<D>) -> bool {
    set == KernelSet::Fused && matches!(x.dtype(), DType::BF16 | DType::F16) && x.device().inner() == Device::flex()
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
    let heads = |x: Tensor<2>, heads: usize| {
        let rows = x.dims()[0];
        x.without_autodiff().reshape([rows, heads, layout.head_dim])
    };
    let (q, k, v) = (heads(q, layout.heads()), heads(k, layout.kv_heads), heads(v, layout.kv_heads));
    let segments = Segments::new(vec![0, queries as u32], vec![0, keys as u32]);
    let (output, _) = flash_attention(KernelSet::Fused, q, k, v, &segments, AttentionMask::default());
    output.reshape([queries, q_width])
}

/// The head counts of separate tensors.
fn layout_of(q: &Tensor<3>, k: &Tensor<3>, v: &Tensor<3>, segments: &Segments) -> QkvLayout {
    let ([queries, heads, head_dim], [keys, kv_heads, k_dim]) = (q.dims(), k.dims());
    assert_eq!(k.dims(), v.dims(), "attention: shapes of keys and values");
    assert_eq!(head_dim, k_dim, "attention: head widths of queries and keys");
    assert!(kv_heads > 0 && heads % kv_heads == 0, "attention: {kv_heads} kv heads do not divide {heads} heads");
    assert_eq!((queries, keys), (segments.queries(), segments.keys()), "attention: tokens and their segments");
    QkvLayout { kv_heads, q_per_kv: heads / kv_heads, head_dim }
}

/// A fused `qkv` as `[T, H, D]`, `[T, K, D]`, `[T, K, D]`.
fn split(qkv: Tensor<2>, layout: QkvLayout) -> [Tensor<3>; 3] {
    let (tokens, d, g) = (qkv.dims()[0], layout.head_dim, layout.q_per_kv);
    let slots = qkv.reshape([tokens, layout.kv_heads, g + 2, d]);
    let part = |first, count| slots.clone().narrow(2, first, count).reshape([tokens, layout.kv_heads * count, d]);
    [part(0, g), part(g, 1), part(g + 1, 1)]
}

/// Attention composed of burn operations, with all scores of a segment in memory.
fn composed(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    layout: QkvLayout,
    segments: &Segments,
    mask: AttentionMask,
) -> (Tensor<3>, Tensor<2>) {
    let (heads, d) = (layout.heads(), layout.head_dim);
    let rows = segments.iter().filter(|(queries, _)| !queries.is_empty()).map(|(queries, keys)| {
        let q = q.clone().narrow(0, queries.start, queries.len());
        if keys.is_empty() {
            let unseen = Tensor::<2>::full([queries.len(), heads], f32::NEG_INFINITY, &q.device().inner());
            return (q.zeros_like(), unseen.cast(FloatDType::F32));
        }
        let part = |x: &Tensor<3>| {
            let x = x.clone().narrow(0, keys.start, keys.len()).reshape([keys.len(), layout.kv_heads, 1, d]);
            x.permute([1, 2, 0, 3]).expand([layout.kv_heads, layout.q_per_kv, keys.len(), d])
        };
        let q = q.reshape([queries.len(), layout.kv_heads, layout.q_per_kv, d]).permute([1, 2, 0, 3]);
        let (output, lse) = scaled_dot_product(q, part(&k), part(&v), layout, mask);
        let lse = lse.permute([2, 0, 1, 3]).reshape([queries.len(), heads]).cast(FloatDType::F32);
        (output.permute([2, 0, 1, 3]).reshape([queries.len(), heads, d]), lse)
    });
    let (outputs, lses) = rows.unzip();
    (Tensor::cat(outputs, 0), Tensor::cat(lses, 0))
}

/// `q` is `[K, G, T_q, D]`, `k` and `v` are `[K, G, T_k, D]`; the output like `q` and the log-sum-exp `[K, G, T_q, 1]`.
fn scaled_dot_product(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    layout: QkvLayout,
    mask: AttentionMask,
) -> (Tensor<4>, Tensor<4>) {
    let ([groups, g, queries, _], keys) = (q.dims(), k.dims()[2]);
    let device = q.device().inner();
    let hidden: Vec<bool> = (0..queries * keys)
        .map(|place| {
            let position = (place / keys) as isize + keys as isize - queries as isize;
            !mask.sees(position, (place % keys) as isize)
        })
        .collect();
    let hidden = Tensor::<4, Bool>::from_data(TensorData::new(hidden, [1, 1, queries, keys]), &device);
    let scores = q.matmul(k.swap_dims(2, 3)) * layout.scale();
    let scores = scores.mask_fill(hidden.expand([groups, g, queries, keys]), f32::NEG_INFINITY);
    // The shift changes no result, so it needs no gradient; a query that sees nothing has none.
    let maximum = scores.clone().detach().max_dim(3);
    let unseen = maximum.clone().equal_elem(f32::NEG_INFINITY);
    let maximum = maximum.mask_fill(unseen.clone(), 0.0);
    let weights = (scores - maximum.clone()).exp();
    let sum = weights.clone().sum_dim(3).mask_fill(unseen.clone(), 1.0);
    let lse = (sum.clone().log() + maximum).mask_fill(unseen, f32::NEG_INFINITY);
    (weights.matmul(v) / sum, lse)
}
