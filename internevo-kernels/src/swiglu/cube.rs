//! SwiGLU on a cubecl device: one 16-byte load of each operand per unit. The backward computes `silu` again from the inputs,
//! so nothing but them is kept.

use crate::cube::{Buffer, Client, ElemType, Flat, Machine, address_type};
use cubecl::prelude::*;

/// `silu(gate) · up`, of their type; sums and exponentials are f32.
///
/// # Panics
/// If sizes or types differ.
pub fn forward(client: &Client, gate: &Buffer, up: &Buffer) -> Buffer {
    assert_eq!((gate.len, gate.elem), (up.len, up.elem), "SwiGLU: gate and up");
    let y = Buffer::empty(client, gate.len, gate.elem);
    let machine = Machine::of(client);
    let Flat { vector, loads, count, dim } = machine.flat(gate.len, machine.vector(gate.elem, gate.len));
    // SAFETY: a unit beyond the last load does nothing; all buffers hold `loads` vectors.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            count,
            dim,
            address_type(&[gate]),
            vector,
            gate.arg(),
            up.arg(),
            y.arg(),
            loads,
            gate.elem,
        );
    }
    y
}

/// Gradients `(d_gate, d_up)`. `d_gate` is written over `dy` if nobody else holds that.
///
/// # Panics
/// If sizes or types differ.
pub fn backward(client: &Client, gate: &Buffer, up: &Buffer, dy: Buffer) -> (Buffer, Buffer) {
    assert_eq!([(gate.len, gate.elem), (up.len, up.elem)], [(dy.len, dy.elem); 2], "SwiGLU: gate, up and gradient");
    let overwrite = dy.is_exclusive();
    let d_gate = if overwrite { dy.clone() } else { Buffer::empty(client, dy.len, dy.elem) };
    let d_up = Buffer::empty(client, dy.len, dy.elem);
    let machine = Machine::of(client);
    let Flat { vector, loads, count, dim } = machine.flat(gate.len, machine.vector(gate.elem, gate.len));
    // SAFETY: a unit beyond the last load does nothing; all buffers hold `loads` vectors. `d_gate` may be `dy` itself: a unit
    // reads an element before it writes it, and no other unit touches it.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            count,
            dim,
            address_type(&[gate]),
            vector,
            gate.arg(),
            up.arg(),
            dy.arg(),
            if overwrite { BufferArg::alias(BACKWARD_DY, dy.len) } else { d_gate.arg() },
            d_up.arg(),
            loads,
            gate.elem,
        );
    }
    (d_gate, d_up)
}

/// Place of `dy` among the buffers of the backward, for the output that may be the same memory.
const BACKWARD_DY: usize = 2;

#[cube]
fn sigmoid<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    Vector::<f32, N>::new(1.0f32) / (Vector::<f32, N>::new(1.0f32) + (-x).exp())
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    gate: &[Vector<F, N>],
    up: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    loads: usize,
    #[define(F)] _elem: ElemType,
) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    if i < loads {
        let gate = Vector::<f32, N>::cast_from(gate[i]);
        y[i] = Vector::cast_from(gate * sigmoid::<N>(gate) * Vector::<f32, N>::cast_from(up[i]));
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<F: Float, N: Size>(
    gate: &[Vector<F, N>],
    up: &[Vector<F, N>],
    dy: &[Vector<F, N>],
    d_gate: &mut [Vector<F, N>],
    d_up: &mut [Vector<F, N>],
    loads: usize,
    #[define(F)] _elem: ElemType,
) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    if i < loads {
        let gate = Vector::<f32, N>::cast_from(gate[i]);
        let gradient = Vector::<f32, N>::cast_from(dy[i]);
        let sigmoid = sigmoid::<N>(gate);
        let silu = gate * sigmoid;
        d_up[i] = Vector::cast_from(gradient * silu);
        let slope = sigmoid + silu * (Vector::<f32, N>::new(1.0f32) - sigmoid);
        d_gate[i] = Vector::cast_from(gradient * Vector::<f32, N>::cast_from(up[i]) * slope);
    }
}
