//! Disjoint sets over `0..n` that many threads join at once, with the smallest member as the representative: the result never
//! depends on the order of unions.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A partition of `0..n` that only grows coarser. 4 bytes per element.
///
/// Lock-free: a root is linked below a smaller root by compare-and-swap (Anderson and Woll, 1991), so parents only ever decrease
/// and a stale read is corrected by the next step. Threads that read the partition after others have joined synchronise by what
/// made them wait (rayon's joins).
#[derive(Debug)]
pub struct UnionFind {
    parent: Vec<AtomicU32>,
}

impl UnionFind {
    /// `n` sets of one element.
    ///
    /// # Panics
    /// If `n` does not fit into 32 bits.
    pub fn new(n: usize) -> Self {
        Self { parent: (0..u32::try_from(n).expect("at most 2^32 elements")).map(AtomicU32::new).collect() }
    }

    /// The smallest element of `x`'s set.
    pub fn find(&self, mut x: u32) -> u32 {
        loop {
            let parent = self.parent[x as usize].load(Relaxed);
            if parent == x {
                return x;
            }
            let grandparent = self.parent[parent as usize].load(Relaxed);
            if grandparent != parent {
                // Path halving; a thread that was faster has done the same or better.
                let _ = self.parent[x as usize].compare_exchange_weak(parent, grandparent, Relaxed, Relaxed);
            }
            x = grandparent;
        }
    }

    /// Joins the sets of `a` and `b`; true if they were apart.
    pub fn union(&self, a: u32, b: u32) -> bool {
        loop {
            let (a, b) = (self.find(a), self.find(b));
            if a == b {
                return false;
            }
            let (low, high) = (a.min(b), a.max(b));
            if self.parent[high as usize].compare_exchange(high, low, Relaxed, Relaxed).is_ok() {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rayon::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_partition_equals_naive_relabelling_for_any_order_of_unions_and_on_all_threads(
            n in 1usize..40, raw in proptest::collection::vec((0u32..40, 0u32..40), 0..60),
        ) {
            let edges: Vec<(u32, u32)> = raw.into_iter().map(|(a, b)| (a % n as u32, b % n as u32)).collect();
            let mut label: Vec<u32> = (0..n as u32).collect();
            for &(a, b) in &edges {
                let (x, y) = (label[a as usize], label[b as usize]);
                label.iter_mut().filter(|l| **l == x.max(y)).for_each(|l| *l = x.min(y));
            }
            let (forward, backward, parallel) = (UnionFind::new(n), UnionFind::new(n), UnionFind::new(n));
            edges.iter().for_each(|&(a, b)| { forward.union(a, b); });
            edges.iter().rev().for_each(|&(a, b)| { backward.union(b, a); });
            let joined = edges.par_iter().filter(|(a, b)| parallel.union(*a, *b)).count();
            for x in 0..n as u32 {
                prop_assert_eq!(forward.find(x), label[x as usize]);
                prop_assert_eq!(backward.find(x), label[x as usize]);
                prop_assert_eq!(parallel.find(x), label[x as usize]);
            }
            let sets = (0..n as u32).filter(|x| label[*x as usize] == *x).count();
            prop_assert_eq!(joined, n - sets);
        }
    }
}
