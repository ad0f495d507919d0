//! What a card on paper records of the crate's own launch functions.

use super::*;
use crate::cube::{BF16, Buffer, F32, Machine};
use crate::rms_norm;

#[test]
fn launches_of_a_public_function_are_recorded_as_cuda() {
    let gpu = PaperGpu::new(Card::Hopper);
    let (rows, width) = (16384, 4096);
    let x = Buffer::empty(gpu.client(), rows * width, BF16);
    let weight = Buffer::empty(gpu.client(), width, BF16);
    rms_norm::cube::forward(gpu.client(), &x, &weight, 1e-5);
    let launches = gpu.launches();
    assert_eq!(launches.len(), 1);
    let launch = &launches[0];
    assert_eq!(launch.kernel, "rms_norm::forward_kernel");
    assert_eq!(launch.cubes, Some([rows as u32, 1, 1]));
    let (matrix, row, statistics) = (2 * (rows * width) as u64, 2 * width as u64, 4 * rows as u64);
    // The kernel with a residual addition, whose second operand it does not read here.
    assert_eq!(launch.buffers, [matrix, matrix, row, matrix, statistics]);
    let code = launch.code.as_ref().unwrap();
    assert!(code.source.contains("__global__") && code.source.contains(&code.entry), "{}", code.source);
    assert!(gpu.launches().is_empty(), "the record starts anew");
}

#[test]
fn the_machine_of_a_card_is_the_one_that_cuda_would_report() {
    let machine = Machine::of(PaperGpu::new(Card::Hopper).client());
    let expected = Machine {
        max_units: 1024,
        plane: 32,
        load_bytes: 16,
        shared_bytes: 227 << 10,
        multiprocessors: Some(132),
        max_cubes: [i32::MAX as u32, 65535, 65535],
        max_buffers: 1024,
        unroll: true,
        tensor_cores: true,
    };
    assert_eq!(machine, expected);
}

#[test]
fn memory_is_counted_while_it_is_held() {
    let gpu = PaperGpu::new(Card::Ampere);
    // Far more than this process may have.
    let big = Buffer::empty(gpu.client(), 1 << 45, F32);
    assert_eq!(gpu.live_bytes(), 4 << 45);
    drop(big);
    let small = Buffer::empty(gpu.client(), 100, F32);
    assert_eq!(gpu.live_bytes(), 512, "padded to the alignment");
    assert_eq!(gpu.peak_bytes(), 4 << 45);
    gpu.forget_peak();
    let second = Buffer::empty(gpu.client(), 128, F32);
    drop((small, second));
    assert_eq!((gpu.live_bytes(), gpu.peak_bytes()), (0, 1024));
}

#[test]
fn nothing_can_be_read_from_paper() {
    let gpu = PaperGpu::new(Card::Hopper);
    let buffer = Buffer::from_f32(gpu.client(), &[1.0, 2.0], F32);
    assert!(buffer.read_f32(gpu.client()).unwrap_err().to_string().contains("nothing to read"));
}

#[test]
fn a_buffer_held_once_may_be_written_in_place() {
    let gpu = PaperGpu::new(Card::Hopper);
    let buffer = Buffer::empty(gpu.client(), 8, F32);
    assert_eq!(gpu.live_bytes(), 512, "the card has seen the allocation, and holds the buffer as a memory pool does");
    assert!(buffer.handle.can_mut());
    let second = buffer.clone();
    assert!(!buffer.handle.can_mut());
    drop(second);
}
