//! The f32 product on processors with AVX-512: both operands packed in panels, multiplied in register tiles.
//!
//! The inner dimension is cut into chunks by its length alone. An element is the sum of its chunks in order, each chunk a
//! chain of fused multiply-adds in order: its bits depend on the row of `a` and the column of `b` and on nothing else.
//!
//! Panels of `b` are `[inner][COLUMNS]`, zeros beyond the edge. A panel of `a` is one row of tiles, in the orientation that the
//! operand has: packing it never transposes.

use super::{Matrix, Target};
use std::arch::x86_64::*;
use std::cell::RefCell;

/// Lanes of a vector.
const LANES: usize = 16;
/// Rows of a register tile: with two vectors of columns that is 28 accumulators, two vectors of `b` and one broadcast of `a`.
const ROWS: usize = 14;
/// Columns of a register tile.
const COLUMNS: usize = 2 * LANES;
/// Most inner elements handled at once: a panel of `a`, 28 KiB, then stays in the first-level cache.
const INNER: usize = 512;
/// Most columns handled at once: their panels, at most 1 MiB, stay in the second-level cache.
const BLOCK: usize = 512;
/// Distance of rows in a panel of `a` whose inner dimension is adjacent: no power of two, or they would share a cache set.
const PITCH: usize = INNER + LANES;

/// Fewest rows and columns of a product in tiles: below, packing costs more than it saves.
const SMALLEST: usize = 8;

/// Whether this processor has the instructions and a product of `a` and `b` is large enough.
pub fn suit(a: Matrix<'_>, b: Matrix<'_>) -> bool {
    a.rows >= SMALLEST && b.columns >= SMALLEST && a.columns >= SMALLEST && is_x86_feature_detected!("avx512f")
}

/// A vector in memory, aligned so that loading it touches one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

impl Line {
    const ZERO: Self = Self([0.0; LANES]);
}

/// A row of a panel of `b`.
type Row = [Line; COLUMNS / LANES];

/// Panels of one thread.
#[derive(Default)]
struct Panels {
    a: Vec<Line>,
    b: Vec<Row>,
}

thread_local! {
    static PANELS: RefCell<Panels> = RefCell::default();
}

/// The product on this thread.
///
/// # Safety
/// As [`super::multiply_raw`]; [`suit`] must hold.
pub unsafe fn multiply(target: Target, accumulate: bool, a: Matrix<'_>, b: Matrix<'_>) {
    // SAFETY: the caller's promise.
    PANELS.with_borrow_mut(|panels| unsafe { panels.multiply(target, accumulate, a, b) });
}

impl Panels {
    /// # Safety
    /// As [`multiply`].
    #[target_feature(enable = "avx512f")]
    unsafe fn multiply(&mut self, target: Target, accumulate: bool, a: Matrix<'_>, b: Matrix<'_>) {
        let (rows, inner) = (even_part(a.rows, ROWS), even_part(a.columns, INNER));
        for first_column in (0..b.columns).step_by(BLOCK) {
            let columns = BLOCK.min(b.columns - first_column);
            for start in (0..a.columns).step_by(inner) {
                let inner = inner.min(a.columns - start);
                self.pack_b(b.window(start, first_column, inner, columns));
                for first_row in (0..a.rows).step_by(rows) {
                    let band = a.window(first_row, start, rows.min(a.rows - first_row), inner);
                    let tiles = self.pack_a(band);
                    for (index, b) in self.b.chunks_exact(inner).enumerate() {
                        let column = index * COLUMNS;
                        let place = target.row(first_row) + first_column + column;
                        // SAFETY: the tile begins inside the target and writes the rows of `a` and the columns of `b` that there are.
                        unsafe {
                            let target = target.offset(place);
                            tiles(&self.a, b, target, columns - column, accumulate || start > 0);
                        }
                    }
                }
            }
        }
    }

