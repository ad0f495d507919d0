//! A step's numbers → the log line, the progress bar and the sinks. Runs on the logging rank only.

use std::path::Path;

use internevo_core::{
    config::MonitorConfig,
    metrics::{MetricSink, SinkContext, SinkEntry, StepRecord},
    plugin::Registry,
};

use super::throughput::Throughput;
use crate::terminal::{self, Console, Progress};

/// A loss this many times the one before is worth a warning (InternEvo's threshold).
const SPIKE: f64 = 1.5;

/// Receives every step of a run.
pub struct Recorder {
    console: Console,
    bar: Option<Progress>,
    sinks: Vec<Box<dyn MetricSink>>,
    log_every: u64,
    total_steps: u64,
    micro_num: usize,
    throughput: Throughput,
    first: bool,
    last_loss: f64,
}

impl Recorder {
    /// Opens the configured sinks. Records after `resumed_step` are dropped from them.
    ///
    /// # Errors
    /// An unknown sink, settings that do not fit it, or files that cannot be opened.
    pub fn open(
        console: &Console,
        monitor: &MonitorConfig,
        run_dir: &Path,
        resumed_step: u64,
        total_steps: u64,
        micro_num: usize,
    ) -> anyhow::Result<Self> {
        let registry = Registry::<SinkEntry>::collect()?;
        let cx = SinkContext { run_dir, resumed_step };
        let empty = toml::Table::new();
        let mut sinks = Vec::new();
        for name in &monitor.sinks {
            let table = monitor.sink.get(name).and_then(toml::Value::as_table).unwrap_or(&empty);
            sinks.push(registry.get(name)?.build(table, &cx)?);
        }
        let bar = console.is_live().then(|| console.progress("training", Some(total_steps), "steps"));
        if let Some(bar) = &bar {
            bar.set(resumed_step);
        }
        Ok(Self {
            console: console.clone(),
            bar,
            sinks,
            log_every: monitor.log_every.max(1) as u64,
            total_steps,
            micro_num,
            throughput: Throughput::default(),
            first: true,
            last_loss: f64::INFINITY,
        })
    }

    /// Takes the record of one step.
    ///
    /// # Errors
    /// When a sink cannot store it.
    pub fn record(&mut self, record: &StepRecord) -> anyhow::Result<()> {
        for sink in &mut self.sinks {
            sink.record(record)?;
        }
        self.throughput.push(record.time);
        if record.loss > SPIKE * self.last_loss {
            tracing::warn!(step = record.step, loss = record.loss, before = self.last_loss, "the loss jumped");
        }
        self.last_loss = record.loss;
        tracing::info!(step = record.step, loss = record.loss, lr = record.lr, grad_norm = record.grad_norm, "step");
        let eta = self.throughput.remaining(self.total_steps.saturating_sub(record.step));
        if let Some(bar) = &self.bar {
            bar.set(record.step);
            bar.message(format!("loss {:.4}", record.loss));
        }
        if self.first || record.step == self.total_steps || record.step.is_multiple_of(self.log_every) {
            self.console.note(&log_line(record, self.micro_num, eta));
        }
        self.first = false;
        Ok(())
    }

    /// Makes everything recorded so far durable.
    ///
    /// # Errors
    /// When a sink cannot.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        for sink in &mut self.sinks {
            sink.flush()?;
        }
        Ok(())
    }
}

/// InternEvo's `key=value` line.
fn log_line(r: &StepRecord, micro_num: usize, eta: f64) -> String {
    let mut line = format!(
        "step={} loss={:.4} lr={:.3e} grad_norm={:.4} tgs={:.1} tflops={:.4}",
        r.step, r.loss, r.lr, r.grad_norm, r.tgs, r.tflops
    );
    if let Some(mfu) = r.mfu {
        line.push_str(&format!(" mfu={mfu:.4}"));
    }
    line.push_str(&format!(
        " micro_num={micro_num} num_consumed_tokens={} inf_nan_skip_batches={} acc={:.4} perplexity={:.2} fwd_bwd_time={:.3} data_time={:.3} mem_gib={:.2}",
        r.num_consumed_tokens, r.inf_nan_skip_batches, r.acc, r.perplexity, r.fwd_bwd_time, r.data_time, r.mem_gib
    ));
    if let Some(valid) = r.valid_loss {
        line.push_str(&format!(" valid_loss={valid:.4}"));
    }
    line.push_str(&format!(" eta=\"{}\"", terminal::duration(eta)));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_key_value_pairs_that_a_script_can_split() {
        let record =
            StepRecord { step: 20, loss: 4.25, mfu: Some(0.31), valid_loss: Some(4.5), ..StepRecord::default() };
        let line = log_line(&record, 2, 61.0);
        assert!(line.starts_with("step=20 loss=4.2500 lr="), "{line}");
        assert!(line.ends_with("valid_loss=4.5000 eta=\"1 min 01 s\""), "{line}");
        let pairs = line.split_once(" eta=").expect("eta is last").0;
        assert!(pairs.split(' ').all(|pair| pair.split('=').count() == 2), "{line}");
    }
}
