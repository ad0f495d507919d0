//! Communication volume: the verbs, what each puts on the wire, and the row that a measurement and a formula share.
//!
//! The convention everywhere: *bytes* is the full buffer of a call (what goes into a reduce-scatter, what comes out of an
//! all-gather), *sent* and *received* are what one rank moves in the bandwidth-optimal algorithm (Patarasuk and Yuan 2009; the
//! "bus bandwidth" of nccl-tests). Real backends may move more.
//!
//! Not here: counting real calls (`internevo_parallel::comm::record`), predicting them (`estimate/`).

use serde::{Deserialize, Serialize};

/// A kind of communication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verb {
    /// Everyone gets the reduction.
    AllReduce,
    /// Everyone gets its part of the reduction.
    ReduceScatter,
    /// Everyone gets everyone's part.
    AllGather,
    /// Everyone gets a part of its own from everyone.
    AllToAll,
    /// Everyone gets the root's buffer.
    Broadcast,
    /// A message to one rank.
    Send,
    /// A message from one rank.
    Receive,
    /// Waiting for each other.
    Barrier,
}

impl Verb {
    /// Bytes that one of `ranks` ranks sends, and as many that it receives, over a ring: 2(n-1)/n of the full buffer for an
    /// all-reduce, (n-1)/n for a reduce-scatter, an all-gather and an even all-to-all; rounded to the nearest byte. A
    /// broadcast passes everything on, except at the ring's end. `None` for messages, which have one direction.
    pub fn ring_bytes(self, ranks: usize, bytes: u64) -> Option<u64> {
        let (n, bytes) = (ranks as u128, u128::from(bytes));
        let share = |times: u128| ((times * (n - 1) * bytes + n / 2) / n) as u64;
        match self {
            Self::AllReduce => Some(share(2)),
            Self::ReduceScatter | Self::AllGather | Self::AllToAll => Some(share(1)),
            Self::Broadcast if n > 1 => Some(bytes as u64),
            Self::Broadcast | Self::Barrier => Some(0),
            Self::Send | Self::Receive => None,
        }
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AllReduce => "all_reduce",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGather => "all_gather",
            Self::AllToAll => "all_to_all",
            Self::Broadcast => "broadcast",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Barrier => "barrier",
        })
    }
}

/// What one rank did in one group with one verb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRow {
    /// Name of the group: `zero1`, `tensor`, … or its ranks.
    pub group: String,
    /// Members, as ranks of the world.
    pub ranks: Vec<usize>,
    /// The verb.
    pub verb: Verb,
    /// Calls.
    pub calls: u64,
    /// Elements of all full buffers.
    pub elements: u64,
    /// Bytes of all full buffers.
    pub bytes: u64,
    /// Bytes that this rank sends to others.
    pub sent: u64,
    /// Bytes that this rank receives from others.
    pub received: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring all-reduce played through: n-1 steps of reduce-scatter and n-1 of all-gather, a chunk each.
    fn played(ranks: u64, chunk: u64) -> u64 {
        (0..2).flat_map(|_| 1..ranks).map(|_| chunk).sum()
    }

    #[test]
    fn a_ring_moves_a_chunk_per_step() {
        for ranks in 1..9u64 {
            let chunk = 1000 + ranks;
            let all = Verb::AllReduce.ring_bytes(ranks as usize, chunk * ranks);
            assert_eq!(all, Some(played(ranks, chunk)));
            let half = Some(played(ranks, chunk) / 2);
            for verb in [Verb::ReduceScatter, Verb::AllGather, Verb::AllToAll] {
                assert_eq!(verb.ring_bytes(ranks as usize, chunk * ranks), half, "{verb}");
            }
        }
    }

    #[test]
    fn a_rank_alone_moves_nothing() {
        for verb in [Verb::AllReduce, Verb::ReduceScatter, Verb::AllGather, Verb::AllToAll, Verb::Broadcast] {
            assert_eq!(verb.ring_bytes(1, 4096), Some(0), "{verb}");
        }
    }

    #[test]
    fn the_volume_of_thousands_of_ranks_does_not_overflow() {
        let bytes = 1u64 << 62;
        assert_eq!(Verb::AllGather.ring_bytes(4096, bytes), Some(bytes / 4096 * 4095));
    }
}
