//! How a local vector is divided among the ranks of a ZeRO group: bucket by bucket, so that a bucket can travel as soon as its
//! gradients are there and every rank owns a part of each.

use std::ops::Range;

/// A contiguous part of the local vector that travels as one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Elements of the local vector.
    pub range: Range<usize>,
    /// Elements of each share; the last shares may reach beyond the bucket.
    pub share: usize,
    parts: usize,
}

impl Bucket {
    /// Elements with padding: `parts` equal shares.
    pub fn padded(&self) -> usize {
        self.share * self.parts
    }

    /// The elements of the local vector that `part` owns.
    pub fn own(&self, part: usize) -> Range<usize> {
        let cut = |i: usize| (self.range.start + i * self.share).min(self.range.end);
        cut(part)..cut(part + 1)
    }
}

/// All buckets of a local vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharding {
    parts: usize,
    buckets: Vec<Bucket>,
    starts: Vec<usize>,
    shard_len: usize,
}

impl Sharding {
    /// Cuts `total` elements into buckets of at most `bucket_len` (at least one element) that do not cross `border`, and each
    /// bucket into `parts` shares.
    pub fn new(total: usize, border: usize, bucket_len: usize, parts: usize) -> Self {
        let bucket_len = bucket_len.max(1);
        let mut buckets = Vec::new();
        for region in [0..border.min(total), border.min(total)..total] {
            let mut at = region.start;
            while at < region.end {
                let end = (at + bucket_len).min(region.end);
                buckets.push(Bucket { range: at..end, share: (end - at).div_ceil(parts), parts });
                at = end;
            }
        }
        let starts = buckets.iter().scan(0, |sum, b| Some(std::mem::replace(sum, *sum + b.share))).collect();
        let shard_len = buckets.iter().map(|b| b.share).sum();
        Self { parts, buckets, starts, shard_len }
    }

    /// Shares of each bucket.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// The buckets, in the order of the local vector.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Where each bucket's share begins in a shard.
    pub fn starts(&self) -> impl Iterator<Item = usize> + '_ {
        self.starts.iter().copied()
    }

    /// The place of a bucket's share in a shard.
    pub fn place(&self, bucket: usize) -> Range<usize> {
        let start = self.starts[bucket];
        start..start + self.buckets[bucket].share
    }

    /// Elements of a shard, padding included; the same for every part.
    pub fn shard_len(&self) -> usize {
        self.shard_len
    }
}
