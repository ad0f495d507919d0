//! Collectives that a tape can differentiate. Activations are `[rows, width]`, f32, row-major; each pair is the other's backward
//! (Megatron-LM, arXiv 1909.08053, and its sequence parallelism, arXiv 2205.05198).
//!
//! | forward | backward | function |
//! |---|---|---|
//! | identity | all-reduce | [`copy_to_ranks`] |
//! | all-reduce | identity | [`reduce_from_ranks`] |
//! | all-gather of rows | reduce-scatter of rows | [`gather_rows`] |
//! | reduce-scatter of rows | all-gather of rows | [`scatter_rows`] |
//! | all-gather of columns | own columns | [`gather_columns`] |
//! | columns of all rows → all columns of own rows | the reverse | [`columns_to_rows`] |

use std::sync::{Arc, Mutex, PoisonError};

use internevo_kernels::{
    Recall,
    autograd::{Function, HostTensor},
    burn::tensor::Tensor,
};

use crate::{
    comm::{Buffer, CommError, Communicator, Counts, Pending, ReduceOp},
    strategy::failed,
};

type Group = Arc<dyn Communicator>;

/// A map of `[rows, width]` to `shape` with a backward of its own.
pub(crate) fn differentiable(
    x: Tensor<2>,
    shape: [usize; 2],
    forward: impl FnOnce(HostTensor) -> Vec<f32>,
    backward: impl FnOnce(HostTensor) -> Vec<f32> + Send + 'static,
) -> Tensor<2> {
    let input = x.dims();
    let (function, [x]) = Function::enter([x.into()]);
    let y = HostTensor::from_vec(forward(HostTensor::new(x)), shape);
    function.finish(y.into_tensor(), move |dy: Tensor<2>, [needed]| {
        let dx = |dy: Tensor<2>| HostTensor::from_vec(backward(HostTensor::new(dy.into_dispatch())), input);
        [needed.then(|| dx(dy).into_dispatch())]
    })
}

/// The elements of a matrix, without a copy where nobody else holds them.
pub(crate) fn into_vec(matrix: HostTensor) -> Vec<f32> {
    matrix.into_tensor::<2>().into_data().try_into_vec().expect("a host tensor holds f32")
}

pub(crate) fn waited(posted: Result<Pending, CommError>) -> Vec<f32> {
    match posted.and_then(Pending::wait) {
        Ok(buffer) => buffer.into_f32(),
        Err(error) => failed(error),
    }
}

fn all_reduce(x: HostTensor, group: &Group) -> Vec<f32> {
    waited(group.all_reduce(Buffer::F32(into_vec(x)), ReduceOp::Sum))
}

fn all_gather(x: HostTensor, group: &Group) -> Vec<f32> {
    waited(group.all_gather(Buffer::F32(into_vec(x))))
}

fn reduce_scatter(x: HostTensor, group: &Group) -> Vec<f32> {
    let mut own = waited(group.reduce_scatter(Buffer::F32(into_vec(x)), ReduceOp::Sum));
    // It may be the beginning of everyone's memory, which the tape is not to keep.
    own.shrink_to_fit();
    own
}

/// `x`, equal on all ranks and used differently by each: the backward adds their gradients.
pub fn copy_to_ranks(x: Tensor<2>, group: &Group) -> Tensor<2> {
    let group = group.clone();
    let (function, [x]) = Function::enter([x.into()]);
    let y = Tensor::<2>::from_dispatch(x);
    let shape = y.dims();
    function.finish(y, move |dy: Tensor<2>, [needed]| {
        let dx = |dy: Tensor<2>| HostTensor::from_vec(all_reduce(HostTensor::new(dy.into_dispatch()), &group), shape);
        [needed.then(|| dx(dy).into_dispatch())]
    })
}

/// The sum of all ranks' `x`, on every rank.
pub fn reduce_from_ranks(x: Tensor<2>, group: &Group) -> Tensor<2> {
    let shape = x.dims();
    let (function, [x]) = Function::enter([x.into()]);
    let y = HostTensor::from_vec(all_reduce(HostTensor::new(x), group), shape);
    function.finish(y.into_tensor(), |dy: Tensor<2>, [needed]| [needed.then(|| dy.into_dispatch())])
}

/// The rows of all ranks, in rank order.
pub fn gather_rows(x: Tensor<2>, group: &Group) -> Tensor<2> {
    let ([rows, width], backward) = (x.dims(), group.clone());
    let shape = [rows * group.size(), width];
    differentiable(x, shape, |x| all_gather(x, group), move |dy| reduce_scatter(dy, &backward))
}

