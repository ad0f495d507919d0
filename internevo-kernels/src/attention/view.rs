//! What attention works on, for every kernel on every processor: where heads lie in a buffer, which tokens form a segment,
//! which keys of its segment a query sees. Arithmetic only.

use super::QkvLayout;
use std::ops::Range;

/// Farther than any position, and far from the limits of `isize`: a side of a query's view that has no bound.
const UNBOUNDED: isize = isize::MAX / 4;

/// Heads of queries, keys, values or outputs as a strided view of a buffer, so that a fused `qkv` and separate tensors are
/// the same to a kernel: the `head_dim` adjacent elements of head `g` in group `k`, row `t`, begin at
/// `offset + t · row_stride + k · group_stride + g · head_stride`.
///
/// Query heads of a group share its key/value head; keys and values have one head a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads<D> {
    /// The buffer, or what stands for it: a slice, a device handle.
    pub data: D,
    /// First element of row 0, group 0, head 0.
    pub offset: usize,
    /// Elements from one token to the next.
    pub row_stride: usize,
    /// Elements from one group to the next.
    pub group_stride: usize,
    /// Elements from one query head of a group to the next.
    pub head_stride: usize,
}

impl<D> Heads<D> {
    /// Index of the first element of a head.
    pub fn at(&self, row: usize, group: usize, head: usize) -> usize {
        self.offset + row * self.row_stride + group * self.group_stride + head * self.head_stride
    }

    /// The same places in another buffer.
    pub fn on<E>(&self, data: E) -> Heads<E> {
        let Self { offset, row_stride, group_stride, head_stride, .. } = *self;
        Heads { data, offset, row_stride, group_stride, head_stride }
    }
}

impl QkvLayout {
    /// Queries, keys and values in a fused, interleaved `[T, (H + 2K) · D]`.
    pub fn interleaved(&self) -> [Heads<()>; 3] {
        let (d, slots) = (self.head_dim, self.q_per_kv + 2);
        let slot = |slot: usize| Heads {
            data: (),
            offset: slot * d,
            row_stride: self.qkv_width(),
            group_stride: slots * d,
            head_stride: d,
        };
        [slot(0), slot(self.q_per_kv), slot(self.q_per_kv + 1)]
    }

    /// Queries `[T_q, H, D]`, keys and values `[T_k, K, D]` in buffers of their own. An output lies as the queries do.
    pub fn separate(&self) -> [Heads<()>; 3] {
        let d = self.head_dim;
        let rows = |heads: usize| Heads {
            data: (),
            offset: 0,
            row_stride: self.kv_heads * heads * d,
            group_stride: heads * d,
            head_stride: d,
        };
        [rows(self.q_per_kv), rows(1), rows(1)]
    }
}

/// Which keys of its segment a query sees, by position. Positions are the keys' own; where a segment has other numbers of
/// queries and keys, the last query stands at the last key (FlashAttention 2.1 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionMask {
    /// A query sees no key after its own position.
    pub causal: bool,
    /// How many keys back, its own included, a query sees (Mistral's sliding window; `window_size = (window - 1, …)` of
    /// FlashAttention). Without `causal` as many forward, its own included. `None`: all.
    pub window: Option<usize>,
}

impl Default for AttentionMask {
    /// Causal, without a window.
    fn default() -> Self {
        Self { causal: true, window: None }
    }
}

impl AttentionMask {
    /// Every query sees every key of its segment.
    pub const FULL: Self = Self { causal: false, window: None };

    /// Causal, and no farther back than `window` keys, a query's own included.
    ///
    /// # Panics
    /// If the window is 0.
    pub fn sliding(window: usize) -> Self {
        let mask = Self { causal: true, window: Some(window) };
        mask.check();
        mask
    }

    /// Whether the query at position `query` sees the key at `key`. The definition; kernels use [`Self::visible`].
    pub fn sees(&self, query: isize, key: isize) -> bool {
        let ahead = key - query;
        !(self.causal && ahead > 0) && self.window.is_none_or(|window| ahead.unsigned_abs() < window)
    }

