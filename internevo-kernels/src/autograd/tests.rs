//! The generic function itself: ranks, constants, strategies, ownership.

use super::{Function, HostTensor, Input};
use crate::testing::{Random, gradient, leaf, plain, tracked_devices, values};
use burn::tensor::Tensor;

/// `y = a · (b ⊗ 1)` with a matrix and a vector.
fn scale_rows(a: Tensor<2>, b: Tensor<1>) -> Tensor<2> {
    let (function, [a, b]) = Function::enter([a.into(), b.into()]);
    let (a, b) = (Tensor::<2>::from_dispatch(a), Tensor::<1>::from_dispatch(b));
    let y = a.clone() * b.clone().unsqueeze_dim::<2>(1);
    function.finish(y, move |dy: Tensor<2>, [da, db]| {
        let columns = b.unsqueeze_dim::<2>(1);
        [
            da.then(|| (dy.clone() * columns).into_dispatch()),
            db.then(|| (dy * a).sum_dim(1).squeeze_dim::<1>(1).into_dispatch()),
        ]
    })
}

#[test]
fn inputs_of_different_rank_get_their_gradients_under_both_strategies() {
    let mut random = Random::fresh();
    let (a, b) = (random.values(12), random.values(3));
    for device in tracked_devices() {
        let (x, w) = (leaf(&a, [3, 4], &device), leaf(&b, [3], &device));
        // A function in the middle of a graph of burn operations, its output used twice.
        let y = scale_rows(x.clone() * 2.0, w.clone());
        let gradients = (y.clone() + y.exp()).sum().backward();
        let (x2, w2) = (leaf(&a, [3, 4], &device), leaf(&b, [3], &device));
        let y2 = x2.clone() * 2.0 * w2.clone().unsqueeze_dim::<2>(1);
        let expected = (y2.clone() + y2.exp()).sum().backward();
        for (ours, burns) in
            [(gradient(&x, &gradients), gradient(&x2, &expected)), (gradient(&w, &gradients), gradient(&w2, &expected))]
        {
            assert!(
                ours.iter().zip(&burns).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs().max(1.0)),
                "{ours:?} {burns:?}"
            );
        }
    }
}

#[test]
fn a_plain_tensor_beside_a_tracked_one_is_a_constant() {
    for device in tracked_devices() {
        let x = leaf(&[1.0, 2.0, 3.0, 4.0], [2, 2], &device);
        let gradients = scale_rows(x.clone(), plain(&[10.0, 100.0], [2])).sum().backward();
        assert_eq!(gradient(&x, &gradients), [10.0, 10.0, 100.0, 100.0]);
        let w = leaf(&[1.0, 2.0], [2], &device);
        let gradients = scale_rows(plain(&[1.0, 2.0, 3.0, 4.0], [2, 2]), w.clone()).sum().backward();
        assert_eq!(gradient(&w, &gradients), [3.0, 7.0]);
    }
}

#[test]
fn without_a_tracked_input_nothing_is_recorded() {
    let device = &tracked_devices()[0];
    let constant = Tensor::<1>::from_floats([1.0, 2.0], device);
    let (function, _) = Function::enter([Input::from(constant.clone()), Input::from(plain(&[1.0], [1]))]);
    assert_eq!(function.tracked(), [false, false]);
    let y = scale_rows(plain(&[1.0, 2.0], [2, 1]), constant);
    assert!(y.is_autodiff() && !y.is_tracked());
    assert_eq!(values(y), [1.0, 4.0]);
    assert!(!scale_rows(plain(&[1.0, 2.0], [2, 1]), plain(&[1.0, 2.0], [2])).is_autodiff());
}

#[test]
fn a_host_tensor_writes_in_place_only_when_it_is_the_only_holder() {
    let mut unique = HostTensor::from_vec(vec![1.0, 2.0], [2]);
    let address = unique.as_ptr();
    unique.make_mut()[0] = 5.0;
    assert_eq!(unique.as_ptr(), address);
    let tensor: Tensor<1> = unique.into_tensor();
    let mut shared = HostTensor::new(tensor.clone().into_dispatch());
    assert_eq!(shared.as_ptr(), address);
    shared.make_mut()[0] = 7.0;
    assert_eq!(values(tensor), [5.0, 2.0]);
    assert_eq!(*shared, [7.0, 2.0]);
}

#[test]
fn a_strided_or_windowed_tensor_reads_in_logical_order() {
    let x = plain(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
    assert_eq!(*HostTensor::new(x.clone().transpose().into_dispatch()), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    assert_eq!(*HostTensor::new(x.clone().narrow(0, 1, 1).into_dispatch()), [4.0, 5.0, 6.0]);
    assert_eq!(*HostTensor::new(x.narrow(0, 0, 1).into_dispatch()), [1.0, 2.0, 3.0]);
}
