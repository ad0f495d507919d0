//! Tokens, labels and segments of one row.
//!
//! The label of a token is the next token of its document, also where the row ends between the two; the last token of a
//! document has none. With `pack_sample_into_one` the label is the next token of the stream, whichever document it is in,
//! and only the last token of an epoch has none. A negative token is input by its absolute value and is no label (InternEvo).

use internevo_core::batch::{IGNORE_INDEX, PackedBatch};

use super::{
    LoaderError, PackedLoader,
    plan::{EpochPlan, Piece},
};

impl PackedLoader {
    /// Appends row `row` of the stream to `batch`.
    pub(super) fn append_row(&self, plan: &EpochPlan, row: u64, batch: &mut PackedBatch) -> Result<(), LoaderError> {
        let seq_len = self.config.seq_len as u64;
        let mut tokens = Vec::new();
        let row_start = batch.tokens.len();
        for piece in plan.pieces(row * seq_len, (row + 1) * seq_len) {
            tokens.clear();
            self.read_with_next(&piece, &mut tokens)?;
            let labels = tokens[1..].iter().map(|next| if *next < 0 { IGNORE_INDEX } else { *next });
            batch.labels.extend(labels);
            batch.tokens.extend(tokens[..piece.length].iter().map(|token| token.unsigned_abs()));
            batch.labels.resize(batch.tokens.len(), IGNORE_INDEX);
            self.check_vocabulary(&piece, &tokens)?;
            if !self.config.pack_sample_into_one {
                close_segment(batch);
            }
        }
        if self.config.pack_sample_into_one {
            close_segment(batch);
        }
        debug_assert_eq!(batch.tokens.len() - row_start, self.config.seq_len);
        Ok(())
    }

    /// The tokens of `piece`, and the one behind them where it is a label.
    fn read_with_next(&self, piece: &Piece, tokens: &mut Vec<i32>) -> Result<(), LoaderError> {
        let end = piece.offset + piece.length + usize::from(!piece.is_end);
        self.store.read(piece.document, piece.offset..end, tokens)?;
        match piece.next {
            Some(next) if piece.is_end && self.config.pack_sample_into_one => {
                Ok(self.store.read(next, 0..1, tokens)?)
            }
            _ => Ok(()),
        }
    }

    fn check_vocabulary(&self, piece: &Piece, tokens: &[i32]) -> Result<(), LoaderError> {
        match tokens.iter().map(|token| token.unsigned_abs()).find(|token| u64::from(*token) >= self.vocab_size) {
            None => Ok(()),
            Some(token) => Err(LoaderError::Vocabulary {
                place: self.store.place().into(),
                document: piece.document,
                token,
                vocab_size: self.vocab_size as usize,
            }),
        }
    }
}

/// Ends a segment at the last token and numbers its positions.
fn close_segment(batch: &mut PackedBatch) {
    let end = batch.tokens.len() as u32;
    let start = batch.cu_seqlens.last().copied().unwrap_or(0);
    batch.position_ids.extend(0..end - start);
    batch.cu_seqlens.push(end);
}
