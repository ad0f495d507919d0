//! Sums and maxima over a cube, in f32: through planes where the device has them, through shared memory otherwise. The order
//! of summation is fixed by the shape of the launch, so results repeat to the bit.

#![allow(clippy::needless_range_loop, reason = "a kernel indexes: it has no iterators")]
#![allow(clippy::collapsible_if, reason = "one is decided when the kernel is compiled, the other when it runs")]

use super::{Buffer, Client, F32, Machine, address_type};
use cubecl::prelude::*;

/// Slots of shared memory that [`cube_sum`] and [`cube_max`] need.
pub(crate) fn scratch_len(units: u32, plane: u32) -> usize {
    (units / plane.max(1)).max(1) as usize
}

/// What two values become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fold {
    Sum,
    Max,
}

#[cube]
fn fold(a: f32, b: f32, #[comptime] how: Fold) -> f32 {
    if comptime!(how == Fold::Sum) { a + b } else { max(a, b) }
}

#[cube]
fn plane_fold(value: f32, #[comptime] how: Fold) -> f32 {
    if comptime!(how == Fold::Sum) { plane_sum(value) } else { plane_max(value) }
}

/// The sum of `value` over the units of a cube, in every unit. All units call it; `scratch` holds [`scratch_len`] slots.
#[cube]
pub(crate) fn cube_sum(value: f32, scratch: &mut [f32], #[comptime] units: u32, #[comptime] plane: u32) -> f32 {
    cube_fold(value, scratch, units, plane, Fold::Sum)
}

/// The largest `value` over the units of a cube, as [`cube_sum`]. A NaN may be lost: the caller looks for it elsewhere.
#[cube]
pub(crate) fn cube_max(value: f32, scratch: &mut [f32], #[comptime] units: u32, #[comptime] plane: u32) -> f32 {
    cube_fold(value, scratch, units, plane, Fold::Max)
}

#[cube]
fn cube_fold(
    value: f32,
    scratch: &mut [f32],
    #[comptime] units: u32,
    #[comptime] plane: u32,
    #[comptime] how: Fold,
) -> f32 {
    if comptime!(units == 1) {
        value
    } else if comptime!(plane > 1) {
        let partial = plane_fold(value, how);
        if comptime!(units <= plane) {
            partial
        } else {
            sync_cube();
            if UNIT_POS_PLANE == 0 {
                scratch[(UNIT_POS_X / plane) as usize] = partial;
            }
            sync_cube();
            let mut folded = scratch[0];
            for slot in 1..comptime!((units / plane) as usize) {
                folded = fold(folded, scratch[slot], how);
            }
            folded
        }
    } else {
        sync_cube();
        scratch[UNIT_POS_X as usize] = value;
        sync_cube();
        let mut half = comptime!(units / 2).runtime();
        while half > 0 {
            if UNIT_POS_X < half {
                let (own, other) = (scratch[UNIT_POS_X as usize], scratch[(UNIT_POS_X + half) as usize]);
                scratch[UNIT_POS_X as usize] = fold(own, other, how);
            }
            sync_cube();
            half /= 2;
        }
        scratch[0]
    }
}

/// Terms that a unit adds up one after the other; more of them are added group by group, so that the error of a sum does not grow
/// with the work of a unit, which is the whole row where a cube has one unit.
const GROUP: usize = 64;

/// Ends a group of the terms of `sum` after its last one, of number `term`: its sum goes to `groups`. Both together are the sum.
#[cube]
pub(crate) fn end_group<N: Size>(
    sum: &mut Vector<f32, N>,
    groups: &mut Vector<f32, N>,
    term: usize,
    #[comptime] terms: usize,
) {
    if comptime!(terms > GROUP) {
        if term % GROUP == GROUP - 1 {
            *groups += *sum;
            *sum = Vector::new(0.0f32);
        }
    }
}

/// The sum of the elements of a vector, from the first to the last.
#[cube]
pub(crate) fn vector_sum<N: Size>(value: Vector<f32, N>) -> f32 {
    let mut total = value.extract(0usize);
    #[unroll]
    for lane in 1..N::value() {
        total += value.extract(lane);
    }
    total
}

