//! The internevo binary: train, data, tokenizer, export, generate, report.