    /// Packs all columns of `b`.
    #[target_feature(enable = "avx512f")]
    fn pack_b(&mut self, b: Matrix<'_>) {
        self.b.resize(b.columns.div_ceil(COLUMNS) * b.rows, [Line::ZERO; COLUMNS / LANES]);
        for (index, panel) in self.b.chunks_exact_mut(b.rows).enumerate() {
            let first = index * COLUMNS;
            let b = b.window(0, first, b.rows, COLUMNS.min(b.columns - first));
            if b.column_stride == 1 { copy_panel(b, panel) } else { transpose_panel(b, panel) }
        }
    }

    /// Packs all rows of `a`, [`ROWS`] at most, and returns the tile for such a panel.
    #[target_feature(enable = "avx512f")]
    fn pack_a(&mut self, a: Matrix<'_>) -> Tile {
        self.a.resize(ROWS * PITCH / LANES, Line::ZERO);
        if a.column_stride == 1 {
            for (row, target) in self.a.chunks_exact_mut(PITCH / LANES).take(a.rows).enumerate() {
                let source = &a.data[row * a.row_stride..][..a.columns];
                target.iter_mut().zip(source.chunks(LANES)).for_each(|(line, source)| *line = load(source, LANES));
            }
            return ALONG_ROWS[a.rows - 1];
        }
        let panel = self.a.as_mut_ptr().cast::<f32>();
        for column in 0..a.columns {
            let line = load(&a.data[column * a.column_stride..], a.rows);
            // SAFETY: `column` is below `INNER`, whose lines at this distance fit, with one to spare; each overwrites the zeros that
            // the one before it left beyond its rows.
            unsafe { panel.add(column * ROWS).cast::<Line>().write_unaligned(line) };
        }
        ALONG_COLUMNS[a.rows - 1]
    }
}

/// The length of equal parts of `length`, `most` at most; the last may be shorter.
fn even_part(length: usize, most: usize) -> usize {
    length.div_ceil(length.div_ceil(most))
}