/// Sums of the columns of an f32 matrix of rows of `width`, each from the first row to the last in a fixed tree.
///
/// # Panics
/// If `matrix` is no whole number of rows.
pub(crate) fn column_sums(client: &Client, matrix: &Buffer, width: usize) -> Buffer {
    assert!(matrix.len.is_multiple_of(width) && matrix.elem == F32, "column sums of {} elements", matrix.len);
    let machine = Machine::of(client);
    let columns = machine.max_units.min(32);
    let lanes = (machine.max_units / columns).min(32);
    let sums = Buffer::empty(client, width, F32);
    // SAFETY: a unit whose column is not below `width` reads and writes nothing but shared memory.
    unsafe {
        column_sums_kernel::launch_unchecked(
            client,
            machine.count(width.div_ceil(columns as usize)),
            CubeDim::new_2d(columns, lanes),
            address_type(&[matrix]),
            matrix.arg(),
            sums.arg(),
            (matrix.len / width) as u32,
            width as u32,
            columns,
            lanes,
        );
    }
    sums
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn column_sums_kernel(
    matrix: &[f32],
    sums: &mut [f32],
    rows: u32,
    width: u32,
    #[comptime] columns: u32,
    #[comptime] lanes: u32,
) {
    let mut parts = Shared::<[f32]>::new_slice(comptime!((columns * lanes) as usize));
    let column = CUBE_POS * columns as usize + UNIT_POS_X as usize;
    let mut sum = 0.0f32;
    if column < width as usize {
        let mut row = UNIT_POS_Y;
        while row < rows {
            sum += matrix[row as usize * width as usize + column];
            row += lanes;
        }
    }
    parts[UNIT_POS as usize] = sum;
    sync_cube();
    if UNIT_POS_Y == 0 && column < width as usize {
        let mut total = parts[UNIT_POS_X as usize];
        for lane in 1..comptime!(lanes) {
            total += parts[(lane * columns + UNIT_POS_X) as usize];
        }
        sums[column] = total;
    }
}

#[cfg(all(test, feature = "gpu"))]
mod tests {
    use super::*;
    use crate::cube::testing::{assert_buffer, clients, random};
    use crate::testing::Random;

    /// Sum and maximum of a value per unit, as each unit sees them.
    #[cube(launch_unchecked)]
    fn reduce_kernel(x: &[f32], sums: &mut [f32], maxima: &mut [f32], #[comptime] units: u32, #[comptime] plane: u32) {
        let mut scratch = Shared::<[f32]>::new_slice(comptime!(scratch_len(units, plane)));
        let unit = UNIT_POS_X as usize;
        // Twice, so that the second use of the scratch space meets the leftovers of the first.
        maxima[unit] = cube_max(x[unit], &mut scratch, units, plane);
        sums[unit] = cube_sum(x[unit], &mut scratch, units, plane);
    }

    #[test]
    fn every_unit_gets_the_sum_and_the_maximum_with_planes_and_without() {
        let mut generator = Random::fresh();
        for client in clients() {
            let machine = Machine::of(&client);
            let planes = [1, machine.plane];
            for (units, plane) in [1, 8, 32, 256].into_iter().flat_map(|units| planes.map(|plane| (units, plane))) {
                if units > machine.max_units || (units > 1 && units < plane) {
                    continue;
                }
                let n = units as usize;
                let (x, x_on) = random(&mut generator, &client, n, F32);
                let [sums, maxima] = [(); 2].map(|()| Buffer::from_f32(&client, &vec![f32::NAN; n], F32));
                let (count, dim) = (machine.count(1), CubeDim::new_1d(units));
                // SAFETY: every buffer has an element per unit.
                unsafe {
                    let (x, sums, maxima) = (x_on.arg(), sums.arg(), maxima.arg());
                    reduce_kernel::launch_unchecked(&client, count, dim, x, sums, maxima, units, plane);
                }
                let sum = x.iter().sum::<f64>();
                let largest = x.iter().copied().fold(f64::MIN, f64::max);
                let scale = x.iter().map(|v| v.abs()).sum::<f64>();
                for unit in sums.read_f32(&client).unwrap() {
                    assert!(
                        (f64::from(unit) - sum).abs() <= 1e-6 * scale,
                        "{units} units, plane {plane}: {unit}, not {sum}"
                    );
                }
                assert_eq!(maxima.read_f32(&client).unwrap(), vec![largest as f32; n], "{units} units, plane {plane}");
            }
        }
    }

    #[test]
    fn columns_add_up() {
        let mut generator = Random::fresh();
        for client in clients() {
            for (rows, width) in [(1, 1), (3, 32), (generator.between(1, 200), generator.between(1, 200))] {
                let (matrix, on_device) = random(&mut generator, &client, rows * width, F32);
                let exact: Vec<f64> =
                    (0..width).map(|column| matrix.iter().skip(column).step_by(width).sum()).collect();
                let sums = column_sums(&client, &on_device, width);
                assert_buffer(&format!("{rows}x{width}"), &client, &sums, &exact, F32);
            }
        }
    }
}
