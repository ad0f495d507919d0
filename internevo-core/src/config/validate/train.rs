//! Rules of the optimizer, the schedules, checkpoints and the monitor.

use super::Rules;
use crate::config::schema::{CkptConfig, Config, MonitorConfig};

/// What `ckpt.load_ckpt_content` may name.
const CONTENT: [&str; 5] = ["all", "model", "optimizer", "sampler", "scheduler"];

/// InternEvo's prefixes of remote storage.
const REMOTE: [&str; 3] = ["boto3:", "oss2:", "volc:"];

pub(super) fn optimizer(config: &Config, rules: &mut Rules) {
    rules.below_one("loss.label_smoothing", config.loss.label_smoothing);
    rules.check(!config.optimizer.kind.is_empty(), &["optimizer.kind"], || "must name an optimizer".to_owned());
    let adam = &config.adam;
    rules.positive("adam.lr", adam.lr);
    rules.below_one("adam.adam_beta1", adam.adam_beta1);
    rules.below_one("adam.adam_beta2", adam.adam_beta2);
    rules.positive("adam.adam_eps", adam.adam_eps);
    rules.not_negative("adam.weight_decay", adam.weight_decay);
}

pub(super) fn schedules(config: &Config, rules: &mut Rules) {
    let lr = &config.lr_scheduler;
    rules.check(!lr.kind.is_empty(), &["lr_scheduler.kind"], || "must name a schedule".to_owned());
    rules.share("lr_scheduler.warmup_ratio", lr.warmup_ratio, 1.0);
    rules.share("lr_scheduler.decay_ratio", lr.decay_ratio, 1.0);
    rules.not_negative("lr_scheduler.eta_min", lr.eta_min);
    rules.check(lr.eta_min <= config.adam.lr, &["lr_scheduler.eta_min", "adam.lr"], || {
        format!("the final learning rate {} is above the peak {} (`adam.lr`)", lr.eta_min, config.adam.lr)
    });
    let total = if lr.total_steps == 0 { config.data.total_steps } else { lr.total_steps };
    let keys = ["lr_scheduler.init_steps", "lr_scheduler.total_steps", "data.total_steps"];
    rules.check(lr.init_steps == 0 || lr.init_steps < total, &keys, || {
        format!("{} steps without learning are not below the schedule's {total}", lr.init_steps)
    });
    let beta2 = &config.beta2_scheduler;
    rules.below_one("beta2_scheduler.init_beta2", beta2.init_beta2);
    rules.not_negative("beta2_scheduler.c", beta2.c);
}

pub(super) fn checkpoints(ckpt: &CkptConfig, rules: &mut Rules) {
    for name in &ckpt.load_ckpt_content {
        rules.one_of("ckpt.load_ckpt_content", name, &CONTENT);
    }
    rules.distinct_names("ckpt.load_ckpt_content", &ckpt.load_ckpt_content);
    rules.check(!ckpt.load_ckpt_content.is_empty(), &["ckpt.load_ckpt_content"], || {
        format!("names nothing to load; known: {}", CONTENT.join(", "))
    });
    for (key, folder) in
        [("ckpt.save_ckpt_folder", &ckpt.save_ckpt_folder), ("ckpt.load_ckpt_folder", &ckpt.load_ckpt_folder)]
    {
        rules.check(!REMOTE.iter().any(|prefix| folder.starts_with(prefix)), &[key], || {
            format!("`{folder}`: remote storage is not supported in this version; use a local folder or `local:`")
        });
    }
}

pub(super) fn monitor(monitor: &MonitorConfig, rules: &mut Rules) {
    rules.at_least_one("monitor.log_every", monitor.log_every);
    rules.distinct_names("monitor.sinks", &monitor.sinks);
    rules.not_negative("monitor.peak_tflops", monitor.peak_tflops);
    rules.check(monitor.prompts.iter().all(|p| !p.is_empty()), &["monitor.prompts"], || {
        "a prompt must not be empty".to_owned()
    });
    let samples = monitor.prompts.is_empty() || monitor.sample_tokens > 0;
    rules.check(samples, &["monitor.sample_tokens", "monitor.prompts"], || {
        "samples need at least one token; an empty `monitor.prompts` turns them off".to_owned()
    });
}
