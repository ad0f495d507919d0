//! The cards that exist on paper: what cubecl's CUDA runtime would ask a driver about each.

use cubecl::features::{AtomicUsage, Plane, Tma, TypeUsage};
use cubecl::ir::{
    ContiguousElements, DeviceIdentity, DeviceProperties, ElemType, FloatKind, HardwareProperties,
    MemoryDeviceProperties, MmaProperties, OpaqueType, TargetProperties, Type, VectorSize,
};
use cubecl::profile::TimingMethod;
use cubecl_cpp::cuda::arch::CudaArchitecture;
use cubecl_cpp::cuda::mma::{CudaCmmaCompiler, manual::contiguous_elements_cuda};
use cubecl_cpp::shared::{
    CompilationOptions, CppSupportedFeatures, register_mma_features, register_scaled_mma_features,
    register_wmma_features,
};

/// A data centre card of one of the last three generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Card {
    /// A100: `mma.sync`, `cp.async`.
    Ampere,
    /// H100 and H200: `wgmma`, the bulk tensor copy engine, clusters.
    Hopper,
    /// B200.
    Blackwell,
}

/// Bytes to which cubecl's CUDA runtime aligns allocations.
pub(super) const ALIGNMENT: usize = 512;

impl Card {
    /// Every card, oldest first.
    pub const ALL: [Card; 3] = [Card::Ampere, Card::Hopper, Card::Blackwell];

    /// Compute capability, as in `sm_90`.
    pub const fn version(self) -> u32 {
        match self {
            Card::Ampere => 80,
            Card::Hopper => 90,
            Card::Blackwell => 100,
        }
    }

    /// The target that cubecl's CUDA runtime names to NVRTC.
    pub const fn target(self) -> &'static str {
        match self {
            Card::Ampere => "sm_80",
            Card::Hopper => "sm_90a",
            Card::Blackwell => "sm_100a",
        }
    }

    /// Streaming multiprocessors, bytes of shared memory a block may ask for, bytes of memory.
    const fn size(self) -> (u32, usize, u64) {
        match self {
            Card::Ampere => (108, 163 << 10, 80 << 30),
            Card::Hopper => (132, 227 << 10, 141 << 30),
            Card::Blackwell => (148, 227 << 10, 180 << 30),
        }
    }

    fn architecture(self) -> CudaArchitecture {
        CudaArchitecture { version: self.version(), tensor_cores: true }
    }

    pub(super) fn properties(self) -> DeviceProperties {
        let memory = self.size().2;
        let mut properties = DeviceProperties::new(
            Default::default(),
            MemoryDeviceProperties::new(memory / 4, ALIGNMENT as u64).with_max_memory(memory),
            self.hardware(),
            TimingMethod::Device,
            DeviceIdentity {
                name: format!("{self:?} on paper"),
                fingerprint: format!("ptx_sm{}", self.version()),
                physical: None,
            },
        );
        self.register(&mut properties);
        properties
    }

    fn hardware(self) -> HardwareProperties {
        let (multiprocessors, shared, _) = self.size();
        HardwareProperties {
            load_width: 128,
            vector_register_count: None,
            plane_size_min: 32,
            plane_size_max: 32,
            max_bindings: 1024,
            max_shared_memory_size: shared,
            max_cube_count: (i32::MAX as u32, 65535, 65535),
            max_units_per_cube: 1024,
            max_cube_dim: (1024, 1024, 64),
            num_streaming_multiprocessors: Some(multiprocessors),
            num_tensor_cores: Some(4),
            min_tensor_cores_dim: Some(8),
            num_cpu_cores: None,
            last_level_cache_size: None,
            max_vector_size: VectorSize::MAX,
            cube_mma_reserved_shared_memory: 0,
        }
    }

    fn register(self, properties: &mut DeviceProperties) {
        cubecl_cpp::register_supported_types(properties);
        let half = [ElemType::Float(FloatKind::F16), ElemType::Float(FloatKind::BF16)];
        let pair = |elem: ElemType| Type::atomic(Type::new(elem).with_vector_size(2));
        properties.register_atomic_type_usage(Type::atomic(half[0]), AtomicUsage::Add);
        properties.register_atomic_type_usage(pair(half[0]), AtomicUsage::Add);
        properties.register_opaque_type(OpaqueType::Barrier);
        properties.register_type_usage(ElemType::Float(FloatKind::TF32), TypeUsage::Conversion);
        let features = &mut properties.features;
        features.plane.insert(Plane::Ops);
        features.plane.insert(Plane::Sync);
        features.plane.insert(Plane::NonUniformControlFlow);
        features.copy_async = true;
        features.memory_reinterpret = true;
        features.alignment = true;
        features.device_memory_scope = true;
        features.matmul.ldmatrix.extend(half);
        if self >= Card::Hopper {
            features.tma.insert(Tma::Base);
            features.cube_cluster = true;
            features.matmul.stmatrix.extend(half);
            properties.register_opaque_type(OpaqueType::TensorMap);
            properties.register_atomic_type_usage(pair(half[1]), AtomicUsage::Add);
        }
        let architecture = self.architecture();
        register_wmma_features(CudaCmmaCompiler::Cpp.supported_cmma_combinations(&architecture), properties);
        register_mma_features(cubecl_cpp::cuda::supported_mma_combinations(&architecture), properties);
        register_scaled_mma_features(cubecl_cpp::cuda::supported_scaled_mma_combinations(&architecture), properties);
    }

    pub(super) fn target_properties(self) -> TargetProperties {
        TargetProperties {
            mma: MmaProperties {
                contiguous_elements: ContiguousElements::new(contiguous_elements_cuda),
                ..Default::default()
            },
        }
    }

    pub(super) fn compilation(self) -> CompilationOptions {
        CompilationOptions {
            supports_features: CppSupportedFeatures {
                grid_constants: true,
                clusters: self >= Card::Hopper,
                fast_math: true,
                fast_tanh: true,
                elect_sync: self >= Card::Hopper,
                dp4a: true,
            },
            ..Default::default()
        }
    }
}