    /// Positions of the keys that the query at `position` sees, not cut to the keys there are. The range of the next query is
    /// this one, one further (a side without bound is farther than any position).
    pub fn visible(&self, position: isize) -> Range<isize> {
        let reach = self.window.map(|window| window.min(UNBOUNDED as usize) as isize);
        let start = reach.map_or(-UNBOUNDED, |reach| position + 1 - reach);
        let end = if self.causal { position + 1 } else { reach.map_or(UNBOUNDED, |reach| position + reach) };
        start..end
    }

    /// # Panics
    /// If the window is 0: no query would see anything.
    pub(super) fn check(&self) {
        assert!(self.window != Some(0), "attention: a window of 0 keys");
    }
}

/// Segments of packed queries and keys: the queries `cu_seqlens_q[i]..cu_seqlens_q[i + 1]` attend to the keys
/// `cu_seqlens_k[i]..cu_seqlens_k[i + 1]` and to no others. Either side of a segment may be empty.
///
/// ```
/// use internevo_kernels::attention::Segments;
///
/// // Two documents: three new queries over five cached keys, and one over one.
/// let segments = Segments::new(vec![0, 3, 4], vec![0, 5, 6]);
/// assert_eq!(segments.iter().collect::<Vec<_>>(), [(0..3, 0..5), (3..4, 5..6)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    queries: Vec<u32>,
    keys: Vec<u32>,
}

impl Segments {
    /// Segments from boundaries, each list 0 first and not decreasing.
    ///
    /// # Panics
    /// If the lists are not such, or differ in length; the message names the index.
    pub fn new(cu_seqlens_q: impl Into<Vec<u32>>, cu_seqlens_k: impl Into<Vec<u32>>) -> Self {
        let (queries, keys) = (cu_seqlens_q.into(), cu_seqlens_k.into());
        for (name, ends) in [("cu_seqlens_q", &queries), ("cu_seqlens_k", &keys)] {
            assert!(ends.first() == Some(&0), "attention: {name} must begin with 0, found {:?}", ends.first());
            if let Some(index) = ends.windows(2).position(|pair| pair[0] > pair[1]) {
                panic!("attention: {name}[{}] is below the entry before it", index + 1);
            }
        }
        assert_eq!(queries.len(), keys.len(), "attention: boundaries of queries and of keys");
        Self { queries, keys }
    }

    /// Segments whose queries and keys are the same tokens.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn packed(cu_seqlens: &[u32]) -> Self {
        Self::new(cu_seqlens, cu_seqlens)
    }

    /// Boundaries of the queries.
    pub fn cu_seqlens_q(&self) -> &[u32] {
        &self.queries
    }

    /// Boundaries of the keys.
    pub fn cu_seqlens_k(&self) -> &[u32] {
        &self.keys
    }

    /// Queries in all segments, T_q.
    pub fn queries(&self) -> usize {
        self.queries[self.queries.len() - 1] as usize
    }

    /// Keys in all segments, T_k.
    pub fn keys(&self) -> usize {
        self.keys[self.keys.len() - 1] as usize
    }

    /// The rows of queries and the rows of keys of each segment.
    pub fn iter(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + '_ {
        let rows = |pair: &[u32]| pair[0] as usize..pair[1] as usize;
        self.queries.windows(2).map(rows).zip(self.keys.windows(2).map(rows))
    }

    /// Pairs of a query and a key it sees, over all segments: the work of attention is `4 · pairs · H · D` FLOPs forward.
    pub fn pairs(&self, mask: AttentionMask) -> u64 {
        let segment = |(queries, keys): (Range<usize>, Range<usize>)| -> u64 {
            let shift = keys.len() as isize - queries.len() as isize;
            let seen = |row: usize| {
                let visible = mask.visible(row as isize + shift);
                (visible.end.min(keys.len() as isize) - visible.start.max(0)).max(0) as u64
            };
            (0..queries.len()).map(seen).sum()
        };
        self.iter().map(segment).sum()
    }
}
