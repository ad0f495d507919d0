//! Recomputation against the plain tape: bits, weights, nesting, what stays alive.

use super::{Recording, deliver, recompute};
use crate::KernelSet::Fused;
use crate::autograd::{Function, HostTensor};
use crate::linear;
use crate::testing::*;
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};
use std::sync::{Arc, Mutex};

const WIDTH: usize = 12;
const TOKENS: usize = 7;

/// Gradients in the order in which they were delivered, each with the index of its weight.
type Delivered = Arc<Mutex<Vec<(usize, Vec<f32>)>>>;

fn block(x: Tensor<2>, [up, down]: [Tensor<2>; 2]) -> Tensor<2> {
    x.clone() + linear(Fused, silu(linear(Fused, x, up)), down)
}

/// Weights of three blocks.
fn weights(random: &mut Random, device: &Device) -> Vec<Tensor<2>> {
    (0..6).map(|_| leaf(&random.values(WIDTH * WIDTH), [WIDTH; 2], device)).collect()
}

/// Block `index` with weights that are delivered to `delivered`.
fn delivered_block(
    weights: &[Tensor<2>],
    index: usize,
    delivered: &Delivered,
) -> impl Fn(Tensor<2>, Recording) -> Tensor<2> + Send + 'static {
    let (weights, delivered) = ([weights[2 * index].clone(), weights[2 * index + 1].clone()], delivered.clone());
    move |x, recording| {
        let weights = std::array::from_fn(|i| {
            let delivered = delivered.clone();
            deliver(recording.of(weights[i].clone()), None, move |gradient: HostTensor| {
                delivered.lock().unwrap().push((2 * index + i, gradient.to_vec()));
            })
        });
        block(x, weights)
    }
}

/// Output and gradient of the input on the plain tape, and the gradients of the weights by index.
fn on_the_plain_tape(x: &Tensor<2>, weights: &[Tensor<2>], dy: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<Vec<f32>>) {
    let y = weights.chunks_exact(2).fold(x.clone(), |x, pair| block(x, [pair[0].clone(), pair[1].clone()]));
    let gradients = backward_with(y.clone(), dy);
    (values(y), gradient(x, &gradients), weights.iter().map(|weight| gradient(weight, &gradients)).collect())
}

#[test]
fn recomputed_blocks_nested_or_not_give_the_bits_of_the_plain_tape_and_deliver_in_one_order() {
    let mut random = Random::fresh();
    for device in tracked_devices() {
        let (x, weights) =
            (leaf(&random.values(TOKENS * WIDTH), [TOKENS, WIDTH], &device), weights(&mut random, &device));
        let dy = random.values(TOKENS * WIDTH);
        let (y, dx, dw) = on_the_plain_tape(&x, &weights, &dy);
        let mut orders = Vec::new();
        for nested in [false, false, true] {
            let delivered = Delivered::default();
            let blocks = [0, 1, 2].map(|index| delivered_block(&weights, index, &delivered));
            let [first, second, third] = blocks;
            let out = match nested {
                false => recompute(recompute(recompute(x.clone(), first), second), third),
                true => {
                    let third = Arc::new(Mutex::new(third));
                    recompute(x.clone(), move |x, recording| {
                        let third = third.clone();
                        let x = second(first(x, recording), recording);
                        recompute(x, move |x, recording| (third.lock().unwrap())(x, recording))
                    })
                }
            };
            assert!(bits(&values(out.clone())) == bits(&y), "output, nested: {nested}");
            let gradients = backward_with(out, &dy);
            assert!(bits(&gradient(&x, &gradients)) == bits(&dx), "gradient of the input, nested: {nested}");
            let delivered = delivered.lock().unwrap();
            for (index, gradient) in delivered.iter() {
                assert!(bits(gradient) == bits(&dw[*index]), "gradient of weight {index}, nested: {nested}");
            }
            orders.push(delivered.iter().map(|(index, _)| *index).collect::<Vec<_>>());
            assert!(weights.iter().all(|weight| weight.grad(&gradients).is_none()));
        }
        assert_eq!(orders[0], orders[1]);
        // Last block first: its backward is complete before that of the block before it begins.
        assert_eq!(orders[0].iter().map(|index| index / 2).collect::<Vec<_>>(), [2, 2, 1, 1, 0, 0]);
        assert_eq!(orders[2].len(), 6);
    }
}

#[test]
fn weights_get_their_gradients_even_if_the_input_is_a_constant() {
    let mut random = Random::fresh();
    for device in tracked_devices() {
        let (x, weights) = (random.values(TOKENS * WIDTH), weights(&mut random, &device));
        let dy = random.values(TOKENS * WIDTH);
        let (_, _, dw) = on_the_plain_tape(&leaf(&x, [TOKENS, WIDTH], &device), &weights[..2], &dy);
        let delivered = Delivered::default();
        let constant = leaf(&x, [TOKENS, WIDTH], &device).set_require_grad(false);
        assert!(!constant.is_tracked());
        backward_with(recompute(constant, delivered_block(&weights, 0, &delivered)), &dy);
        let delivered = delivered.lock().unwrap();
        assert_eq!(delivered.len(), 2);
        assert!(delivered.iter().all(|(index, gradient)| bits(gradient) == bits(&dw[*index])));
    }
}

