//! Flash attention forward and backward on burn tensors: two packed documents, eight query heads that share two key/value heads.

use internevo_kernels::burn::tensor::{Device, Distribution, Tensor};
use internevo_kernels::{
    KernelSet,
    attention::{AttentionMask, Segments, flash_attention},
};

fn main() {
    let device = Device::flex().autodiff();
    let random = |heads| Tensor::<3>::random([300, heads, 64], Distribution::Default, &device).require_grad();
    let (q, k, v) = (random(8), random(2), random(2));
    let documents = Segments::packed(&[0, 180, 300]);
    let (output, _) =
        flash_attention(KernelSet::Fused, q.clone(), k.clone(), v.clone(), &documents, AttentionMask::default());
    let gradients = output.clone().sum().backward();
    let [dq, dk, dv] = [q, k, v].map(|x| x.grad(&gradients).expect("a gradient for each input").dims());
    println!("output {:?}, dq {dq:?}, dk {dk:?}, dv {dv:?}", output.dims());
}
