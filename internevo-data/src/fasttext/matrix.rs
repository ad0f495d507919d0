//! The two matrices of a fastText model: rows of floats, or rows of codes.

use crate::{DataError, model_file::Cursor};

/// Centroids of each part of a row: a code is a byte.
const CENTROIDS: usize = 256;

#[derive(Debug)]
pub(super) enum Matrix {
    /// Rows one after the other.
    Dense { dim: usize, values: Vec<f32> },
    /// Jégou et al., "Product quantization for nearest neighbor search", 2011.
    Quantised { codes: Vec<u8>, centroids: Quantiser, norms: Option<Vec<f32>> },
}

impl Matrix {
    /// Reads a matrix of `dim` columns.
    pub fn read(file: &mut Cursor<'_>, quantised: bool, dim: usize) -> Result<Self, DataError> {
        let with_norms = quantised && file.u8("a matrix")? != 0;
        let (rows, columns) = (file.i64("a matrix")?, file.i64("a matrix")?);
        let (rows, columns) = (file.count(rows, "rows")?, file.count(columns, "columns")?);
        if columns != dim || dim == 0 {
            return Err(file.fail(format!("a matrix of {columns} columns in a model of {dim} dimensions")));
        }
        if !quantised {
            let count = rows.checked_mul(dim).ok_or_else(|| file.fail(format!("{rows} rows of {dim}")))?;
            return Ok(Self::Dense { dim, values: file.f32s(count, "a matrix")? });
        }
        let codes = file.i32("the codes of a matrix")?;
        let codes = file.count(codes.into(), "codes")?;
        let codes = file.take(codes, "the codes of a matrix")?.to_vec();
        let centroids = Quantiser::read(file, dim)?;
        if rows.checked_mul(centroids.parts) != Some(codes.len()) {
            let (codes, parts) = (codes.len(), centroids.parts);
            return Err(file.fail(format!("{codes} codes for {rows} rows of {parts} parts")));
        }
        let norms = if with_norms {
            let codes = file.take(rows, "the norms of a matrix")?;
            let norms = Quantiser::read(file, 1)?;
            Some(codes.iter().map(|code| norms.centroid(0, *code)[0]).collect())
        } else {
            None
        };
        Ok(Self::Quantised { codes, centroids, norms })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense { dim, values } => values.len() / dim,
            Self::Quantised { codes, centroids, .. } => codes.len() / centroids.parts,
        }
    }

    /// Number of columns.
    pub fn dim(&self) -> usize {
        match self {
            Self::Dense { dim, .. } => *dim,
            Self::Quantised { centroids, .. } => centroids.dim,
        }
    }

    /// Adds a row to `sum`.
    pub fn add_row(&self, row: usize, sum: &mut [f32]) {
        self.for_pieces(row, |at, piece, norm| {
            sum[at..at + piece.len()].iter_mut().zip(piece).for_each(|(sum, value)| *sum += norm * value);
        });
    }

    /// The scalar product of a row and `vector`.
    pub fn dot_row(&self, row: usize, vector: &[f32]) -> f32 {
        let (mut sum, mut scale) = (0.0, 1.0);
        self.for_pieces(row, |at, piece, norm| {
            sum += piece.iter().zip(&vector[at..]).map(|(a, b)| a * b).sum::<f32>();
            scale = norm;
        });
        scale * sum
    }

    /// The row as pieces: where each begins, its values, and what they are multiplied with.
    fn for_pieces(&self, row: usize, mut take: impl FnMut(usize, &[f32], f32)) {
        match self {
            Self::Dense { dim, values } => take(0, &values[row * dim..(row + 1) * dim], 1.0),
            Self::Quantised { codes, centroids, norms } => {
                let norm = norms.as_ref().map_or(1.0, |norms| norms[row]);
                let codes = &codes[row * centroids.parts..(row + 1) * centroids.parts];
                for (part, code) in codes.iter().enumerate() {
                    take(part * centroids.width, centroids.centroid(part, *code), norm);
                }
            }
        }
    }
}

/// The centroids of each part of a row. All parts are `width` wide but the last.
#[derive(Debug)]
pub(super) struct Quantiser {
    dim: usize,
    parts: usize,
    width: usize,
    last_width: usize,
    values: Vec<f32>,
}

impl Quantiser {
    fn read(file: &mut Cursor<'_>, dim: usize) -> Result<Self, DataError> {
        let mut next = || file.i32("a quantiser").map(|value| usize::try_from(value).unwrap_or(0));
        let (found, parts, width, last_width) = (next()?, next()?, next()?, next()?);
        let whole = parts.checked_sub(1).and_then(|n| n.checked_mul(width)).and_then(|n| n.checked_add(last_width));
        if found != dim || whole != Some(dim) || width == 0 || last_width == 0 {
            return Err(file.fail(format!("a quantiser of {parts} parts of {width} (the last {last_width}) for {dim}")));
        }
        let values = file.f32s(dim * CENTROIDS, "the centroids")?;
        Ok(Self { dim, parts, width, last_width, values })
    }

    fn centroid(&self, part: usize, code: u8) -> &[f32] {
        let width = if part + 1 == self.parts { self.last_width } else { self.width };
        let start = part * CENTROIDS * self.width + usize::from(code) * width;
        &self.values[start..start + width]
    }
}
