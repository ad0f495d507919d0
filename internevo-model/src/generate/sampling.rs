//! From logits to a token: greedy, or temperature, then top-k, then top-p (the order of HF `generate`), with a
//! counter-based generator so that the same seed gives the same text anywhere.

use internevo_core::rng::CounterRng;

use crate::error::ModelError;

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 = greedy (the other fields are then without effect).
    pub temperature: f64,
    /// Keep only the k most likely tokens; 0 = all.
    pub top_k: usize,
    /// Keep the smallest set of most likely tokens whose probabilities reach this sum, in `(0, 1]`; 1 = all.
    pub top_p: f64,
    /// Seed of the draws; the n-th generated token uses draw n.
    pub seed: u64,
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }

    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// [`ModelError::Generation`] naming the field.
    pub fn validate(&self) -> Result<(), ModelError> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(ModelError::Generation(format!("temperature: {} is not 0 or positive", self.temperature)));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(ModelError::Generation(format!("top_p: {} is not in (0, 1]", self.top_p)));
        }
        Ok(())
    }

    /// The token for `logits` (`[V]`); `index` counts the tokens generated so far. Ties go to the lower id.
    ///
    /// # Errors
    /// [`ModelError::Generation`] when a logit is NaN or infinite: the weights are damaged or training diverged.
    pub fn pick(&self, logits: &[f32], index: u64) -> Result<u32, ModelError> {
        if let Some(token) = logits.iter().position(|x| !x.is_finite()) {
            return Err(ModelError::Generation(format!(
                "the logit of token {token} is {}: the weights are damaged or training diverged",
                logits[token]
            )));
        }
        if self.temperature == 0.0 {
            return Ok(most_likely(logits));
        }
        let candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|(_, p)| p).sum();
        let mut rest = CounterRng::new(self.seed, "generate").uniform(index) * total;
        for (token, p) in &candidates {
            rest -= p;
            if rest < 0.0 {
                return Ok(*token);
            }
        }
        Ok(candidates.last().expect("at least one candidate").0)
    }

    /// The tokens that may be drawn with their unnormalised probabilities, most likely first.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let likelier = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if self.top_k > 0 && self.top_k < order.len() {
            order.select_nth_unstable_by(self.top_k - 1, likelier);
            order.truncate(self.top_k);
        }
        order.sort_unstable_by(likelier);
        let top = f64::from(logits[order[0] as usize]);
        let weight = |t: &u32| (*t, ((f64::from(logits[*t as usize]) - top) / self.temperature).exp());
        let mut candidates: Vec<(u32, f64)> = order.iter().map(weight).collect();
        if self.top_p < 1.0 {
            let total: f64 = candidates.iter().map(|(_, p)| p).sum();
            let mut sum = 0.0;
            let reached = candidates.iter().position(|(_, p)| {
                sum += p;
                sum >= self.top_p * total
            });
            candidates.truncate(reached.map_or(candidates.len(), |last| last + 1));
        }
        candidates
    }
}

fn most_likely(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, x) in logits.iter().enumerate() {
        if *x > logits[best] {
            best = token;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampling(temperature: f64, top_k: usize, top_p: f64) -> Sampling {
        Sampling { temperature, top_k, top_p, seed: 5 }
    }

    #[test]
    fn draws_follow_the_softmax_at_the_temperature() {
        let logits = [1.0f32, 0.0, 2.0, -1.0];
        let s = sampling(0.7, 0, 1.0);
        let n = 40_000u64;
        let mut counts = [0f64; 4];
        for i in 0..n {
            counts[s.pick(&logits, i).expect("finite") as usize] += 1.0;
        }
        let weights = logits.map(|x| (f64::from(x) / 0.7).exp());
        let total: f64 = weights.iter().sum();
        for (count, w) in counts.iter().zip(weights) {
            let p = w / total;
            let error = (p * (1.0 - p) / n as f64).sqrt();
            assert!((count / n as f64 - p).abs() < 4.5 * error, "{count} of {n} for {p}");
        }
    }

    #[test]
    fn top_p_keeps_the_token_that_crosses_the_sum() {
        // Probabilities 0.5, 0.3, 0.2 in some order.
        let logits = [0.3f32.ln(), 0.5f32.ln(), 0.2f32.ln()];
        let kept = |p: f64| sampling(1.0, 0, p).candidates(&logits).iter().map(|(t, _)| *t).collect::<Vec<_>>();
        assert_eq!(kept(0.4), [1]);
        assert_eq!(kept(0.6), [1, 0]);
        assert_eq!(kept(0.79), [1, 0]);
        assert_eq!(kept(0.9), [1, 0, 2]);
    }

    #[test]
    fn damaged_logits_and_senseless_settings_are_refused() {
        assert!(Sampling::greedy().pick(&[0.0, f32::NAN], 0).is_err());
        assert!(sampling(-1.0, 0, 1.0).validate().is_err());
        assert!(sampling(1.0, 0, 0.0).validate().is_err());
        assert!(sampling(f64::NAN, 0, 1.0).validate().is_err());
    }

    proptest! {
        #[test]
        fn top_k_never_leaves_the_k_best_and_one_is_greedy(
            logits in prop::collection::vec(-5.0f32..5.0, 1..60), k in 1usize..8, index: u64,
        ) {
            let token = sampling(1.3, k, 1.0).pick(&logits, index).unwrap() as usize;
            let better = logits.iter().filter(|x| **x > logits[token]).count();
            prop_assert!(better < k);
            prop_assert_eq!(
                sampling(1.3, 1, 1.0).pick(&logits, index).unwrap(),
                Sampling::greedy().pick(&logits, index).unwrap()
            );
        }
    }
}