#[test]
fn a_weight_may_be_used_on_the_outer_tape_and_inside() {
    let mut random = Random::fresh();
    let device = &tracked_devices()[0];
    let (x, weights) = (leaf(&random.values(TOKENS * WIDTH), [TOKENS, WIDTH], device), weights(&mut random, device));
    let delivered = Delivered::default();
    let outer = linear(Fused, x.clone(), weights[0].clone());
    let gradients = recompute(outer, delivered_block(&weights, 0, &delivered)).sum().backward();
    let tied = linear(Fused, x, weights[0].clone());
    let expected = block(tied, [weights[0].clone(), weights[1].clone()]).sum().backward();
    let inside = delivered.lock().unwrap().iter().find(|(index, _)| *index == 0).unwrap().1.clone();
    let both: Vec<f32> = gradient(&weights[0], &gradients).iter().zip(&inside).map(|(a, b)| a + b).collect();
    assert_close("gradient of both uses", &both, &wide(&gradient(&weights[0], &expected)));
}

/// The identity, whose backward holds `token`: as many are alive as the tape has saved states.
fn holding(x: Tensor<2>, token: &Arc<()>) -> Tensor<2> {
    let (function, [x]) = Function::enter([x.into()]);
    let saved = function.tracked()[0].then(|| token.clone());
    function.finish(Tensor::<2>::from_dispatch(x), move |dy: Tensor<2>, _| {
        drop(saved);
        [Some(dy.into_dispatch())]
    })
}

#[test]
fn nothing_saved_inside_lives_between_forward_and_backward() {
    let (token, device) = (Arc::new(()), &tracked_devices()[0]);
    let x = leaf(&[1.0; 6], [2, 3], device);
    let plain = holding(holding(x.clone(), &token), &token);
    assert_eq!(Arc::strong_count(&token), 3);
    drop(plain.sum().backward());
    assert_eq!(Arc::strong_count(&token), 1);
    let (inside, most) = (token.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = most.clone();
    let y = recompute(x.clone(), move |x, recording| {
        let y = holding(holding(x, &inside), &inside);
        seen.lock().unwrap().push((recording, Arc::strong_count(&inside)));
        y
    });
    assert_eq!(Arc::strong_count(&token), 2, "only the function itself holds the token");
    let gradients = y.sum().backward();
    assert_eq!(gradient(&x, &gradients), [1.0; 6]);
    assert_eq!(*most.lock().unwrap(), [(Recording::Off, 2), (Recording::On, 4)]);
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn without_autodiff_the_function_runs_once_and_nothing_is_recorded() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let seen = runs.clone();
    let y = recompute(plain(&[1.0, 2.0], [1, 2]), move |x, recording| {
        seen.lock().unwrap().push(recording);
        x * 3.0
    });
    assert!(!y.is_autodiff());
    assert_eq!((values(y), runs.lock().unwrap().as_slice()), (vec![3.0, 6.0], [Recording::Off].as_slice()));
}

#[test]
fn a_function_that_ignores_its_input_gives_it_a_zero_gradient() {
    let x = leaf(&[1.0, 2.0], [1, 2], &tracked_devices()[0]);
    let y = recompute(x.clone(), |_, _| plain(&[5.0, 6.0], [1, 2]));
    assert_eq!(gradient(&x, &y.sum().backward()), [0.0, 0.0]);
}

#[test]
fn delivery_shares_the_buffer_sums_all_uses_and_leaves_the_leaf_empty() {
    for device in tracked_devices() {
        let (weight, delivered) = (leaf(&[2.0, 3.0], [2], &device), Arc::new(Mutex::new(Vec::new())));
        let sink = delivered.clone();
        let through = deliver(weight.clone(), None, move |gradient| sink.lock().unwrap().push(gradient.to_vec()));
        let address = |tensor: &Tensor<1>| HostTensor::new(tensor.clone().without_autodiff().into_dispatch()).as_ptr();
        assert_eq!(address(&through), address(&weight));
        let gradients = (through.clone() * through.clone() + through).sum().backward();
        assert_eq!(*delivered.lock().unwrap(), [[5.0, 7.0]]);
        assert!(weight.grad(&gradients).is_none());
    }
}

#[test]
fn an_untracked_weight_is_passed_through_and_its_sink_never_runs() {
    let x = leaf(&[1.0], [1], &tracked_devices()[0]);
    let weight = deliver(plain(&[4.0], [1]), None, |_| panic!("no gradient is made for a constant"));
    assert_eq!(gradient(&x, &(x.clone() * weight).sum().backward()), [4.0]);
}
