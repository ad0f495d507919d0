//! Moving flat vectors between ranks bucket by bucket: gradients are summed onto the rank that owns the shard, updated
//! parameters go back to everyone. The next bucket is packed while the one before is on its way; a vector that fits one
//! bucket travels as it is, without a copy.

use std::{collections::VecDeque, ops::Range};

use crate::{
    comm::{Buffer, CommError, Communicator, Pending, ReduceOp},
    groups::ProcessGroups,
    state::Sharding,
};

/// Buckets on their way at a time: one travels while the next is packed.
const IN_FLIGHT: usize = 2;

/// Buckets of at most a number of bytes, with their memory.
#[derive(Debug)]
pub(super) struct Buckets {
    bytes: usize,
    spare: Vec<Vec<f32>>,
}

impl Buckets {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, spare: Vec::new() }
    }

    /// Whether the whole padded vector is one bucket.
    pub(super) fn one_holds_all(&self, sharding: Sharding) -> bool {
        sharding.padded_len() * size_of::<f32>() <= self.bytes
    }

    /// Ranges of a shard such that all shards' ranges together make one bucket.
    fn ranges(&self, sharding: Sharding) -> impl Iterator<Item = Range<usize>> + use<> {
        let len = (self.bytes / size_of::<f32>() / sharding.parts).max(1);
        (0..sharding.shard_len).step_by(len).map(move |start| start..(start + len).min(sharding.shard_len))
    }

    /// A bucket with `range` of every shard of `flat`, shard after shard.
    fn pack(&mut self, flat: &[f32], range: &Range<usize>, sharding: Sharding) -> Buffer {
        let mut bucket = self.spare.pop().unwrap_or_default();
        bucket.clear();
        for part in 0..sharding.parts {
            let start = part * sharding.shard_len;
            bucket.extend_from_slice(&flat[start + range.start..start + range.end]);
        }
        Buffer::F32(bucket)
    }

    /// Sums `gradient` (padded, full length) over the data-parallel group into this rank's `shard`.
    pub(super) fn reduce_to_shard(
        &mut self,
        gradient: &[f32],
        shard: &mut [f32],
        groups: &ProcessGroups,
        sharding: Sharding,
    ) -> Result<(), CommError> {
        let mut travelling = VecDeque::with_capacity(IN_FLIGHT);
        for range in self.ranges(sharding) {
            let bucket = self.pack(gradient, &range, sharding);
            travelling.push_back((range, post_sum(bucket, groups)?));
            if travelling.len() == IN_FLIGHT {
                self.land(travelling.pop_front(), shard, groups)?;
            }
        }
        while !travelling.is_empty() {
            self.land(travelling.pop_front(), shard, groups)?;
        }
        Ok(())
    }

    fn land(
        &mut self,
        bucket: Option<(Range<usize>, Pending)>,
        shard: &mut [f32],
        groups: &ProcessGroups,
    ) -> Result<(), CommError> {
        if let Some((range, pending)) = bucket {
            let sum = finish_sum(pending, groups)?;
            shard[range].copy_from_slice(&sum);
            self.spare.push(sum);
        }
        Ok(())
    }

    /// Replaces every shard of `params` (padded, full length) by its owner's values.
    pub(super) fn gather_shards(
        &mut self,
        params: &mut Vec<f32>,
        zero1: &dyn Communicator,
        sharding: Sharding,
    ) -> Result<(), CommError> {
        if sharding.parts == 1 {
            return Ok(());
        }
        if self.one_holds_all(sharding) {
            let whole = Buffer::F32(std::mem::take(params));
            let gathered = zero1.all_gather_in_place(whole).and_then(Pending::wait);
            // After a failure the values are gone with the world; nobody shall train on leftovers.
            let (values, result) = match gathered {
                Ok(buffer) => (buffer.into_f32(), Ok(())),
                Err(error) => (vec![f32::NAN; sharding.padded_len()], Err(error)),
            };
            *params = values;
            return result;
        }
        let mut travelling: VecDeque<(Range<usize>, Pending)> = VecDeque::with_capacity(IN_FLIGHT);
        for range in self.ranges(sharding) {
            let bucket = self.pack(params, &range, sharding);
            travelling.push_back((range, zero1.all_gather_in_place(bucket)?));
            if travelling.len() == IN_FLIGHT {
                self.unpack(travelling.pop_front(), params, sharding)?;
            }
        }
        while !travelling.is_empty() {
            self.unpack(travelling.pop_front(), params, sharding)?;
        }
        Ok(())
    }

    fn unpack(
        &mut self,
        bucket: Option<(Range<usize>, Pending)>,
        params: &mut [f32],
        sharding: Sharding,
    ) -> Result<(), CommError> {
        if let Some((range, pending)) = bucket {
            let all = pending.wait()?.into_f32();
            for (part, values) in all.chunks_exact(range.len()).enumerate() {
                let start = part * sharding.shard_len;
                params[start + range.start..start + range.end].copy_from_slice(values);
            }
            self.spare.push(all);
        }
        Ok(())
    }
}

/// Sums a gradient that is one bucket; returns this rank's shard in the same memory.
pub(super) fn reduce_whole(gradient: Vec<f32>, groups: &ProcessGroups) -> Result<Vec<f32>, CommError> {
    finish_sum(post_sum(Buffer::F32(gradient), groups)?, groups)
}

/// A reduce-scatter within the ZeRO group, then an all-reduce over the groups; with `zero1.size` 1 a plain all-reduce.
fn post_sum(bucket: Buffer, groups: &ProcessGroups) -> Result<Pending, CommError> {
    match groups.zero1.size() {
        1 => groups.zero1_replica.all_reduce(bucket, ReduceOp::Sum),
        _ => groups.zero1.reduce_scatter(bucket, ReduceOp::Sum),
    }
}

fn finish_sum(pending: Pending, groups: &ProcessGroups) -> Result<Vec<f32>, CommError> {
    let mut sum = pending.wait()?;
    if groups.zero1.size() > 1 && groups.zero1_replica.size() > 1 {
        sum = groups.zero1_replica.all_reduce(sum, ReduceOp::Sum)?.wait()?;
    }
    Ok(sum.into_f32())
}
