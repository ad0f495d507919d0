//! Rules of the corpus, the pipeline, the tokenizer and the batch shape.

use super::Rules;
use crate::config::{Config, CorpusConfig, DataConfig, FILTER_STAGES, HUGGING_FACE, PipelineConfig};

/// The stages of the corpus pipeline, in the order of the InternLM2 report (section 3.1.1).
const STAGES: [&str; 5] = ["format", "clean", "dedup", "safe", "quality"];

/// Least vocabulary of a byte-level tokenizer: 256 bytes and room for special tokens.
const LEAST_VOCAB: usize = 264;

pub(super) fn corpus(corpus: &CorpusConfig, rules: &mut Rules) {
    rules.share("corpus.valid_fraction", corpus.valid_fraction, 0.5);
    rules.check(corpus.inputs.iter().all(|i| !i.is_empty()), &["corpus.inputs"], || {
        "an empty path names no file or folder".to_owned()
    });
}

pub(super) fn pipeline(pipeline: &PipelineConfig, rules: &mut Rules) {
    stages(&pipeline.stages, rules);
    rules.distinct_names("pipeline.clean", &pipeline.clean);
    rules.distinct_names("pipeline.safe", &pipeline.safe);
    rules.distinct_names("pipeline.quality", &pipeline.quality);
    for strategy in &pipeline.strategy {
        for names in FILTER_STAGES.iter().filter_map(|stage| strategy.filters(stage)) {
            rules.distinct_names("pipeline.strategy", names);
        }
    }
    let dedup = &pipeline.dedup;
    rules.at_least_one("pipeline.dedup.bands", dedup.bands);
    rules.at_least_one("pipeline.dedup.rows", dedup.rows);
    rules.at_least_one("pipeline.dedup.ngram", dedup.ngram);
    rules.check(dedup.threshold > 0.0 && dedup.threshold <= 1.0, &["pipeline.dedup.threshold"], || {
        format!("{} must be above 0 and at most 1", dedup.threshold)
    });
    rules.one_of("pipeline.dedup.keep", &dedup.keep, &["newest", "longest", "best_score", "first"]);
    rules.check(
        dedup.false_positives > 0.0 && dedup.false_positives < 1.0,
        &["pipeline.dedup.false_positives"],
        || format!("{} must be above 0 and below 1", dedup.false_positives),
    );
}

fn stages(stages: &[String], rules: &mut Rules) {
    let key = "pipeline.stages";
    for stage in stages {
        rules.one_of(key, stage, &STAGES);
    }
    let places: Vec<_> = stages.iter().filter_map(|s| STAGES.iter().position(|known| known == s)).collect();
    rules.check(places.is_sorted_by(|a, b| a < b), &[key], || {
        format!("stages run once each, in the order {}", STAGES.join(", "))
    });
    rules.check(stages.first().is_some_and(|s| s == STAGES[0]), &[key], || {
        "the first stage must be `format`: it turns files into documents".to_owned()
    });
}

pub(super) fn tokenizer(config: &Config, rules: &mut Rules) {
    let (tokenizer, model) = (&config.tokenizer, &config.model);
    rules.check(tokenizer.vocab_size >= LEAST_VOCAB, &["tokenizer.vocab_size"], || {
        format!("{} is below {LEAST_VOCAB}: 256 bytes and the special tokens", tokenizer.vocab_size)
    });
    let trained_here =
        tokenizer.kind == HUGGING_FACE && tokenizer.file.is_empty() && config.data.train_folder.is_empty();
    let fits = !trained_here || model.vocab_size == 0 || model.vocab_size >= tokenizer.vocab_size;
    rules.check(fits, &["model.vocab_size", "tokenizer.vocab_size", "tokenizer.file", "data.train_folder"], || {
        let (rows, tokens) = (model.vocab_size, tokenizer.vocab_size);
        format!("{rows} rows are too few for a tokenizer of {tokens} (`tokenizer.vocab_size`); 0 = automatic")
    });
}

pub(super) fn batches(data: &DataConfig, rules: &mut Rules) {
    rules.at_least_one("data.seq_len", data.seq_len);
    rules.at_least_one("data.micro_bsz", data.micro_bsz);
    rules.at_least_one("data.micro_num", data.micro_num);
    rules.at_least_one("data.valid_micro_num", data.valid_micro_num);
    rules.at_least_one("data.total_steps", data.total_steps);
    let tokens = data.seq_len.checked_mul(data.micro_bsz).filter(|n| u32::try_from(*n).is_ok());
    rules.check(tokens.is_some(), &["data.seq_len", "data.micro_bsz"], || {
        format!("{} * {} tokens do not fit in one packed row", data.seq_len, data.micro_bsz)
    });
    rules.check(data.seq_len != 1, &["data.seq_len"], || "one token predicts nothing".to_owned());
}
