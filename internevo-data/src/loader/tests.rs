//! What the loader promises, on stores of random documents.

use std::collections::HashMap;

use internevo_core::batch::IGNORE_INDEX;
use proptest::prelude::*;

use super::*;
use crate::store::{MegatronWriter, TokenType};

/// A store whose tokens are all different: 1000 · (document + 1) + place in the document, so that a batch tells by itself
/// where each token came from.
fn store(lengths: &[usize]) -> Arc<TokenStore> {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = MegatronWriter::create(folder.path().join("train"), TokenType::I32).unwrap();
    for (document, length) in lengths.iter().enumerate() {
        writer.push(&(0..*length).map(|place| token(document, place)).collect::<Vec<_>>()).unwrap();
    }
    writer.finish().unwrap();
    // The map outlives the name of the file.
    Arc::new(TokenStore::open_folder(folder.path(), "train").unwrap())
}

fn token(document: usize, place: usize) -> i32 {
    (1000 * (document + 1) + place) as i32
}

fn config(seq_len: usize, micro_bsz: usize) -> LoaderConfig {
    LoaderConfig { seq_len, micro_bsz, seed: 7, min_length: 1, pack_sample_into_one: false, shuffle: true }
}

fn segments(batch: &PackedBatch) -> impl Iterator<Item = Range<usize>> {
    batch.cu_seqlens.windows(2).map(|w| w[0] as usize..w[1] as usize)
}

