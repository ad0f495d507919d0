//! Casts between float types: f32 master values and their 16-bit copies, buckets for communication.

use super::{Buffer, Client, ElemType, Flat, Machine, address_type};
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
    let Flat { vector, loads, count, dim } = machine.flat(x.len, machine.vector(narrower, x.len));
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

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;
    use crate::cube::testing::{clients, floats, poison, random};
    use crate::testing::Random;

    #[test]
    fn a_cast_rounds_as_the_host_does_and_keeps_nan() {
        let mut generator = Random::fresh();
        for client in clients() {
            for (from, to) in
                floats(&client).into_iter().flat_map(|from| floats(&client).into_iter().map(move |to| (from, to)))
            {
                for len in [1, 1024, generator.between(2, 3000)] {
                    let (values, x) = random(&mut generator, &client, len, from);
                    let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
                    let expected = Buffer::from_f32(&client, &values, to).read_f32(&client).unwrap();
                    poison(&client, len, to);
                    assert_eq!(cast(&client, &x, to).read_f32(&client).unwrap(), expected, "{len} {from:?} to {to:?}");
                }
                let nan = Buffer::from_f32(&client, &[1.0, f32::NAN, 2.0], from);
                let out = cast(&client, &nan, to).read_f32(&client).unwrap();
                assert!(out[1].is_nan() && (out[0], out[2]) == (1.0, 2.0), "{out:?}");
            }
        }
    }
}
