//! Logistic regressions over hashed features, one for each output, fitted by averaged stochastic gradient descent (Polyak and
//! Juditsky 1992). Sequential in a fixed order: the weights are the same bits on every run.

use std::ops::Range;

use internevo_core::rng::CounterRng;

use super::{
    ClassifierSettings,
    features::{Collector, Sink},
};

/// Sizes of the weight table that make sense: 4 KiB to 1 GiB an output.
pub const BITS: std::ops::RangeInclusive<u32> = 10..=28;

/// Weights of hashed features.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearModel {
    /// `[2^bits, outputs]`
    weights: Vec<f32>,
    /// `[outputs]`
    bias: Vec<f32>,
}

impl LinearModel {
    /// A model that scores everything 0.
    pub fn zero(bits: u32, outputs: usize) -> Self {
        Self { weights: vec![0.0; outputs << bits], bias: vec![0.0; outputs] }
    }

    /// A stored model; `weights` has a row of `bias.len()` for each feature.
    pub(super) fn of(weights: Vec<f32>, bias: Vec<f32>) -> Self {
        Self { weights, bias }
    }

    /// The weights, `[2^bits, outputs]`.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The bias of each output.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Fits passages with their labels; `features` fills the collector. With one output, label 1 is what it scores.
    pub(super) fn fit(
        &mut self,
        passages: &[(&str, usize)],
        settings: &ClassifierSettings,
        features: impl Fn(&str, &mut Collector),
    ) {
        // Averaging without touching every weight at every step: the average is `w - drift / steps`, where `drift` collects each
        // update times the number of steps before it.
        let mut drift = Self { weights: vec![0.0; self.weights.len()], bias: vec![0.0; self.bias.len()] };
        let (outputs, steps) = (self.bias.len(), (settings.epochs * passages.len()) as f32);
        let (mut step, mut collector) = (0.0f32, Collector::default());
        for epoch in 0..settings.epochs {
            let order = CounterRng::new(settings.seed, &format!("classifier/epoch-{epoch}"));
            for at in order.permutation(passages.len()) {
                let (text, label) = passages[at as usize];
                features(text, &mut collector);
                let norm = norm(collector.indices.len());
                for output in 0..outputs {
                    let target = label == if outputs == 1 { 1 } else { output };
                    let sum: f32 = collector.indices.iter().map(|i| self.weights[*i as usize * outputs + output]).sum();
                    let error = f32::from(u8::from(target)) - logistic(self.bias[output] + sum * norm);
                    let update = settings.learning_rate * (1.0 - step / steps) * error;
                    let share = update * norm;
                    for index in collector.indices.iter().map(|i| *i as usize * outputs + output) {
                        self.weights[index] += share;
                        drift.weights[index] += share * step;
                    }
                    self.bias[output] += update;
                    drift.bias[output] += update * step;
                }
                step += 1.0;
            }
        }
        if step > 0.0 {
            self.weights.iter_mut().zip(&drift.weights).for_each(|(w, d)| *w -= d / step);
            self.bias.iter_mut().zip(&drift.bias).for_each(|(w, d)| *w -= d / step);
        }
    }
}

/// Scores the passages of a text as their features come.
pub struct Scorer<'a> {
    model: &'a LinearModel,
    /// Of the passage.
    sums: Vec<f32>,
    features: usize,
    /// Of the passages before, each times its tokens.
    logits: Vec<f64>,
    tokens: usize,
}

impl<'a> Scorer<'a> {
    /// Nothing is scored yet.
    pub fn new(model: &'a LinearModel) -> Self {
        let outputs = model.bias.len();
        Self { model, sums: vec![0.0; outputs], features: 0, logits: vec![0.0; outputs], tokens: 0 }
    }

    /// Mean score of the passages, weighted by their tokens; `None` where there were none.
    pub fn mean(self) -> Option<Vec<f64>> {
        (self.tokens > 0).then(|| self.logits.iter().map(|sum| sum / self.tokens as f64).collect())
    }
}

impl Sink for Scorer<'_> {
    #[inline]
    fn feature(&mut self, index: u32) {
        let outputs = self.sums.len();
        let row = &self.model.weights[index as usize * outputs..][..outputs];
        self.sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight);
        self.features += 1;
    }

    fn end_of_passage(&mut self, tokens: usize, _: Range<usize>) {
        let norm = norm(self.features);
        for ((total, sum), bias) in self.logits.iter_mut().zip(&mut self.sums).zip(&self.model.bias) {
            *total += f64::from(bias + *sum * norm) * tokens as f64;
            *sum = 0.0;
        }
        (self.tokens, self.features) = (self.tokens + tokens, 0);
    }
}

/// Every passage has a feature vector of about unit length.
fn norm(features: usize) -> f32 {
    1.0 / (features.max(1) as f32).sqrt()
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
