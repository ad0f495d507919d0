//! Matrix products in device memory: a face for the products of `cubek`, whose routines it picks by type and by what the device
//! has (tensor cores, or none).

use crate::cube::{Buffer, Client, ElemType, F32};
use cubecl::prelude::TensorBinding;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems, MatmulSetupError};
use cubek::matmul::multi_level::routines::{
    TileSizeSelection,
    batch::{double_unit::DoubleUnitSelectionArgs, ordered_double_buffering::OrderedSelectionArgs},
};
use cubek::matmul::routine::BlueprintStrategy;
use cubek::matmul::{launch::launch_ref, multi_level, strategy::Strategy};
use cubek::std::InputBinding;

/// A matrix inside a buffer: element `(i, j)` is number `start + i * row_stride + j * column_stride`.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    buffer: &'a Buffer,
    start: usize,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// `rows` rows of `columns` neighbours, `row_stride` apart, from element `start` on.
    pub(super) fn new(buffer: &'a Buffer, start: usize, rows: usize, columns: usize, row_stride: usize) -> Self {
        let needed = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns };
        assert!(start + needed <= buffer.len, "{rows}x{columns} from {start} in a buffer of {}", buffer.len);
        Self { buffer, start, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transpose; moves nothing.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn elem(self) -> ElemType {
        self.buffer.elem
    }

    /// Whether rows, or the columns of a transpose, begin at multiples of four elements.
    fn is_wide(self) -> bool {
        self.row_stride.max(self.column_stride).is_multiple_of(4)
    }

    fn binding(self) -> TensorBinding {
        let handle = self.buffer.handle.clone().offset_start((self.start * self.elem().size()) as u64);
        let (strides, shape) = ([self.row_stride, self.column_stride], [self.rows, self.columns]);
        // SAFETY: `new` checked the view against its buffer; a transpose reaches the same elements.
        unsafe { TensorBinding::from_raw_parts(handle, strides.into(), shape.into()) }
    }
}

/// `out = a · b`, with sums in f32. A product in which a side is empty writes nothing.
///
/// # Panics
/// If the shapes do not fit, or no routine can run on the device.
pub(super) fn multiply(client: &Client, out: View<'_>, a: View<'_>, b: View<'_>) {
    let shapes = (a.rows, b.columns, a.columns);
    assert_eq!(shapes, (out.rows, out.columns, b.rows), "shapes of a product");
    if [a.rows, b.columns, a.columns].contains(&0) {
        return;
    }
    let launch = |strategy: &Strategy| {
        let elems = MatmulGlobalElems { lhs: a.elem(), rhs: b.elem(), out: out.elem() };
        let (lhs, rhs) = (InputBinding::new(a.binding(), a.elem()), InputBinding::new(b.binding(), b.elem()));
        launch_ref(strategy, client, lhs, rhs, out.binding(), &mut MatmulElems::from_globals(&elems))
    };
    let mut outcome = Ok(());
    for strategy in strategies(out, a, b) {
        outcome = launch(&strategy);
        if !matches!(outcome, Err(MatmulSetupError::Unavailable(_))) {
            break;
        }
    }
    if let Err(error) = outcome {
        panic!("a product of {shapes:?} on {}: {error:?}", client.name());
    }
}

/// Routines for operands of this type; the first that the device has the instructions for counts.
fn strategies(out: View<'_>, a: View<'_>, b: View<'_>) -> Vec<Strategy> {
    if a.elem() == F32 {
        // The others would round f32 to the 10 bits of TF32 where there are tensor cores.
        return vec![exact(out, a, b).into()];
    }
    // Tiles of 128×64, a plane on 16 rows: what cubek picks by itself keeps more than a unit's registers.
    let tiles = OrderedSelectionArgs {
        row_count: Some(8),
        rows_per_plane: Some(1),
        partition_k: Some(2),
        ..OrderedSelectionArgs::default()
    };
    vec![multi_level::Strategy::OrderedDoubleMma(BlueprintStrategy::Inferred(tiles)).into(), Strategy::Auto]
}

/// A routine whose products of f32 are exact. Of rows that cannot be read by four elements at a time, the large tiles keep more than
/// a unit's registers: two stages of smaller ones take their place, the smallest for a transposed `a`.
fn exact(out: View<'_>, a: View<'_>, b: View<'_>) -> multi_level::Strategy {
    if [out, a, b].iter().all(|view| view.is_wide()) {
        return multi_level::Strategy::SimpleUnit(BlueprintStrategy::default());
    }
    let tile_size = if a.row_stride == 1 { TileSizeSelection::MinTileSize } else { TileSizeSelection::MaxTileSize };
    multi_level::Strategy::DoubleUnit(BlueprintStrategy::Inferred(DoubleUnitSelectionArgs { tile_size }))
}
