//! Rotary position embedding (Su et al., 2021) in Hugging Face's rotate-half form, on the query and key heads of an
//! interleaved `qkv`, whose value heads pass through, or on a tensor of its own.

pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
mod op;
pub mod reference;
mod scaling;

pub use op::{rotary, rotary_heads};
pub use scaling::RotaryScaling;

use crate::attention::QkvLayout;
use std::sync::Arc;

/// Which heads of a row are rotated: in each of `groups`, the first `rotated` heads, followed by `passed` that are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotaryHeads {
    /// Groups of heads in a row.
    pub groups: usize,
    /// Heads of a group that are rotated.
    pub rotated: usize,
    /// Heads of a group after them that are not.
    pub passed: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl RotaryHeads {
    /// All of `heads` heads side by side: a query or key tensor of its own.
    pub fn all(heads: usize, head_dim: usize) -> Self {
        Self { groups: 1, rotated: heads, passed: 0, head_dim }
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.groups * (self.rotated + self.passed) * self.head_dim
    }
}

impl From<QkvLayout> for RotaryHeads {
    fn from(layout: QkvLayout) -> Self {
        Self { groups: layout.kv_heads, rotated: layout.q_per_kv + 1, passed: 1, head_dim: layout.head_dim }
    }
}

/// Cosines and sines of every position: `cos(position · base^(-2i / head_dim))`, or stretched by a [`RotaryScaling`]. Cloning
/// shares the table.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    head_dim: usize,
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
    /// The copies on the devices that used the table.
    #[cfg(feature = "gpu")]
    devices: Arc<std::sync::Mutex<Vec<(burn_cubecl::CubeDevice, cube::DeviceTable)>>>,
}

impl RotaryTable {
    /// The table for positions `0..max_positions`, computed in f64.
    ///
    /// # Panics
    /// If `head_dim` is odd or zero.
    pub fn new(head_dim: usize, base: f64, max_positions: usize) -> Self {
        Self::scaled(head_dim, base, max_positions, RotaryScaling::None)
    }

    /// [`RotaryTable::new`] with stretched angles.
    ///
    /// # Panics
    /// If `head_dim` is odd or zero.
    pub fn scaled(head_dim: usize, base: f64, max_positions: usize, scaling: RotaryScaling) -> Self {
        assert!(
            head_dim > 0 && head_dim.is_multiple_of(2),
            "rotary: head_dim {head_dim} is not a positive even number"
        );
        let (frequencies, amplitude) = (scaling.frequencies(head_dim, base, max_positions), scaling.amplitude());
        let angles = (0..max_positions).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        let values = angles.map(|angle| ((amplitude * angle.cos()) as f32, (amplitude * angle.sin()) as f32));
        let (cos, sin): (Vec<f32>, Vec<f32>) = values.unzip();
        Self {
            head_dim,
            cos: cos.into(),
            sin: sin.into(),
            #[cfg(feature = "gpu")]
            devices: Arc::default(),
        }
    }

    /// Width of the heads that the table rotates.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// How many positions the table holds.
    pub fn positions(&self) -> usize {
        self.cos.len() / (self.head_dim / 2)
    }

    /// Cosines and sines of one position, `head_dim / 2` each.
    ///
    /// # Panics
    /// If the position is not in the table.
    pub fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let half = self.head_dim / 2;
        assert!((position as usize) < self.positions(), "rotary: position {position} of {}", self.positions());
        let start = position as usize * half;
        (&self.cos[start..start + half], &self.sin[start..start + half])
    }

    /// Panics, naming the token, if the table cannot rotate heads of width `head_dim` at these positions.
    fn check(&self, head_dim: usize, positions: &[u32]) {
        assert_eq!(self.head_dim, head_dim, "rotary: width of a head in the table and in the input");
        if let Some(token) = positions.iter().position(|p| *p as usize >= self.positions()) {
            panic!("rotary: position {} of token {token} is outside 0..{}", positions[token], self.positions());
        }
    }

    /// The table in the memory of a device: copied there on first use.
    #[cfg(feature = "gpu")]
    fn on_device(&self, tensor: &crate::cube::GpuTensor) -> cube::DeviceTable {
        let mut devices = self.devices.lock().expect("copying a table does not panic");
        if let Some((_, table)) = devices.iter().find(|(device, _)| device == tensor.device()) {
            return table.clone();
        }
        let table = cube::DeviceTable::new(tensor.client(), self);
        devices.push((tensor.device().clone(), table.clone()));
        table
    }
}

#[cfg(test)]
mod tests;
