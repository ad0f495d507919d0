//! How the angles of the rotary embedding are stretched to contexts longer than those of the pre-training. No tables here.

/// Which angles a [`super::RotaryTable`] holds. Without scaling, pair `i` of a head of width `d` turns by `base^(-2i / d)` per
/// position.
///
/// The formulas are those of the papers named, with the conventions of Hugging Face's `modeling_rope_utils`, so that a model's
/// `rope_scaling` means the same here.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RotaryScaling {
    /// As trained.
    #[default]
    None,
    /// Positions divided by `factor` (position interpolation; Chen et al., 2023, <https://arxiv.org/abs/2306.15595>).
    Linear {
        /// How many times longer the context is.
        factor: f64,
    },
    /// For a sequence of `L > original_positions` the base grows by `(factor · L / original_positions - (factor - 1))^(d / (d -
    /// 2))`: the slowest pair is interpolated, the fastest left alone (NTK-aware scaling, dynamic: Peng et al., 2023, section
    /// 3.3, <https://arxiv.org/abs/2309.00071>). What InternLM2 uses. `L` is the length of the table.
    DynamicNtk {
        /// How strongly the base grows.
        factor: f64,
        /// Positions of the pre-training.
        original_positions: usize,
    },
    /// Pairs that turn often in the original context stay, those that turn less than once are interpolated, with a ramp
    /// between; queries and keys are scaled by `0.1 ln(factor) + 1` (YaRN; Peng et al., 2023, sections 3.2 and 3.4).
    Yarn {
        /// How many times longer the context is.
        factor: f64,
        /// Positions of the pre-training.
        original_positions: usize,
        /// Turns in the original context from which on a pair stays; 32 in the paper.
        beta_fast: f64,
        /// Turns up to which a pair is interpolated; 1 in the paper.
        beta_slow: f64,
    },
    /// Pairs with wavelengths below `original_positions / high_frequency` stay, those above `original_positions /
    /// low_frequency` are interpolated, with a blend between (Llama 3.1; Grattafiori et al., 2024, as released with the weights).
    Llama3 {
        /// How many times longer the context is; 8 in the released models.
        factor: f64,
        /// 1 in the released models.
        low_frequency: f64,
        /// 4 in the released models.
        high_frequency: f64,
        /// Positions of the pre-training; 8192 in the released models.
        original_positions: usize,
    },
}

impl RotaryScaling {
    /// Angle per position of each of the `head_dim / 2` pairs, for sequences of `length` positions.
    pub fn frequencies(&self, head_dim: usize, base: f64, length: usize) -> Vec<f64> {
        let d = head_dim as f64;
        let base = match *self {
            // A head of one pair turns at the same speed whatever the base.
            Self::DynamicNtk { factor, original_positions, .. } if length > original_positions && head_dim > 2 => {
                let stretch = factor * length as f64 / original_positions as f64 - (factor - 1.0);
                base * stretch.powf(d / (d - 2.0))
            }
            _ => base,
        };
        let frequency = |pair: usize| base.powf(-2.0 * pair as f64 / d);
        (0..head_dim / 2).map(|pair| self.stretched(frequency(pair), pair, d, base)).collect()
    }

    /// The factor of cosines and sines.
    pub fn amplitude(&self) -> f64 {
        match *self {
            Self::Yarn { factor, .. } if factor > 1.0 => 0.1 * factor.ln() + 1.0,
            _ => 1.0,
        }
    }

    /// The angle per position of one pair, from what it is without scaling.
    fn stretched(&self, frequency: f64, pair: usize, head_dim: f64, base: f64) -> f64 {
        match *self {
            Self::None | Self::DynamicNtk { .. } => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Yarn { factor, original_positions, beta_fast, beta_slow } => {
                // The pair, between the whole ones, that makes so many turns in the original context.
                let pair_of = |turns: f64| {
                    let wavelength = original_positions as f64 / turns;
                    head_dim * (wavelength / std::f64::consts::TAU).ln() / (2.0 * base.ln())
                };
                let low = pair_of(beta_fast).floor().max(0.0);
                let high = pair_of(beta_slow).ceil().min(head_dim - 1.0);
                // Never divide by an empty ramp.
                let high = if high == low { low + 1e-3 } else { high };
                let ramp = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / factor * ramp + frequency * (1.0 - ramp)
            }
            Self::Llama3 { factor, low_frequency, high_frequency, original_positions } => {
                let turns = original_positions as f64 * frequency / std::f64::consts::TAU;
                let blend = ((turns - low_frequency) / (high_frequency - low_frequency)).clamp(0.0, 1.0);
                frequency / factor * (1.0 - blend) + frequency * blend
            }
        }
    }
}
