//! Inputs of calls: memory only on paper, random numbers on a device.

use cubecl::ir::UIntKind;
use internevo_kernels::cube::{Buffer, Client, ElemType};

use crate::random::Random;

/// Makes buffers on one client.
pub struct Inputs<'a> {
    client: &'a Client,
    filled: bool,
}

/// Random values that are repeated: constants would draw less power and run faster.
const PERIOD: usize = 1 << 20;

impl<'a> Inputs<'a> {
    /// Buffers with whatever is in memory, for calls that are recorded and not run.
    pub fn unfilled(client: &'a Client) -> Self {
        Self { client, filled: false }
    }

    /// Buffers with random numbers.
    pub fn filled(client: &'a Client) -> Self {
        Self { client, filled: true }
    }

    /// Where the buffers live.
    pub fn client(&self) -> &'a Client {
        self.client
    }

    /// `len` floats, roughly standard normal.
    pub fn floats(&self, len: usize, elem: ElemType) -> Buffer {
        if !self.filled {
            return Buffer::empty(self.client, len, elem);
        }
        let period = Random::new(0).normals(PERIOD.min(len));
        let values: Vec<f32> = period.iter().copied().cycle().take(len).collect();
        Buffer::from_f32(self.client, &values, elem)
    }

    /// `len` integers below `bound`.
    pub fn indices(&self, len: usize, bound: u32) -> Buffer {
        if !self.filled {
            return Buffer::empty(self.client, len, ElemType::UInt(UIntKind::U32));
        }
        let mut random = Random::new(1);
        Buffer::from_u32(self.client, &(0..len).map(|_| random.below(bound)).collect::<Vec<_>>())
    }

    /// `groups + 1` ends of groups of `rows` rows, of uneven sizes.
    pub fn offsets(&self, rows: usize, groups: usize) -> Buffer {
        let end = |group: usize| (rows * group * group).div_ceil(groups * groups) as u32;
        let ends: Vec<u32> = (0..=groups).map(end).collect();
        Buffer::from_u32(self.client, &ends)
    }
}
