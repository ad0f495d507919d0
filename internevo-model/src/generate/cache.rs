//! Keys and values of the tokens seen so far, so that one more token costs one more row and not the whole prefix.

use burn::tensor::{Device, Tensor};
use internevo_kernels::RotaryTable;

use crate::spec::ModelSpec;

/// Keys (after rotation) and values of every layer, for one sequence. Grows as needed.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    length: usize,
    /// The cache's own table: generation may go on beyond the longest trained segment.
    table: RotaryTable,
    covered: usize,
    head_dim: usize,
    rope_base: f64,
}

/// One layer's part: `[capacity, kv_heads * head_dim]` each, of which the first rows are in use.
#[derive(Clone, Debug)]
pub struct LayerCache {
    keys: Tensor<2>,
    values: Tensor<2>,
    length: usize,
}

impl KvCache {
    /// An empty cache with room for `capacity` tokens (at least one).
    pub fn new(spec: &ModelSpec, capacity: usize, device: &Device) -> Self {
        let capacity = capacity.max(1);
        let room = || Tensor::zeros([capacity, spec.kv_heads * spec.head_dim], &device.clone().inner());
        let layer = |_| LayerCache { keys: room(), values: room(), length: 0 };
        Self {
            layers: (0..spec.layers).map(layer).collect(),
            length: 0,
            table: RotaryTable::new(spec.head_dim, spec.rope_base, capacity),
            covered: capacity,
            head_dim: spec.head_dim,
            rope_base: spec.rope_base,
        }
    }

    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Counts `tokens` more tokens and returns their positions, the rotary table and the layers to append to.
    pub(crate) fn extend(&mut self, tokens: usize) -> (Vec<u32>, &RotaryTable, &mut [LayerCache]) {
        let start = self.length;
        self.length += tokens;
        if self.length > self.covered {
            self.covered = self.length.next_power_of_two();
            self.table = RotaryTable::new(self.head_dim, self.rope_base, self.covered);
        }
        ((start as u32..self.length as u32).collect(), &self.table, &mut self.layers)
    }
}

impl LayerCache {
    /// Appends rotated keys and values `[T, kv_heads * head_dim]`; returns all of them, the new ones last.
    pub(crate) fn append(&mut self, k: Tensor<2>, v: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let rows = self.length..self.length + k.dims()[0];
        self.length = rows.end;
        let put = |room: &mut Tensor<2>, new: Tensor<2>| {
            let [capacity, width] = room.dims();
            if rows.end > capacity {
                let more = rows.end.next_power_of_two() - capacity;
                room.inplace(|old| Tensor::cat(vec![old.clone(), Tensor::zeros([more, width], &old.device())], 0));
            }
            // Nobody else holds the buffer between two steps, so this writes the new rows in place.
            room.inplace(|room| room.slice_assign([rows.clone(), 0..width], new));
            room.clone().narrow(0, 0, rows.end)
        };
        (put(&mut self.keys, k), put(&mut self.values, v))
    }
}