fn all_rows(loader: &PackedLoader, epoch: u64) -> Vec<PackedBatch> {
    let rows = loader.rows_per_epoch();
    (epoch * rows..(epoch + 1) * rows).map(|row| loader.micro_batch(row).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_token_of_every_long_document_comes_once_per_epoch_but_for_the_tail(
        lengths in proptest::collection::vec(0usize..90, 1..30),
        seq_len in 1usize..40,
        min_length in 0usize..20,
        epoch in 0u64..3,
        shuffle: bool,
    ) {
        let long = |length: &usize| *length >= min_length.max(1);
        let total: usize = lengths.iter().filter(|l| long(l)).sum();
        let loader = PackedLoader::new(store(&lengths), LoaderConfig { min_length, shuffle, ..config(seq_len, 1) });
        prop_assume!(total >= seq_len);
        let loader = loader.unwrap();
        let mut seen: HashMap<u32, usize> = HashMap::new();
        for batch in all_rows(&loader, epoch) {
            prop_assert_eq!(batch.tokens.len(), seq_len);
            batch.tokens.iter().for_each(|t| *seen.entry(*t).or_default() += 1);
        }
        prop_assert!(seen.values().all(|count| *count == 1));
        prop_assert_eq!(seen.len(), total / seq_len * seq_len);
        for token in seen.keys().map(|token| *token as usize) {
            prop_assert!(long(&lengths[token / 1000 - 1]));
        }
        prop_assert_eq!(loader.documents_left_out(), lengths.iter().filter(|l| !long(l)).count());
    }

    #[test]
    fn segments_are_pieces_of_one_document_and_labels_the_tokens_behind(
        lengths in proptest::collection::vec(1usize..90, 1..20),
        seq_len in 1usize..40,
        micro_bsz in 1usize..4,
        index in 0u64..40,
    ) {
        prop_assume!(lengths.iter().sum::<usize>() >= seq_len);
        let loader = PackedLoader::new(store(&lengths), config(seq_len, micro_bsz)).unwrap();
        let batch = loader.micro_batch(index).unwrap();
        prop_assert_eq!(batch.tokens.len(), seq_len * micro_bsz);
        prop_assert_eq!(batch.labels.len(), batch.tokens.len());
        prop_assert_eq!(*batch.cu_seqlens.last().unwrap() as usize, batch.tokens.len());
        prop_assert_eq!(batch.cu_seqlens[0], 0);
        for segment in segments(&batch) {
            prop_assert!(!segment.is_empty());
            prop_assert_eq!(segment.start / seq_len, (segment.end - 1) / seq_len, "a segment stays in its row");
            for (position, at) in segment.enumerate() {
                let (document, place) = (batch.tokens[at] as usize / 1000 - 1, batch.tokens[at] as usize % 1000);
                prop_assert_eq!(batch.position_ids[at] as usize, position);
                let ends = place + 1 == lengths[document];
                prop_assert_eq!(batch.labels[at], if ends { IGNORE_INDEX } else { token(document, place + 1) });
                prop_assert!(position == 0 || batch.tokens[at] == batch.tokens[at - 1] + 1);
            }
        }
    }

    #[test]
    fn any_split_of_a_step_into_ranks_and_micro_batches_reads_the_same_rows(
        lengths in proptest::collection::vec(1usize..60, 2..20), step in 0u64..9,
    ) {
        prop_assume!(lengths.iter().sum::<usize>() >= 8);
        let store = store(&lengths);
        let whole = PackedLoader::new(Arc::clone(&store), config(8, 4)).unwrap().micro_batch(step).unwrap();
        let single = PackedLoader::new(store, config(8, 1)).unwrap();
        let rows: Vec<u32> = (0..4).flat_map(|row| single.micro_batch(step * 4 + row).unwrap().tokens).collect();
        prop_assert_eq!(rows, whole.tokens);
    }
}

#[test]
fn a_whole_row_as_one_segment_predicts_across_documents() {
    let lengths = [5, 3, 9, 1, 7];
    let order = LoaderConfig { pack_sample_into_one: true, shuffle: false, ..config(6, 2) };
    let loader = PackedLoader::new(store(&lengths), order).unwrap();
    let stream: Vec<i32> =
        lengths.iter().enumerate().flat_map(|(d, length)| (0..*length).map(move |place| token(d, place))).collect();
    let batches: Vec<_> = (0..2).map(|i| loader.micro_batch(i).unwrap()).collect();
    assert!(batches.iter().all(|batch| batch.cu_seqlens == [0, 6, 12]));
    assert_eq!(batches[1].position_ids, [0, 1, 2, 3, 4, 5].repeat(2));
    let labels: Vec<i32> = batches.iter().flat_map(|batch| batch.labels.clone()).collect();
    assert_eq!(labels, stream[1..25]);
    // 25 tokens: with rows of 5 the last one ends the stream, and has no label at its end.
    let order = LoaderConfig { pack_sample_into_one: true, shuffle: false, ..config(5, 1) };
    let last = PackedLoader::new(store(&lengths), order).unwrap().micro_batch(4).unwrap();
    assert_eq!(last.labels[3..], [stream[24], IGNORE_INDEX]);
}

#[test]
fn epochs_differ_in_order_and_a_fixed_order_does_not() {
    let lengths = [13; 20];
    let shuffled = PackedLoader::new(store(&lengths), config(8, 1)).unwrap();
    assert_ne!(all_rows(&shuffled, 0), all_rows(&shuffled, 1));
    let fixed = PackedLoader::new(store(&lengths), LoaderConfig { shuffle: false, ..config(8, 1) }).unwrap();
    assert_eq!(all_rows(&fixed, 0), all_rows(&fixed, 5));
    assert_eq!(fixed.micro_batch(0).unwrap().tokens[..3], [1000, 1001, 1002]);
    assert_eq!(fixed.evaluation(1000), 0..32);
    assert_eq!(fixed.evaluation(3), 0..3);
}

#[test]
fn a_resumed_loader_goes_on_where_the_first_one_stopped() {
    let lengths: Vec<usize> = (0..40).map(|i| i * 7 % 53).collect();
    let first = PackedLoader::new(store(&lengths), config(16, 2)).unwrap();
    let all: Vec<_> = (0..90).map(|i| first.micro_batch(i).unwrap()).collect();
    assert!(first.rows_per_epoch() < 90, "the test must pass the end of an epoch");
    let json = serde_json::to_string(&first.state(37)).unwrap();

    let resumed = Arc::new(PackedLoader::new(store(&lengths), config(16, 2)).unwrap());
    let next = resumed.check(&serde_json::from_str(&json).unwrap()).unwrap();
    assert_eq!(next, 37);
    let rest: Vec<_> = resumed.prefetch(next..90, 3).unwrap().map(Result::unwrap).collect();
    assert_eq!(rest, all[37..]);
}

#[test]
fn a_state_of_other_data_is_refused_with_every_difference() {
    let state = PackedLoader::new(store(&[30, 40]), config(16, 2)).unwrap().state(3);
    let other = PackedLoader::new(store(&[30, 41]), LoaderConfig { seed: 8, ..config(8, 2) }).unwrap();
    let error = other.check(&state).unwrap_err().to_string();
    for part in ["seed was 7, is 8", "data.seq_len was 16, is 8", "70 tokens", "71 tokens"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let wider = PackedLoader::new(store(&[30, 40]), config(16, 3)).unwrap();
    assert_eq!(wider.check(&state).unwrap(), 2);
    let error = PackedLoader::new(store(&[30, 40]), config(16, 4)).unwrap().check(&state).unwrap_err().to_string();
    assert!(error.contains("6 rows") && error.contains("micro_bsz = 4"), "{error}");
}

#[test]
fn a_negative_token_is_input_but_never_a_label() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = MegatronWriter::create(folder.path().join("train"), TokenType::I32).unwrap();
    writer.push(&[-5, -6, 7, -8]).unwrap();
    writer.finish().unwrap();
    let store = Arc::new(TokenStore::open_folder(folder.path(), "train").unwrap());
    let batch = PackedLoader::new(store, config(4, 1)).unwrap().micro_batch(0).unwrap();
    assert_eq!(batch.tokens, [5, 6, 7, 8]);
    assert_eq!(batch.labels, [IGNORE_INDEX, 7, IGNORE_INDEX, IGNORE_INDEX]);
}

#[test]
fn a_store_smaller_than_a_row_and_a_token_outside_the_vocabulary_are_named() {
    let error = PackedLoader::new(store(&[30, 40]), LoaderConfig { min_length: 35, ..config(64, 1) }).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("40 tokens in 1 documents") && error.contains("seq_len = 64"), "{error}");
    assert!(PackedLoader::new(store(&[30]), config(0, 1)).unwrap_err().to_string().contains("seq_len = 0"));
    let loader = PackedLoader::new(store(&[30]), config(8, 1)).unwrap().with_vocab_size(1000);
    let error = loader.micro_batch(0).unwrap_err().to_string();
    assert!(error.contains("document 0") && error.contains("vocabulary has 1000"), "{error}");
}

#[test]
fn reading_ahead_stops_at_an_error_and_when_nobody_listens() {
    let loader = Arc::new(PackedLoader::new(store(&[30]), config(8, 1)).unwrap().with_vocab_size(1016));
    let batches: Vec<bool> = loader.prefetch(0..30, 2).unwrap().map(|batch| batch.is_ok()).collect();
    assert_eq!(batches.iter().filter(|ok| !**ok).count(), 1);
    assert_eq!(batches.last(), Some(&false));
    let endless = Arc::new(PackedLoader::new(store(&[30]), config(8, 1)).unwrap());
    assert!(endless.prefetch(0.., 2).unwrap().next().unwrap().is_ok());
}
