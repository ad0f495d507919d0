//! The element-wise part of a score tile: masked softmax with running maximum, and its gradient.

use crate::simd::{LANES, exp, exp_row, madd, max_row, multiversion, reduce2};
use std::ops::Range;

/// Which part of a tile each stacked row sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    /// Positions per head in the stack: row `r` is position `r % positions`.
    pub positions: usize,
    /// The first key of this tile that position 0 sees and one past its last, not cut to the tile; those of position `p` are
    /// `p` further.
    pub visible: (isize, isize),
    /// Keys in the tile, the width of a score row.
    pub keys: usize,
}

impl Mask {
    #[inline(always)]
    fn visible(&self, row: usize) -> Range<usize> {
        let (position, keys) = ((row % self.positions) as isize, self.keys as isize);
        let start = (self.visible.0 + position).clamp(0, keys);
        start as usize..(self.visible.1 + position).clamp(start, keys) as usize
    }
}

/// Hides what is not `visible` of a score row and returns the part to exponentiate: the visible scores, padded with `-∞`
/// to whole vectors because a short tail costs as much as a long row. The rest becomes zero.
#[inline(always)]
fn mask_row(row: &mut [f32], visible: Range<usize>) -> &mut [f32] {
    if visible.is_empty() {
        row.fill(0.0);
        return &mut [];
    }
    let start = visible.start / LANES * LANES;
    let end = visible.end.next_multiple_of(LANES).min(row.len());
    row[..start].fill(0.0);
    row[start..visible.start].fill(f32::NEG_INFINITY);
    row[visible.end..end].fill(f32::NEG_INFINITY);
    row[end..].fill(0.0);
    &mut row[start..end]
}

multiversion! {
    /// Turns scores into unnormalised probabilities and moves the running `maximum` and `sum` of each row on; rows of
    /// `output` gathered so far are rescaled to the new maximum.
    pub(super) fn online_softmax<const FMA>(
        scores: &mut [f32], mask: Mask, scale: f32, maximum: &mut [f32], sum: &mut [f32], output: &mut [f32], first: bool,
    ) {
        let width = output.len() / maximum.len();
        for (r, row) in scores.chunks_exact_mut(mask.keys).enumerate() {
            let seen = mask_row(row, mask.visible(r));
            let local = max_row(seen) * scale;
            let new = if local > maximum[r] { local } else { maximum[r] };
            let added = exp_row::<FMA>(seen, scale, new);
            if first {
                sum[r] = added;
            } else {
                // Equal also where both are -∞: the row has seen no key.
                let shrink = if maximum[r] == new { 1.0 } else { exp::<FMA>(maximum[r] - new) };
                sum[r] = madd::<FMA>(sum[r], shrink, added);
                for value in &mut output[r * width..][..width] {
                    *value *= shrink;
                }
            }
            maximum[r] = new;
        }
    }
}

multiversion! {
    /// Divides each row of `output` by its `sum` and turns `maximum` into the log-sum-exp. A row that has seen no key stays
    /// zero and `-∞`.
    pub(super) fn finish_rows<const FMA>(output: &mut [f32], maximum: &mut [f32], sum: &[f32]) {
        let _ = FMA;
        let width = output.len() / sum.len();
        for ((row, maximum), sum) in output.chunks_exact_mut(width).zip(maximum).zip(sum) {
            let factor = if *sum == 0.0 { 0.0 } else { 1.0 / *sum };
            for value in row {
                *value *= factor;
            }
            *maximum += sum.ln();
        }
    }
}

multiversion! {
    /// Turns scores into normalised probabilities from the saved log-sum-exp.
    pub(super) fn probabilities<const FMA>(scores: &mut [f32], mask: Mask, scale: f32, log_sum_exp: &[f32]) {
        for (r, row) in scores.chunks_exact_mut(mask.keys).enumerate() {
            let seen = mask_row(row, mask.visible(r));
            exp_row::<FMA>(seen, scale, log_sum_exp[r]);
        }
    }
}

multiversion! {
    /// Turns gradients of probabilities into gradients of raw scores: `p (dp - delta) scale`, zero where hidden.
    pub(super) fn score_gradients<const FMA>(
        d_probabilities: &mut [f32], probabilities: &[f32], mask: Mask, scale: f32, delta: &[f32],
    ) {
        let rows = d_probabilities.chunks_exact_mut(mask.keys).zip(probabilities.chunks_exact(mask.keys));
        for (r, (row, p)) in rows.enumerate() {
            let visible = mask.visible(r);
            row[..visible.start].fill(0.0);
            row[visible.end..].fill(0.0);
            for (dp, p) in row[visible.clone()].iter_mut().zip(&p[visible]) {
                *dp = (*dp - delta[r]) * *p * scale;
            }
        }
    }
}

multiversion! {
    /// `delta[r] = Σ gradient[r] · output[r]`, the part of the softmax gradient that is common to a row.
    pub(super) fn row_products<const FMA>(gradient: &[f32], output: &[f32], delta: &mut [f32]) {
        let width = gradient.len() / delta.len();
        for ((g, o), delta) in gradient.chunks_exact(width).zip(output.chunks_exact(width)).zip(delta) {
            *delta = reduce2(g, o, |sum, a, b| madd::<FMA>(a, b, sum));
        }
    }
}
