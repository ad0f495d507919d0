//! Devices and comparisons for the tests of GPU kernels: every compiled-in runtime, every float type it has, NaN-filled outputs.

use super::{BF16, Buffer, Client, ElemType, F16, F32};
use crate::testing::Random;
use cubecl::features::TypeUsage;

/// One client per runtime that this build was given. A runtime without a device fails the test: leave its feature out there.
pub fn clients() -> Vec<Client> {
    vec![
        #[cfg(feature = "wgpu")]
        cubecl::Device::Wgpu(Default::default()).client(),
        #[cfg(feature = "cpu")]
        cubecl::Device::Cpu(Default::default()).client(),
        #[cfg(feature = "cuda")]
        cubecl::Device::Cuda(Default::default()).client(),
    ]
}

/// The float types that `client` can keep in buffers and convert, of the three that kernels serve.
pub fn floats(client: &Client) -> Vec<ElemType> {
    let usable =
        |elem: &ElemType| client.properties().type_usage(*elem).is_superset(TypeUsage::Buffer | TypeUsage::Conversion);
    [F32, F16, BF16].into_iter().filter(usable).collect()
}

/// Calls `test` for each device and float type of this build.
pub fn on_every_device(mut test: impl FnMut(&Client, ElemType)) {
    for client in clients() {
        for elem in floats(&client) {
            println!("{} {elem:?}", client.name());
            test(&client, elem);
        }
    }
}

/// Leaves NaN in the free memory that the next buffers of `len` elements will likely be made of, so that a kernel which skips
/// an element of its output is found out.
pub fn poison(client: &Client, len: usize, elem: ElemType) {
    let spoilt: Vec<_> = (0..4).map(|_| Buffer::from_f32(client, &vec![f32::NAN; len], elem)).collect();
    drop(spoilt);
}

/// Roughly normal values that `elem` holds exactly, and the same on the device.
pub fn random(random: &mut Random, client: &Client, n: usize, elem: ElemType) -> (Vec<f64>, Buffer) {
    let buffer = Buffer::from_f32(client, &random.values(n), elem);
    let exact = buffer.read_f32(client).unwrap().into_iter().map(f64::from).collect();
    (exact, buffer)
}

/// Largest `‖out − ref‖ / ‖ref‖` of a kernel whose inputs and outputs are `elem`.
pub fn tolerance(elem: ElemType) -> f64 {
    match elem {
        F32 => 1e-5,
        F16 => 1e-3,
        _ => 1e-2,
    }
}

/// Fails unless the buffer is `reference` up to the [`tolerance`] of its type, in norm. A NaN fails.
#[track_caller]
pub fn assert_buffer(what: &str, client: &Client, buffer: &Buffer, reference: &[f64], elem: ElemType) {
    let out = buffer.read_f32(client).unwrap();
    assert_eq!(out.len(), reference.len(), "{what}: length");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut out.iter().zip(reference).map(|(a, b)| f64::from(*a) - b));
    let relative = difference / norm(&mut reference.iter().copied()).max(f64::MIN_POSITIVE);
    assert!(relative <= tolerance(elem), "{what}: relative error {relative:.2e} in {elem:?} on {}", client.name());
}
