//! Filters around a classifier of any kind: `classified.rs` asks one question (`fluency`, `toxicity`, …), `rules.rs` is `classifier`,
//! with limits for any labels.

mod classified;
mod rules;

pub use self::{
    classified::{Classified, ClassifiedConfig, Question},
    rules::{ClassifierFilter, ClassifierFilterConfig, ClassifierRule},
};
