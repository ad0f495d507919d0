//! Matrix products in device memory: a face for the products of `cubek`, whose routines it picks by what the device has
//! (tensor cores, or none).

use crate::cube::{Buffer, Client, ElemType};
use cubecl::prelude::TensorBinding;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::{launch::launch_ref, strategy::Strategy};
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

    fn binding(self) -> TensorBinding {
        let handle = self.buffer.handle.clone().offset_start((self.start * self.elem().size()) as u64);
        let (strides, shape) = ([self.row_stride, self.column_stride], [self.rows, self.columns]);
        // SAFETY: `new` checked the view against its buffer; a transpose reaches the same elements.
        unsafe { TensorBinding::from_raw_parts(handle, strides.into(), shape.into()) }
    }
}

/// `out = a · b`, with sums in f32.
///
/// # Panics
/// If the shapes do not fit, or no routine can run on the device.
pub(super) fn multiply(client: &Client, out: View<'_>, a: View<'_>, b: View<'_>) {
    let shapes = (a.rows, b.columns, a.columns);
    assert_eq!(shapes, (out.rows, out.columns, b.rows), "shapes of a product");
    let elems = MatmulGlobalElems { lhs: a.elem(), rhs: b.elem(), out: out.elem() };
    let (lhs, rhs) = (InputBinding::new(a.binding(), a.elem()), InputBinding::new(b.binding(), b.elem()));
    let mut elems = MatmulElems::from_globals(&elems);
    if let Err(error) = launch_ref(&Strategy::Auto, client, lhs, rhs, out.binding(), &mut elems) {
        panic!("a product of {shapes:?} on {}: {error:?}", client.name());
    }
}
