//! Where a backward pass leaves its gradients, parameter by parameter, and how they travel from there: bucket by bucket, as
//! soon as a bucket is full, while the backward pass goes on.
//!
//! Buckets leave in one order on every rank, from the last to the first, whatever order the gradients come in.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{ZeroConfig, accumulate::GradientAccumulator};
use crate::{
    comm::{Buffer, CommError, Communicator, Pending, ReduceOp},
    groups::ProcessGroups,
    state::{LocalTable, Sharding, StatePlan},
};

/// Reductions of sharded weights' gradients on their way at a time: their buffers are whole weights.
const WEIGHTS_IN_FLIGHT: usize = 2;
/// Buckets on their way at a time where every micro-batch sends them: until its share has landed, a bucket is whole.
const BUCKETS_IN_FLIGHT: usize = 2;

/// One rank's gradients of the present step. Shared with the backward pass, which deposits into it.
pub struct GradientSink {
    table: Arc<LocalTable>,
    sharding: Arc<Sharding>,
    routes: Routes,
    inner: Mutex<Inner>,
}

/// Over which groups gradients are added, and when.
struct Routes {
    groups: ProcessGroups,
    /// Divides buckets among the ranks of the ZeRO group.
    scatters: bool,
    every_micro_batch: bool,
    overlap: bool,
    /// Holds the other shares of sharded weights.
    weight: Option<Arc<dyn Communicator>>,
    /// Where whole copies have only a part of their gradient.
    partial: Vec<Arc<dyn Communicator>>,
}

struct Inner {
    buckets: Vec<Travelling>,
    /// Buckets from here on have left or been added up.
    next: usize,
    last: bool,
    micro_batches: usize,
    weights: VecDeque<(usize, Pending)>,
    /// Gradients of whole copies that have to be added over [`Routes::partial`].
    copies: Vec<f32>,
    failure: Option<CommError>,
}

/// A bucket's gradient.
struct Travelling {
    /// Of the present micro-batch.
    current: Option<Vec<f32>>,
    filled: usize,
    accumulator: GradientAccumulator,
    on_its_way: Option<Pending>,
}

