//! Casts between float types: f32 master values and their 16-bit copies, buckets for communication.

use super::{Buffer, Client, ElemType, Machine, address_type};
use cubecl::prelude::*;

/// `x` as `elem`, rounded to the nearest; the buffer itself where it is that already.
pub fn cast(client: &Client, x: &Buffer, elem: ElemType) -> Buffer {
    if x.elem == elem {
        return x.clone();
    }
    let y = Buffer::empty(client, x.len, elem);
    let machine = Machine::of(client);
    // As many elements as one load of the narrower type holds; the wider one takes two loads.
    let narrower = if x.elem.size() < elem.size() { x.elem } else { elem };
    let vector = machine.vector(narrower, x.len);
    let loads = x.len / vector;
    let (count, dim) = machine.flat(loads);
    // SAFETY: a unit beyond the last load does nothing; both buffers hold `loads` vectors.
    unsafe {
        cast_kernel::launch_unchecked(
            client,
            count,
            dim,
            address_type(&[x]),
            vector,
            x.arg(),
            y.arg(),
            loads,
            x.elem,
            elem,
        );
    }
    y
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn cast_kernel<I: Float, O: Float, N: Size>(
    x: &[Vector<I, N>],
    y: &mut [Vector<O, N>],
    loads: usize,
    #[define(I)] _from: ElemType,
    #[define(O)] _to: ElemType,
) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    if i < loads {
        y[i] = Vector::cast_from(x[i]);
    }
}