/// The mask of the first `count` lanes.
fn first_lanes(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

/// The first `count` elements of `source` (at most [`LANES`], and as many as there are) and zeros.
#[target_feature(enable = "avx512f")]
fn load(source: &[f32], count: usize) -> Line {
    let mask = first_lanes(count.min(source.len()));
    // SAFETY: the mask lets only elements of the slice be read; a vector and a line are the same 64 bytes.
    unsafe { std::mem::transmute::<__m512, Line>(_mm512_maskz_loadu_ps(mask, source.as_ptr())) }
}

/// Packs a panel whose columns are adjacent.
#[target_feature(enable = "avx512f")]
fn copy_panel(b: Matrix<'_>, panel: &mut [Row]) {
    for (row, target) in panel.iter_mut().enumerate() {
        let source = &b.data[row * b.row_stride..][..b.columns];
        for (half, line) in target.iter_mut().enumerate() {
            *line = load(&source[(half * LANES).min(b.columns)..], LANES);
        }
    }
}

/// Packs a panel whose inner dimension is adjacent.
#[target_feature(enable = "avx512f")]
fn transpose_panel(b: Matrix<'_>, panel: &mut [Row]) {
    for (block, target) in panel.chunks_mut(LANES).enumerate() {
        for half in 0..COLUMNS / LANES {
            let mut square = [Line::ZERO; LANES];
            let columns = (half * LANES..b.columns).take(LANES);
            for (line, column) in square.iter_mut().zip(columns) {
                *line = load(&b.data[column * b.column_stride + block * LANES..], target.len());
            }
            target.iter_mut().zip(transpose(square)).for_each(|(row, line)| row[half] = line);
        }
    }
}

/// The transpose of a square of vectors.
#[target_feature(enable = "avx512f")]
fn transpose(square: [Line; LANES]) -> [Line; LANES] {
    // SAFETY: a line and a vector are the same 64 bytes.
    let rows = square.map(|line| unsafe { std::mem::transmute::<Line, __m512>(line) });
    let double = |x: __m512| _mm512_castps_pd(x);
    let mut pairs = rows;
    for i in (0..LANES).step_by(2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    // Vector `4i + j` holds columns j, j + 4, j + 8, j + 12 of rows 4i..4i + 4.
    let mut fours = pairs;
    for i in (0..LANES).step_by(4) {
        for j in 0..2 {
            let (low, high) = (double(pairs[i + j]), double(pairs[i + j + 2]));
            fours[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            fours[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    }
    let mut out = fours;
    for j in 0..4 {
        let [top, bottom] = [[j, j + 4], [j + 8, j + 12]].map(|[a, b]| {
            let (a, b) = (fours[a], fours[b]);
            [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)]
        });
        for half in 0..2 {
            out[j + 4 * half] = _mm512_shuffle_f32x4::<0x88>(top[half], bottom[half]);
            out[j + 4 * half + 8] = _mm512_shuffle_f32x4::<0xdd>(top[half], bottom[half]);
        }
    }
    // SAFETY: as above.
    out.map(|row| unsafe { std::mem::transmute::<__m512, Line>(row) })
}

/// Multiplies a panel of `a` by one of `b`, into or onto so many columns of the target.
type Tile = unsafe fn(a: &[Line], b: &[Row], target: Target, columns: usize, accumulate: bool);

/// Tiles of 1 to [`ROWS`] rows over panels of `a` as it is packed.
macro_rules! tiles {
    ($down:expr, $right:expr) => {
        [
            tile::<1, $down, $right>,
            tile::<2, $down, $right>,
            tile::<3, $down, $right>,
            tile::<4, $down, $right>,
            tile::<5, $down, $right>,
            tile::<6, $down, $right>,
            tile::<7, $down, $right>,
            tile::<8, $down, $right>,
            tile::<9, $down, $right>,
            tile::<10, $down, $right>,
            tile::<11, $down, $right>,
            tile::<12, $down, $right>,
            tile::<13, $down, $right>,
            tile::<14, $down, $right>,
        ]
    };
}
const ALONG_ROWS: [Tile; ROWS] = tiles!(PITCH, 1);
const ALONG_COLUMNS: [Tile; ROWS] = tiles!(1, ROWS);

/// A [`Tile`] of `N` rows; element `(i, k)` of `a` is at `i * DOWN + k * RIGHT`.
///
/// # Safety
/// The processor has AVX-512; `a` has `N` rows for all of `b`; the target is valid for `N` rows of `columns` elements (at most
/// [`COLUMNS`]).
#[target_feature(enable = "avx512f")]
unsafe fn tile<const N: usize, const DOWN: usize, const RIGHT: usize>(
    a: &[Line],
    b: &[Row],
    target: Target,
    columns: usize,
    accumulate: bool,
) {
    let mut a = a.as_ptr().cast::<f32>();
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    for row in b {
        // SAFETY: a line is a vector.
        let b = row.each_ref().map(|line| unsafe { _mm512_load_ps(line.0.as_ptr()) });
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: by the caller's promise `a` has an element for each row of `b`.
            let a = _mm512_set1_ps(unsafe { *a.add(i * DOWN) });
            *sums = [_mm512_fmadd_ps(a, b[0], sums[0]), _mm512_fmadd_ps(a, b[1], sums[1])];
        }
        a = a.wrapping_add(RIGHT);
    }
    let masks = [first_lanes(columns), first_lanes(columns.saturating_sub(LANES))];
    for (row, sums) in sums.into_iter().enumerate() {
        for (half, (sum, mask)) in sums.into_iter().zip(masks).enumerate() {
            let place = target.first.wrapping_add(target.row(row) + half * LANES);
            // SAFETY: the mask keeps to the elements that the caller promises.
            unsafe {
                let sum = if accumulate { _mm512_add_ps(_mm512_maskz_loadu_ps(mask, place), sum) } else { sum };
                _mm512_mask_storeu_ps(place, mask, sum);
            }
        }
    }
}
