//! Speed over the last steps: tokens per rank and second, and the time that remains.

use std::collections::VecDeque;

/// Steps that the remaining time is estimated from.
const WINDOW: usize = 20;

/// Durations of the last steps.
#[derive(Clone, Debug, Default)]
pub struct Throughput {
    seconds: VecDeque<f64>,
}

impl Throughput {
    /// Adds a step's duration.
    pub fn push(&mut self, seconds: f64) {
        if self.seconds.len() == WINDOW {
            self.seconds.pop_front();
        }
        self.seconds.push_back(seconds);
    }

    /// Seconds that `steps` more steps take at the speed of the last ones.
    pub fn remaining(&self, steps: u64) -> f64 {
        if self.seconds.is_empty() {
            return 0.0;
        }
        self.seconds.iter().sum::<f64>() / self.seconds.len() as f64 * steps as f64
    }
}
