//! Rules of the parallel layout, and what this version runs of it.

use super::Rules;
use crate::{config::schema::Config, layout::ParallelLayout};

pub(super) fn parallel(config: &Config, rules: &mut Rules) {
    let parallel = &config.parallel;
    let mut refused = Vec::new();
    for (key, size, name) in [
        ("parallel.tensor.size", parallel.tensor.size, "tensor"),
        ("parallel.pipeline.size", parallel.pipeline.size, "pipeline"),
        ("parallel.weight.size", parallel.weight.size, "weight"),
    ] {
        if size > 1 {
            refused.push(key);
        }
        rules.check(size <= 1, &[key], || {
            format!("this version runs data parallelism and ZeRO-1; {name} parallelism of {size} is not supported, set it to 1")
        });
    }
    if let Err(errors) = ParallelLayout::new(parallel, config.launch.ranks) {
        for violation in errors.0.into_iter().filter(|v| !refused.contains(&v.key)) {
            let keys = match violation.key {
                "launch.ranks" => vec!["launch.ranks"],
                "parallel.tensor.mode" => vec!["parallel.tensor.mode"],
                key => vec![key, "launch.ranks"],
            };
            rules.check(false, &keys, || violation.message);
        }
    }
    let bucket = config.hybrid_zero_optimizer.reduce_bucket_size;
    rules.check(bucket >= 4, &["hybrid_zero_optimizer.reduce_bucket_size"], || {
        format!("a bucket of {bucket} bytes holds no element")
    });
    rules.not_negative("hybrid_zero_optimizer.clip_grad_norm", config.hybrid_zero_optimizer.clip_grad_norm);
    rules.one_of("hybrid_zero_optimizer.reduction", &config.hybrid_zero_optimizer.reduction, &["tree", "sequential"]);
}
