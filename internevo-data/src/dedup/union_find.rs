//! Disjoint sets over `0..n`, with the smallest member as the representative: the result never depends on the order of
//! unions.

/// A partition of `0..n` that only grows coarser.
#[derive(Clone, Debug)]
pub struct UnionFind {
    parent: Vec<u32>,
}

impl UnionFind {
    /// `n` sets of one element.
    ///
    /// # Panics
    /// If `n` does not fit into 32 bits.
    pub fn new(n: usize) -> Self {
        Self { parent: (0..u32::try_from(n).expect("at most 2^32 elements")).collect() }
    }

    /// The smallest element of `x`'s set.
    pub fn find(&mut self, mut x: u32) -> u32 {
        while self.parent[x as usize] != x {
            let grandparent = self.parent[self.parent[x as usize] as usize];
            self.parent[x as usize] = grandparent; // path halving
            x = grandparent;
        }
        x
    }

    /// Joins the sets of `a` and `b`; true if they were apart.
    pub fn union(&mut self, a: u32, b: u32) -> bool {
        let (a, b) = (self.find(a), self.find(b));
        // The smaller representative always wins. Path halving alone keeps this near-linear for our graphs.
        match a.cmp(&b) {
            std::cmp::Ordering::Less => self.parent[b as usize] = a,
            std::cmp::Ordering::Greater => self.parent[a as usize] = b,
            std::cmp::Ordering::Equal => return false,
        }
        true
    }

    /// All sets with more than one element: members ascending, sets in the order of their smallest member.
    pub fn clusters(&mut self) -> Vec<Vec<u32>> {
        let mut members: std::collections::BTreeMap<u32, Vec<u32>> = std::collections::BTreeMap::new();
        for x in 0..self.parent.len() as u32 {
            let root = self.find(x);
            if root != x {
                members.entry(root).or_insert_with(|| vec![root]).push(x);
            }
        }
        members.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_partition_equals_naive_relabelling_for_any_order_of_unions(
            n in 1usize..40, raw in proptest::collection::vec((0u32..40, 0u32..40), 0..60),
        ) {
            let edges: Vec<(u32, u32)> = raw.into_iter().map(|(a, b)| (a % n as u32, b % n as u32)).collect();
            let mut label: Vec<u32> = (0..n as u32).collect();
            for &(a, b) in &edges {
                let (x, y) = (label[a as usize], label[b as usize]);
                label.iter_mut().filter(|l| **l == x.max(y)).for_each(|l| *l = x.min(y));
            }
            let mut forward = UnionFind::new(n);
            let mut backward = UnionFind::new(n);
            edges.iter().for_each(|&(a, b)| { forward.union(a, b); });
            edges.iter().rev().for_each(|&(a, b)| { backward.union(b, a); });
            for x in 0..n as u32 {
                prop_assert_eq!(forward.find(x), label[x as usize]);
            }
            prop_assert_eq!(forward.clusters(), backward.clusters());
        }
    }
}