impl GradientSink {
    pub(super) fn new(
        plan: &StatePlan,
        table: Arc<LocalTable>,
        sharding: Arc<Sharding>,
        groups: ProcessGroups,
        config: &ZeroConfig,
    ) -> Self {
        let every_micro_batch = plan.reduces_every_micro_batch();
        let bucket = |b: &crate::state::Bucket| {
            let len = if every_micro_batch { b.share } else { b.padded() };
            let accumulator = GradientAccumulator::new(config.reduction, len);
            Travelling { current: None, filled: 0, accumulator, on_its_way: None }
        };
        let buckets: Vec<_> = sharding.buckets().iter().map(bucket).collect();
        let weight = plan.weight_group(&groups);
        let mut partial = Vec::new();
        if table.complete() < table.total() {
            partial.extend(plan.sequence_group(&groups));
            partial.extend(weight.clone());
        }
        let routes = Routes {
            scatters: plan.shards() > 1,
            overlap: config.overlap_sync_grad,
            every_micro_batch,
            weight,
            partial,
            groups,
        };
        let inner = Inner {
            next: buckets.len(),
            buckets,
            last: false,
            micro_batches: 0,
            weights: VecDeque::new(),
            copies: Vec::new(),
            failure: None,
        };
        Self { table, sharding, routes, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic of the backward pass ends the step; nothing reads what is left here.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a micro-batch. After the `last` one of a step, buckets leave while the backward pass still runs.
    pub fn begin(&self, last: bool) {
        let mut inner = self.lock();
        inner.last = last;
        inner.next = inner.buckets.len();
        inner.micro_batches += 1;
        inner.copies.clear();
        inner.copies.resize(self.table.total() - self.table.complete(), 0.0);
    }

    /// Takes the gradient of parameter `param` in this micro-batch: as many elements as this rank holds of it. Each parameter
    /// is given once per micro-batch; one that is never given has no gradient.
    pub fn deposit(&self, param: usize, gradient: &[f32]) {
        let inner = &mut *self.lock();
        self.put(inner, param, gradient);
        self.send_full_buckets(inner, false);
    }

    /// Takes the gradient of a whole weight that is sharded: adds it over the ranks that share the weight and keeps this
    /// rank's part.
    pub fn deposit_whole(&self, param: usize, mut gradient: Vec<f32>) {
        let inner = &mut *self.lock();
        let local = &self.table.params()[param];
        let group = self.routes.weight.as_ref().expect("only sharded weights are deposited whole");
        gradient.resize(local.len * group.size(), 0.0);
        match group.reduce_scatter(Buffer::F32(gradient), ReduceOp::Sum) {
            Ok(pending) => inner.weights.push_back((param, pending)),
            Err(error) => inner.fail(error),
        }
        while inner.weights.len() > WEIGHTS_IN_FLIGHT {
            self.land_weight(inner);
        }
        self.send_full_buckets(inner, false);
    }

    fn land_weight(&self, inner: &mut Inner) {
        let Some((param, pending)) = inner.weights.pop_front() else { return };
        match pending.wait() {
            Ok(share) => self.put(inner, param, &share.into_f32()),
            Err(error) => inner.fail(error),
        }
    }

    fn put(&self, inner: &mut Inner, param: usize, gradient: &[f32]) {
        let local = &self.table.params()[param];
        if local.partial {
            let start = local.offset - self.table.complete();
            inner.copies[start..start + gradient.len()].copy_from_slice(gradient);
        } else {
            self.put_at(inner, local.offset, gradient, local.len);
        }
    }

    /// Copies `values` to place `offset` of the local vector; `covered` elements count as given.
    fn put_at(&self, inner: &mut Inner, offset: usize, values: &[f32], covered: usize) {
        let buckets = self.sharding.buckets();
        let first = buckets.partition_point(|b| b.range.end <= offset);
        for (bucket, state) in buckets.iter().zip(&mut inner.buckets).skip(first) {
            if bucket.range.start >= offset + covered {
                break;
            }
            let part = overlap(&bucket.range, &(offset..offset + covered));
            let given = overlap(&part, &(offset..offset + values.len()));
            let target = state.current.get_or_insert_with(|| match self.routes.every_micro_batch {
                true => vec![0.0; bucket.padded()],
                false => state.accumulator.buffer(),
            });
            if !given.is_empty() {
                target[given.start - bucket.range.start..given.end - bucket.range.start]
                    .copy_from_slice(&values[given.start - offset..given.end - offset]);
            }
            state.filled += part.len();
        }
    }

    /// Closes full buckets, from the last to the first; all that are left with `all`.
    fn send_full_buckets(&self, inner: &mut Inner, all: bool) {
        while inner.next > 0 {
            let index = inner.next - 1;
            let bucket = &self.sharding.buckets()[index];
            if !all && inner.buckets[index].filled < bucket.range.len() {
                return;
            }
            inner.next = index;
            let last = inner.last && self.routes.overlap;
            let mut closed = self.close(&mut inner.buckets[index], index, last);
            if let Some(earlier) = inner.buckets.get_mut(index + BUCKETS_IN_FLIGHT)
                && self.routes.every_micro_batch
            {
                closed = closed.and_then(|()| self.land(earlier));
            }
            if let Err(error) = closed {
                inner.fail(error);
            }
        }
    }

    /// A bucket has this micro-batch's gradients: adds them up or sends them off.
    fn close(&self, state: &mut Travelling, index: usize, last: bool) -> Result<(), CommError> {
        let bucket = &self.sharding.buckets()[index];
        let current = state.current.take().unwrap_or_else(|| vec![0.0; bucket.padded()]);
        state.filled = 0;
        if self.routes.every_micro_batch {
            self.land(state)?;
            state.on_its_way = Some(self.routes.groups.zero1.reduce_scatter(Buffer::F32(current), ReduceOp::Sum)?);
            return Ok(());
        }
        state.accumulator.push(current);
        if last {
            let sum = state.accumulator.finish().expect("pushed above");
            state.on_its_way = Some(self.routes.post(sum)?);
        }
        Ok(())
    }

    /// Adds up what has come of a bucket that is on its way, if it is.
    fn land(&self, state: &mut Travelling) -> Result<(), CommError> {
        let Some(pending) = state.on_its_way.take() else { return Ok(()) };
        let mut landed = pending.wait()?.into_f32();
        if self.routes.every_micro_batch {
            // It may be the beginning of a whole bucket's memory, which is not to be kept.
            let mut share = state.accumulator.buffer();
            share.copy_from_slice(&landed);
            landed = share;
        }
        state.accumulator.push(landed);
        Ok(())
    }

    /// Ends a micro-batch. Collective over the groups whose ranks share weights or sequences.
    ///
    /// # Errors
    /// A failed world, also when it failed during the backward pass.
    pub fn end(&self) -> Result<(), CommError> {
        let inner = &mut *self.lock();
        while !inner.weights.is_empty() {
            self.land_weight(inner);
        }
        if inner.failure.is_none() && !inner.copies.is_empty() {
            let mut copies = std::mem::take(&mut inner.copies);
            for group in &self.routes.partial {
                copies = group.all_reduce(Buffer::F32(copies), ReduceOp::Sum)?.wait()?.into_f32();
            }
            self.put_at(inner, self.table.complete(), &copies, copies.len());
            inner.copies = copies;
        }
        self.send_full_buckets(inner, true);
        inner.failure.take().map_or(Ok(()), Err)
    }

    /// Takes the gradients of one micro-batch from a flat vector in the order of the local vector.
    pub(super) fn deposit_flat(&self, flat: &[f32]) -> Result<(), CommError> {
        self.begin(false);
        for param in 0..self.table.params().len() {
            let range = self.table.params()[param].range();
            self.deposit(param, &flat[range]);
        }
        self.end()
    }

    /// The gradient of this rank's shard, summed over micro-batches and ranks; `None` when there was no micro-batch since the
    /// last call.
    pub(super) fn collect(&self) -> Result<Option<Vec<f32>>, CommError> {
        let inner = &mut *self.lock();
        if std::mem::take(&mut inner.micro_batches) == 0 {
            return Ok(None);
        }
        let filled = "a micro-batch has filled every bucket";
        for state in inner.buckets.iter_mut().rev() {
            if state.on_its_way.is_none() && !self.routes.every_micro_batch {
                state.on_its_way = Some(self.routes.post(state.accumulator.finish().expect(filled))?);
            }
        }
        let mut shares = Vec::with_capacity(inner.buckets.len());
        for state in inner.buckets.iter_mut().rev() {
            self.land(state)?;
            shares.push(self.routes.over_replicas(state.accumulator.finish().expect(filled))?);
        }
        shares.reverse();
        Ok(Some(if shares.len() == 1 { shares.swap_remove(0) } else { self.join(inner, shares) }))
    }

    /// Puts shares one after the other; the memory of whole buckets is kept.
    fn join(&self, inner: &mut Inner, shares: Vec<Vec<f32>>) -> Vec<f32> {
        let mut shard = Vec::with_capacity(self.sharding.shard_len());
        for (share, state) in shares.into_iter().zip(&mut inner.buckets) {
            shard.extend_from_slice(&share);
            state.accumulator.recycle(share);
        }
        shard
    }

    /// Gives back the memory of a gradient that [`GradientSink::collect`] returned.
    pub(super) fn recycle(&self, shard: Vec<f32>) {
        let inner = &mut *self.lock();
        if let [only] = inner.buckets.as_mut_slice() {
            only.accumulator.recycle(shard);
        }
    }
}

impl Inner {
    /// Remembers the first failure: a backward pass cannot return one.
    fn fail(&mut self, error: CommError) {
        self.failure.get_or_insert(error);
    }
}

impl Routes {
    /// Sums a bucket: a reduce-scatter within the ZeRO group, or an all-reduce over all that hold the same elements.
    fn post(&self, sum: Vec<f32>) -> Result<Pending, CommError> {
        let sum = Buffer::F32(sum);
        match (self.scatters, self.groups.zero1_replica.size()) {
            (true, _) => self.groups.zero1.reduce_scatter(sum, ReduceOp::Sum),
            (false, 1) => Ok(Pending::ready(sum)),
            (false, _) => self.groups.zero1_replica.all_reduce(sum, ReduceOp::Sum),
        }
    }

    /// The sum of a share over ZeRO groups.
    fn over_replicas(&self, share: Vec<f32>) -> Result<Vec<f32>, CommError> {
        let replicas = &self.groups.zero1_replica;
        if !self.scatters || replicas.size() == 1 {
            return Ok(share);
        }
        Ok(replicas.all_reduce(Buffer::F32(share), ReduceOp::Sum)?.wait()?.into_f32())
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}
