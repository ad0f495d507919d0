//! Corpus pipeline of internevo: documents, filters, dedup, safety, quality, tokenizer, packing, loader.
