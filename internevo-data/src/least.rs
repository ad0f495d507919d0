//! The few of many values that have the least keys: those nearest to a threshold, the largest clusters.

/// The values with the least keys of all that passed by, least first; of equal keys the earlier ones.
#[derive(Clone, Debug)]
pub(crate) struct Least<K, T>(Vec<(K, T)>);

impl<K, T> Default for Least<K, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: PartialOrd, T> Least<K, T> {
    /// Looks at a value, which is made if it is among the least `room` so far.
    pub fn add(&mut self, room: usize, key: K, value: impl FnOnce() -> T) {
        let place = self.0.partition_point(|(own, _)| *own <= key);
        if place < room {
            self.0.truncate(room - 1);
            self.0.insert(place, (key, value()));
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The values, least key first.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.0.into_iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_stay_in_order_and_the_earlier_of_equals_first() {
        let mut least = Least::default();
        for (key, value) in [(3, 'a'), (1, 'b'), (3, 'c'), (0, 'd'), (1, 'e'), (9, 'f')] {
            least.add(4, key, || value);
        }
        assert_eq!(least.len(), 4);
        assert_eq!(least.into_values().collect::<String>(), "dbea");
        let mut none = Least::default();
        none.add(0, 1, || panic!("there is no room"));
        assert_eq!(none.into_values().count(), 0);
    }
}
