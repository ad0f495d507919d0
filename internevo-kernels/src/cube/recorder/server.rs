//! cubecl's server side of a card on paper: translates to CUDA C++ what is launched and writes it down.

use super::meter::{Allocator, Meter};
use super::{Card, Code, Launch};
use cubecl::device::DeviceId;
use cubecl::dry_run::LaunchMode;
use cubecl::future::DynFut;
use cubecl::logging::ServerLogger;
use cubecl::prelude::{CubeKernel, KernelId};
use cubecl::profile::ProfileDuration;
use cubecl::server::{
    BufferBinding, CopyDescriptor, CubeCount, IoError, KernelArguments, LaunchError, ProfileError, ProfilingToken,
    ResourceLimitError, Server, ServerCommunication, ServerError, ServerStorage, ServerUtilities,
};
use cubecl::{Compiler, MemoryAllocationMode, StreamMemoryReport, define_kernel};
use cubecl_core::bytes::Bytes;
use cubecl_core::device::{DeviceService, ServerUtilitiesHandle, ServiceId};
use cubecl_core::environment::{backtrace::BackTrace, stream::StreamId};
use cubecl_cpp::{shared::CppCompiler, target::Cuda};
use cubecl_runtime::memory_management::ManagedMemoryHandle;
use cubecl_runtime::storage::{ComputeStorage, ManagedResource, StorageHandle, StorageId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a card was asked to launch.
#[derive(Debug, Default)]
pub struct Log {
    pub launches: Vec<Launch>,
}

/// The state of a card on paper on its device thread.
#[derive(Debug)]
pub struct PaperServer {
    card: Card,
    utilities: Arc<ServerUtilities>,
    translated: HashMap<KernelId, Result<Arc<Code>, LaunchError>>,
    log: Arc<Mutex<Log>>,
}

impl PaperServer {
    pub fn new(device: DeviceId, card: Card, meter: &Arc<Meter>, log: Arc<Mutex<Log>>) -> Self {
        let (utilities, _captures) = ServerUtilities::init(
            ServiceId::of::<Self>(device),
            // The name of a runtime, as launch policies see it: everything but the devices is CUDA's.
            "cuda on paper",
            card.properties(),
            card.target_properties(),
            Arc::new(ServerLogger::default()),
            Allocator(Arc::clone(meter)),
        );
        Self { card, utilities: Arc::new(utilities), translated: HashMap::new(), log }
    }

    /// The checks that the CUDA runtime makes before a first launch, and its translation.
    fn translate(&self, kernel: &dyn CubeKernel) -> Result<Arc<Code>, LaunchError> {
        let limits = &self.utilities.properties.hardware;
        let dim = kernel.id().cube_dim;
        let units = dim.x * dim.y * dim.z;
        if units > limits.max_units_per_cube {
            let (requested, max, backtrace) = (units, limits.max_units_per_cube, BackTrace::capture());
            return Err(ResourceLimitError::Units { requested, max, backtrace }.into());
        }
        let definition = define_kernel(kernel)?;
        let entry = definition.settings.kernel_name.clone();
        let code = CppCompiler::<Cuda>::default().compile(definition, &self.card.compilation())?;
        let (requested, max) = (code.shared_memory_size, limits.max_shared_memory_size);
        if requested > max {
            return Err(ResourceLimitError::SharedMemory { requested, max, backtrace: BackTrace::capture() }.into());
        }
        Ok(Arc::new(Code { source: code.to_string(), entry, shared_bytes: requested }))
    }

    fn nothing_to_read() -> ServerError {
        let reason = "a card on paper computes nothing: there is nothing to read".to_owned();
        ServerError::Generic { reason, backtrace: BackTrace::capture() }
    }
}

/// `internevo_kernels::rms_norm::cube::forward_kernel::ForwardKernel<…>` → `rms_norm::forward_kernel`: the crate, the folder
/// of cubecl code and the generated struct say nothing.
fn short_name(type_name: &str) -> String {
    let path = type_name.split('<').next().unwrap_or_default();
    let mut segments: Vec<_> = path.split("::").skip(1).filter(|segment| *segment != "cube").collect();
    segments.pop();
    segments.join("::")
}

impl Server for PaperServer {
    fn initialize_memory(&mut self, _: ManagedMemoryHandle, _: u64, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn logger(&self) -> Arc<ServerLogger> {
        Arc::clone(&self.utilities.logger)
    }

    fn utilities(&self) -> Arc<ServerUtilities> {
        Arc::clone(&self.utilities)
    }

    fn read(&mut self, _: Vec<CopyDescriptor>, _: StreamId) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        Box::pin(async { Err(Self::nothing_to_read()) })
    }

    fn write(&mut self, _: Vec<(CopyDescriptor, Bytes)>, _: StreamId) {}

    fn sync(&mut self, _: Vec<BufferBinding>, _: StreamId) -> DynFut<Result<(), ServerError>> {
        Box::pin(async { Ok(()) })
    }

    fn check(&mut self, _: Vec<BufferBinding>, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    unsafe fn launch(
        &mut self,
        kernel: Box<dyn CubeKernel>,
        count: CubeCount,
        bindings: KernelArguments,
        _: StreamId,
        _: LaunchMode,
    ) {
        let id = kernel.id();
        let (kernel_name, dim) = (short_name(kernel.name()), id.cube_dim);
        let code = match self.translated.get(&id) {
            Some(code) => code.clone(),
            None => {
                let code = self.translate(&*kernel);
                self.translated.insert(id, code.clone());
                code
            }
        };
        let launch = Launch {
            kernel: kernel_name,
            cube_dim: [dim.x, dim.y, dim.z],
            cubes: match count {
                CubeCount::Static(x, y, z) => Some([x, y, z]),
                CubeCount::Dynamic(_) => None,
            },
            buffers: bindings.buffers().map(BufferBinding::size_in_used).collect(),
            code,
        };
        self.log.lock().unwrap_or_else(PoisonError::into_inner).launches.push(launch);
    }

    fn flush(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn memory_report(&mut self, _: StreamId) -> Option<StreamMemoryReport> {
        None
    }

    fn memory_cleanup(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn start_profile(&mut self, _: StreamId) -> Result<ProfilingToken, ServerError> {
        Ok(ProfilingToken { id: 0 })
    }

    fn end_profile(&mut self, _: StreamId, _: ProfilingToken) -> Result<ProfileDuration, ProfileError> {
        Err(ProfileError::NotMeasured { backtrace: BackTrace::capture() })
    }

    fn allocation_mode(&mut self, _: MemoryAllocationMode, _: StreamId) {}
}

impl ServerCommunication for PaperServer {}

impl DeviceService for PaperServer {
    fn init(device: DeviceId) -> Self {
        Self::new(device, Card::Hopper, &Arc::default(), Arc::default())
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        Arc::clone(&self.utilities) as ServerUtilitiesHandle
    }
}

/// Storage of no bytes: the trait of cubecl's servers asks for one.
#[derive(Debug)]
pub struct NoStorage;

impl ComputeStorage for NoStorage {
    type Resource = ();

    fn alignment(&self) -> usize {
        super::card::ALIGNMENT
    }

    fn get(&mut self, _: &StorageHandle) -> Result<(), IoError> {
        Ok(())
    }

    fn alloc(&mut self, _: u64) -> Result<StorageHandle, IoError> {
        Err(IoError::UnsupportedIoOperation { backtrace: BackTrace::capture() })
    }

    fn dealloc(&mut self, _: StorageId) {}

    fn flush(&mut self) {}

    fn bytes_allocated(&self) -> u64 {
        0
    }
}

impl ServerStorage for PaperServer {
    type Storage = NoStorage;

    fn get_resource(&mut self, _: BufferBinding, _: StreamId) -> Result<ManagedResource<()>, ServerError> {
        Err(Self::nothing_to_read())
    }
}
