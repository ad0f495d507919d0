//! Rotary position embedding (Su et al., 2021) in Hugging Face's rotate-half form, on the query and key heads of an
//! interleaved `qkv`. Value heads pass through.

pub mod cpu;
mod op;
pub mod reference;

pub use op::rotary;

use std::sync::Arc;

/// Cosines and sines of every position: `cos(position · base^(-2i / head_dim))`. Cloning shares the table.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    head_dim: usize,
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
}

impl RotaryTable {
    /// The table for positions `0..max_positions`, computed in f64.
    ///
    /// # Panics
    /// If `head_dim` is odd or zero.
    pub fn new(head_dim: usize, base: f64, max_positions: usize) -> Self {
        assert!(
            head_dim > 0 && head_dim.is_multiple_of(2),
            "rotary: head_dim {head_dim} is not a positive even number"
        );
        let half = head_dim / 2;
        let angles = (0..max_positions).flat_map(|position| {
            (0..half).map(move |i| position as f64 * base.powf(-2.0 * i as f64 / head_dim as f64))
        });
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        Self { head_dim, cos: cos.into(), sin: sin.into() }
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
}

#[cfg(test)]
mod tests;
