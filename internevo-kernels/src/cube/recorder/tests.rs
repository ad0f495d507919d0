//! What a card on paper records of the crate's own launch functions.

use super::*;
use crate::adamw::cube::{Plan, State};
use crate::adamw::{self, Segment, Update};
use crate::cross_entropy::{self, cpu::Options, cube::Labels};
use crate::cube::{BF16, Buffer, F32, Machine, bucket, cast};
use crate::grad_norm::{self, Limits};
use crate::rotary::cpu::Direction;
use crate::rotary::cube::{DeviceTable, rotate};
use crate::rotary::{RotaryHeads, RotaryTable};
use crate::{VocabShard, embedding, rms_norm, swiglu};
use std::collections::BTreeSet;

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

/// The C types of the indices into the buffers of a kernel.
fn index_types(code: &Code) -> BTreeSet<&str> {
    let (_, signature) = code.source.split_once(&format!(" {}(", code.entry)).unwrap();
    let (parameters, body) = signature.split_once(") {").unwrap();
    let names = parameters.split(',').filter(|parameter| parameter.contains('*'));
    let names: Vec<&str> = names.map(|parameter| parameter.rsplit(' ').next().unwrap()).collect();
    let accesses = body.split('&').filter_map(|text| text.split_once('[').filter(|(name, _)| names.contains(name)));
    let indices = accesses.map(|(_, rest)| rest.split_once(']').unwrap().0);
    let type_of = |index: &str| {
        let declaration = body.split([';', '{', '}']).find_map(|statement| {
            let declared = statement.trim().split(" = ").next()?;
            declared.strip_suffix(index).filter(|rest| rest.ends_with(' '))
        });
        declaration.unwrap_or_else(|| panic!("{index} is not declared")).split(' ').next().unwrap()
    };
    indices.map(type_of).collect()
}

/// Calls every launch function whose buffers grow with the batch, with `rows` rows of 4096 in the largest of them.
fn launch_all(client: &Client, rows: usize) {
    const WIDTH: usize = 4096;
    let half = |len| Buffer::empty(client, len, BF16);
    let single = |len| Buffer::empty(client, len, F32);
    let [x, y] = [(); 2].map(|()| half(rows * WIDTH));
    let (weight, rstd) = (half(WIDTH), single(rows));
    rms_norm::cube::forward(client, &x, &weight, 1e-5);
    rms_norm::cube::backward(client, &x, &weight, &rstd, &y);
    swiglu::cube::forward(client, &x, &y);
    swiglu::cube::backward(client, &x, &y, half(rows * WIDTH));
    cast(client, &x, F32);
    bucket::scatter(client, &bucket::gather(client, &[&x], F32), &[&y]);
    let (positions, heads) = (Buffer::from_u32(client, &[0]), RotaryHeads::all(32, WIDTH / 32));
    let table = DeviceTable::new(client, &RotaryTable::new(WIDTH / 32, 1e4, 1));
    rotate(client, &x, heads, &Buffer { len: rows, ..positions }, &table, Direction::Forward);
    embedding::cube::forward(client, &x, &VocabShard::whole(rows), WIDTH, &[0]);
    embedding::cube::backward(client, &VocabShard::whole(rows), WIDTH, &[0], &half(WIDTH), BF16);
    let labels = Labels::new(client, &vec![1; rows], WIDTH);
    cross_entropy::cube::forward_with_gradient(client, &x, WIDTH, &labels, Options::default());
    grad_norm::cube::norm(client, &[&x], Limits { unscale: 1.0, max_norm: 1.0 });
    grad_norm::cube::scale_in_place(client, &[&x], &single(1));
    let [master, exp_avg, exp_avg_sq] = [(); 3].map(|()| single(rows * WIDTH));
    let state = State { master, exp_avg, exp_avg_sq, copy: Some(y) };
    let plan = Plan::new(client, &[Segment { range: 0..rows * WIDTH, weight_decay: 0.1 }], rows * WIDTH);
    let update = Update { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, number: 1, grad_scale: 1.0 };
    adamw::cube::step(client, &state, &x, &plan, update, None);
}

#[test]
fn buffers_beyond_2_to_the_31_elements_have_unsigned_indices_and_beyond_2_to_the_32_wide_ones() {
    for (rows, expected) in [((1 << 19) + 1, "uint32_t"), ((1 << 20) + 1, "uint64_t")] {
        let gpu = PaperGpu::new(Card::Hopper);
        launch_all(gpu.client(), rows);
        let launches = gpu.launches();
        let large = |launch: &&Launch| launch.buffers.iter().any(|bytes| *bytes >= (rows * 4096) as u64);
        let kernels: Vec<_> = launches.iter().filter(large).collect();
        assert!(kernels.len() >= 14, "{} kernels", kernels.len());
        for launch in kernels {
            let code = launch.code.as_ref().unwrap();
            assert_eq!(index_types(code), BTreeSet::from([expected]), "{} of {rows} rows", launch.kernel);
        }
    }
}
