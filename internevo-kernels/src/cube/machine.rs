//! What a device is like, as far as the shape of a launch depends on it. Nothing about particular kernels.

use super::{Buffer, Client, ElemType};
use cubecl::prelude::{AddressType, CubeCount, CubeDim};

/// The facts of a device that kernels are shaped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Most units that one cube should have. 1 where units are threads of a CPU: barriers among them cost more than they save.
    pub max_units: u32,
    /// Units per plane (warp), where all planes have one size; 1 where values cannot be exchanged inside a plane.
    pub plane: u32,
    /// Bytes of the widest load of one unit.
    pub load_bytes: usize,
    /// Bytes of shared memory a cube may have.
    pub shared_bytes: usize,
    /// Buffers that one launch may bind.
    pub max_buffers: usize,
    /// Multiprocessors, if the device says.
    pub multiprocessors: Option<u32>,
    /// Most cubes along each axis of a launch.
    pub max_cubes: [u32; 3],
    /// Whether unrolling long loops pays. On Mesa's software Vulkan it makes compiling take minutes.
    pub unroll: bool,
    /// Whether the device multiplies 16×16×16 tiles of 16-bit floats in tensor cores.
    pub tensor_cores: bool,
}

impl Machine {
    /// The device behind `client`.
    pub fn of(client: &Client) -> Self {
        let properties = client.properties();
        let hardware = &properties.hardware;
        let cpu = hardware.num_cpu_cores.is_some();
        let planes = properties.features.plane.contains(cubecl::features::Plane::Ops);
        let plane =
            if planes && hardware.plane_size_min == hardware.plane_size_max { hardware.plane_size_max } else { 1 };
        let (x, y, z) = hardware.max_cube_count;
        Self {
            max_units: if cpu { 1 } else { hardware.max_units_per_cube.min(hardware.max_cube_dim.0) },
            plane: if cpu { 1 } else { plane },
            load_bytes: hardware.load_width as usize / 8,
            shared_bytes: hardware.max_shared_memory_size,
            max_buffers: hardware.max_bindings as usize,
            multiprocessors: hardware.num_streaming_multiprocessors,
            max_cubes: [x, y, z],
            unroll: client.name().starts_with("cuda"),
            tensor_cores: !properties.features.matmul.cmma.is_empty(),
        }
    }

    /// Units for a row of `width` elements loaded `vector` at a time: a power of two, two loads for each where the row is long.
    pub fn units(&self, width: usize, vector: usize) -> u32 {
        let wanted = width.div_ceil(2 * vector).max(1).next_power_of_two() as u64;
        wanted.max(u64::from(self.plane)).min(u64::from(self.max_units.min(1024))) as u32
    }

    /// Cubes that keep the whole device busy when each takes many rows.
    pub fn blocks(&self) -> usize {
        2 * self.multiprocessors.unwrap_or(8) as usize
    }

    /// Cubes of `units` that are at work at once: a thousand units on each multiprocessor.
    pub fn resident(&self, units: u32) -> usize {
        let each = (1024 / units.max(1)).max(1);
        self.multiprocessors.unwrap_or(8) as usize * each as usize
    }

    /// A launch with one unit for each load of `vector` of `len` elements, a multiple of it. Kernels take `CUBE_POS` and check
    /// the load.
    pub fn flat(&self, len: usize, vector: usize) -> Flat {
        let (loads, units) = (len / vector, self.max_units.min(256));
        Flat { vector, loads, count: self.count(loads.div_ceil(units as usize)), dim: CubeDim::new_1d(units) }
    }

    /// Elements of `elem` per load, for rows of `width` elements that start at a multiple of `width`.
    pub fn vector(&self, elem: ElemType, width: usize) -> usize {
        let widest = (self.load_bytes.min(16) / elem.size()).max(1);
        (0..=widest.ilog2()).rev().map(|log| 1 << log).find(|vector| width.is_multiple_of(*vector)).unwrap_or(1)
    }

    /// A launch of `cubes` cubes, spread over two axes where one is too short. Kernels take `CUBE_POS` and check it.
    pub fn count(&self, cubes: usize) -> CubeCount {
        let x = cubes.min(self.max_cubes[0] as usize).max(1);
        let y = cubes.div_ceil(x);
        assert!(y <= self.max_cubes[1] as usize, "a launch of {cubes} cubes is beyond this device");
        CubeCount::Static(x as u32, y as u32, 1)
    }
}

/// A launch with one unit for each load.
#[derive(Debug)]
pub struct Flat {
    /// Elements of a load.
    pub vector: usize,
    /// How many loads there are; units beyond the last have nothing to do.
    pub loads: usize,
    /// Cubes.
    pub count: CubeCount,
    /// Units of a cube.
    pub dim: CubeDim,
}

/// The width of indices that reach every element of `buffers`: 64 bits beyond 2^32 elements.
pub(crate) fn address_type(buffers: &[&Buffer]) -> AddressType {
    buffers.iter().map(|buffer| AddressType::from_len(buffer.len)).max().unwrap_or_default()
}
