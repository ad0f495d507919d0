//! Whether every layout trains the same model: a small decoder is trained on one rank and on every layout, and losses and
//! gradients are compared by the rules of the design.
//!
//! | file | holds |
//! |---|---|
//! | `case.rs` | a layout by its name: `msp2+dp2+zero3` |
//! | `matrix.rs` | which layouts are tried, and which must be refused |
//! | `problem.rs` | the model, and micro-batches of uneven documents with masked tokens |
//! | `measure.rs` | training one layout, and its distance from one rank |
//! | `document.rs` | the composability matrix |

mod case;
mod document;
mod matrix;
mod measure;
mod problem;

pub use case::{Case, CaseError};
pub use document::markdown;
pub use matrix::{cases, refusals};
pub use measure::{Deviation, Reference, Rule, measure};