/// [`gather_rows`], and a way to gather the same rows once more. Two users of what is recalled share one gathering.
pub fn gather_rows_again(x: Tensor<2>, group: &Group) -> (Tensor<2>, Recall) {
    let [rows, width] = x.dims();
    let own = HostTensor::new(x.clone().without_autodiff().into_dispatch());
    let (kept, again) = (Mutex::new(None::<HostTensor>), group.clone());
    let recall: Recall = Arc::new(move || {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take().unwrap_or_else(|| {
            let gathered = HostTensor::from_vec(all_gather(own.clone(), &again), [rows * again.size(), width]);
            *kept = Some(gathered.clone());
            gathered
        })
    });
    (gather_rows(x, group), recall)
}

/// The sum of all ranks' `x`, of which each rank keeps its share of the rows.
pub fn scatter_rows(x: Tensor<2>, group: &Group) -> Tensor<2> {
    let ([rows, width], backward) = (x.dims(), group.clone());
    let shape = [rows / group.size(), width];
    differentiable(x, shape, |x| reduce_scatter(x, group), move |dy| all_gather(dy, &backward))
}

/// The columns of all ranks side by side; every rank goes on alike, so the backward takes its own columns. `widths` are the
/// columns of each rank.
pub fn gather_columns(x: Tensor<2>, widths: &[usize], group: &Group) -> Tensor<2> {
    let ([rows, own], total) = (x.dims(), widths.iter().sum::<usize>());
    let (rank, first) = (group.rank(), widths[..group.rank()].iter().sum::<usize>());
    assert_eq!(own, widths[rank], "columns of this rank");
    let forward = |x: HostTensor| {
        let receive = widths.iter().map(|width| rows * width).collect();
        let counts = Counts { send: vec![rows * own; widths.len()], receive };
        let received = waited(group.all_to_all_v(Buffer::F32(x.repeat(widths.len())), &counts));
        side_by_side(&received, widths, rows)
    };
    let backward =
        move |dy: HostTensor| dy.chunks_exact(total).flat_map(|row| &row[first..first + own]).copied().collect();
    differentiable(x, [rows, total], forward, backward)
}

/// From some columns of all rows to all columns of some rows; `widths` as in [`gather_columns`], rows are divided equally.
pub fn columns_to_rows(x: Tensor<2>, widths: &[usize], group: &Group) -> Tensor<2> {
    let ([rows, own], total) = (x.dims(), widths.iter().sum::<usize>());
    let share = rows / group.size();
    assert!(rows.is_multiple_of(group.size()), "{rows} rows on {} ranks", group.size());
    let by_rows = Counts { send: vec![share * own; widths.len()], receive: widths.iter().map(|w| share * w).collect() };
    let back = Counts { send: by_rows.receive.clone(), receive: by_rows.send.clone() };
    let forward =
        |x: HostTensor| side_by_side(&waited(group.all_to_all_v(Buffer::F32(into_vec(x)), &by_rows)), widths, share);
    let (own_widths, group_back) = (widths.to_vec(), group.clone());
    let backward = move |dy: HostTensor| {
        waited(group_back.all_to_all_v(Buffer::F32(one_after_the_other(&dy, &own_widths)), &back))
    };
    differentiable(x, [share, total], forward, backward)
}

/// Blocks of `rows` rows and different widths, one after the other, as columns of one matrix.
fn side_by_side(blocks: &[f32], widths: &[usize], rows: usize) -> Vec<f32> {
    let total: usize = widths.iter().sum();
    let mut joined = vec![0.0; rows * total];
    let (mut column, mut start) = (0, 0);
    for width in widths {
        let block = &blocks[start..start + rows * width];
        for (row, target) in joined.chunks_exact_mut(total.max(1)).enumerate() {
            target[column..column + width].copy_from_slice(&block[row * width..(row + 1) * width]);
        }
        (column, start) = (column + width, start + rows * width);
    }
    joined
}

/// The reverse of [`side_by_side`].
fn one_after_the_other(joined: &[f32], widths: &[usize]) -> Vec<f32> {
    let total: usize = widths.iter().sum();
    let mut blocks = Vec::with_capacity(joined.len());
    let mut column = 0;
    for width in widths {
        blocks.extend(joined.chunks_exact(total.max(1)).flat_map(|row| &row[column..column + width]));
        column += width;
    }
    blocks
}
