//! Platt's scaling: a score becomes a probability by a logistic curve fitted on documents that the model has not seen
//! (Platt 1999, with the numerics of Lin, Lin and Weng 2007).

use serde::{Deserialize, Serialize};

/// Newton's method converges in a handful of steps.
const MAX_STEPS: usize = 100;

/// The probability of a score `x` is `1 / (1 + exp(-(slope x + offset)))`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Platt {
    /// Positive where greater scores mean the class.
    pub slope: f64,
    /// Log-odds of a score of 0.
    pub offset: f64,
}

impl Default for Platt {
    fn default() -> Self {
        Self { slope: 1.0, offset: 0.0 }
    }
}

impl Platt {
    /// The probability of a score.
    pub fn probability(self, score: f64) -> f64 {
        1.0 / (1.0 + (-(self.slope * score + self.offset)).exp())
    }

    /// Fits scores with the truth about them. Without examples of both kinds there is nothing to fit: the scores are log-odds then.
    pub fn fit(scored: &[(f64, bool)]) -> Self {
        let positive = scored.iter().filter(|(_, truth)| *truth).count() as f64;
        let negative = scored.len() as f64 - positive;
        if positive == 0.0 || negative == 0.0 {
            return Self::default();
        }
        // Targets short of 0 and 1 keep the fit finite where the classes are separable.
        let targets = [1.0 / (negative + 2.0), (positive + 1.0) / (positive + 2.0)];
        let pairs: Vec<(f64, f64)> = scored.iter().map(|(x, truth)| (*x, targets[usize::from(*truth)])).collect();
        let mut curve = Self { slope: 0.0, offset: ((positive + 1.0) / (negative + 1.0)).ln() };
        let mut loss = curve.loss(&pairs);
        for _ in 0..MAX_STEPS {
            let (step_slope, step_offset) = curve.newton_step(&pairs);
            // Halved until the loss falls.
            let next = (0..40).map(|halvings| {
                let size = 0.5f64.powi(halvings);
                Self { slope: curve.slope + size * step_slope, offset: curve.offset + size * step_offset }
            });
            let better = next.map(|next| (next, next.loss(&pairs))).find(|(_, new)| *new < loss - 1e-12);
            let Some((next, new)) = better else { break };
            (curve, loss) = (next, new);
        }
        curve
    }

    /// Cross entropy, nats.
    fn loss(self, pairs: &[(f64, f64)]) -> f64 {
        let one = |(x, target): &(f64, f64)| {
            let z = self.slope * x + self.offset;
            // ln(1 + e^z) without overflow.
            z.max(0.0) + (-z.abs()).exp().ln_1p() - target * z
        };
        pairs.iter().map(one).sum()
    }

    fn newton_step(self, pairs: &[(f64, f64)]) -> (f64, f64) {
        const RIDGE: f64 = 1e-12;
        let (mut hxx, mut hx, mut h, mut gx, mut g) = (RIDGE, 0.0, RIDGE, 0.0, 0.0);
        for (x, target) in pairs {
            let p = self.probability(*x);
            let curvature = p * (1.0 - p);
            hxx += curvature * x * x;
            hx += curvature * x;
            h += curvature;
            gx += (p - target) * x;
            g += p - target;
        }
        let determinant = hxx * h - hx * hx;
        (-(h * gx - hx * g) / determinant, -(hxx * g - hx * gx) / determinant)
    }
}

#[cfg(test)]
mod tests {
    use internevo_core::rng::CounterRng;

    use super::*;

    #[test]
    fn the_curve_that_made_the_examples_is_found() {
        let rng = CounterRng::new(3, "platt");
        let truth = Platt { slope: 1.7, offset: -0.8 };
        let scored: Vec<(f64, bool)> = (0..20_000)
            .map(|i| {
                let x = 2.0 * rng.normal(2 * i);
                (x, rng.uniform(2 * i + 1) < truth.probability(x))
            })
            .collect();
        let found = Platt::fit(&scored);
        assert!((found.slope - 1.7).abs() < 0.1 && (found.offset + 0.8).abs() < 0.1, "{found:?}");
    }

    #[test]
    fn separable_scores_give_a_finite_rising_curve_and_one_class_gives_the_scores() {
        let found = Platt::fit(&[(-2.0, false), (-1.0, false), (1.0, true), (3.0, true)]);
        assert!(found.slope.is_finite() && found.slope > 0.5 && found.probability(0.0) > 0.2, "{found:?}");
        assert_eq!(Platt::fit(&[(1.0, true)]), Platt::default());
    }
}
