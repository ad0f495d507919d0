//! The collectives on device memory that somebody else owns, in the order of a stream that somebody else made: what a tensor
//! engine calls. Nothing here waits for the GPU.

use std::{
    ffi::{c_int, c_void},
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cudarc::{
    driver::CudaContext,
    nccl::sys::{cudaStream_t, ncclComm_t, ncclDataType_t, ncclRedOp_t},
};

use super::{Nccl, NcclError, NcclId, error::driver, library::gpus};
use crate::comm::{Counts, ElementKind, ReduceOp};

/// Element type of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// Byte.
    U8,
}

impl DeviceType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }

    fn code(self) -> ncclDataType_t {
        match self {
            Self::F32 => ncclDataType_t::ncclFloat32,
            Self::F64 => ncclDataType_t::ncclFloat64,
            Self::F16 => ncclDataType_t::ncclFloat16,
            Self::Bf16 => ncclDataType_t::ncclBfloat16,
            Self::I64 => ncclDataType_t::ncclInt64,
            Self::I32 => ncclDataType_t::ncclInt32,
            Self::U8 => ncclDataType_t::ncclUint8,
        }
    }
}

impl From<ElementKind> for DeviceType {
    fn from(kind: ElementKind) -> Self {
        match kind {
            ElementKind::F32 => Self::F32,
            ElementKind::F64 => Self::F64,
            ElementKind::I64 => Self::I64,
            ElementKind::U8 => Self::U8,
        }
    }
}

/// Elements in device memory, as a tensor engine hands them out (`GpuResource::ptr` of cubecl).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawSlice {
    /// Device address of the first element.
    pub pointer: u64,
    /// Elements.
    pub len: usize,
    /// Their type.
    pub kind: DeviceType,
}

impl RawSlice {
    fn at(self, element: usize) -> *mut c_void {
        (self.pointer + (element * self.kind.size()) as u64) as *mut c_void
    }
}

/// A CUDA stream: the value of a `CUstream` or `cudaStream_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawStream(pub u64);

impl RawStream {
    fn handle(self) -> cudaStream_t {
        self.0 as cudaStream_t
    }
}

/// A rank's handle on a group of GPUs. Calls only enqueue work on the given stream: the ranks must enqueue equal calls in equal
/// order, and arguments that disagree between ranks are undefined behaviour of NCCL.
pub struct DeviceCommunicator {
    nccl: Nccl,
    context: Arc<CudaContext>,
    /// `None` once aborted.
    handle: Mutex<Option<Handle>>,
    rank: usize,
    size: usize,
}

struct Handle(ncclComm_t);
// SAFETY: NCCL's communicators belong to no thread; the mutex around this one serialises its use.
unsafe impl Send for Handle {}

impl DeviceCommunicator {
    /// Joins the world of `size` ranks that `id` names, on GPU `gpu` of this machine. Returns when all ranks have joined.
    ///
    /// # Errors
    /// A rank outside the world, no driver, no such GPU, or NCCL's failure.
    pub fn new(nccl: &Nccl, gpu: usize, id: NcclId, rank: usize, size: usize) -> Result<Self, NcclError> {
        let call = "ncclCommInitRank";
        let counts = (c_int::try_from(size), c_int::try_from(rank));
        let (Ok(ranks), Ok(own), true) = (counts.0, counts.1, rank < size) else {
            return Err(NcclError::Argument { call, reason: format!("rank {rank} of a world of {size}") });
        };
        let present = gpus()?;
        if gpu >= present {
            return Err(NcclError::Argument { call, reason: format!("GPU {gpu} of {present}") });
        }
        let context = CudaContext::new(gpu).map_err(driver("open the device"))?;
        context.bind_to_thread().map_err(driver("use the device"))?;
        let mut comm = ptr::null_mut();
        // SAFETY: `comm` is valid for writing, the rank is inside the world, and the device is this thread's current one.
        nccl.check(call, unsafe { (nccl.functions().comm_init_rank)(&mut comm, ranks, id.0, own) })?;
        Ok(Self { nccl: nccl.clone(), context, handle: Mutex::new(Some(Handle(comm))), rank, size })
    }

    /// This rank's number within the group.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Ranks in the group.
    pub fn size(&self) -> usize {
        self.size
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Divides the group as [`Communicator::split`](crate::comm::Communicator::split) does. Collective; returns when all have called.
    ///
    /// # Errors
    /// A color above `i32::MAX`, or NCCL's failure.
    pub fn split(&self, color: Option<u32>, key: i32) -> Result<Option<Self>, NcclError> {
        /// `NCCL_SPLIT_NOCOLOR`.
        const NO_COLOR: c_int = -1;
        let call = "ncclCommSplit";
        let too_large = |_| NcclError::Argument { call, reason: format!("color {color:?} is above {}", c_int::MAX) };
        let number = color.map_or(Ok(NO_COLOR), c_int::try_from).map_err(too_large)?;
        let (functions, mut comm) = (self.nccl.functions(), ptr::null_mut());
        let (mut rank, mut size) = (0, 0);
        self.with(|own| {
            // SAFETY: the communicator is alive, `comm` is valid for writing; without a configuration the parent's is used.
            let code = unsafe { (functions.comm_split)(own, number, key, &mut comm, ptr::null_mut()) };
            self.nccl.check(call, code)
        })?;
        if color.is_none() {
            return Ok(None);
        }
        // SAFETY: the communicator was just made, the integers are valid for writing.
        unsafe {
            self.nccl.check("ncclCommUserRank", (functions.comm_user_rank)(comm, &mut rank))?;
            self.nccl.check("ncclCommCount", (functions.comm_count)(comm, &mut size))?;
        }
        let (nccl, context, handle) = (self.nccl.clone(), self.context.clone(), Mutex::new(Some(Handle(comm))));
        Ok(Some(Self { nccl, context, handle, rank: rank as usize, size: size as usize }))
    }

    /// `receive` becomes the reduction of all ranks' `send`; they may be the same memory.
    ///
    /// # Errors
    /// Slices that do not fit each other, or NCCL's failure.
    ///
    /// # Safety
    /// Each slice must be device memory of this communicator's GPU that stays allocated, and that nobody else writes (or, for
    /// `receive`, reads), until `stream` has passed this call. `stream` must be alive and of the same GPU.
    pub unsafe fn all_reduce(
        &self,
        send: RawSlice,
        receive: RawSlice,
        op: ReduceOp,
        stream: RawStream,
    ) -> Result<(), NcclError> {
        self.fits("all_reduce", (send, 1), (receive, 1))?;
        let call = self.nccl.functions().all_reduce;
        self.enqueue("ncclAllReduce", |comm| {
            // SAFETY: the lengths are equal; the rest is the caller's promise.
            unsafe { call(send.at(0), receive.at(0), send.len, send.kind.code(), code(op), comm, stream.handle()) }
        })
    }

    /// `receive` becomes this rank's part of the reduction of all ranks' `send`, which is `size` times as long.
    ///
    /// # Errors
    /// As [`DeviceCommunicator::all_reduce`].
    ///
    /// # Safety
    /// As [`DeviceCommunicator::all_reduce`].
    pub unsafe fn reduce_scatter(
        &self,
        send: RawSlice,
        receive: RawSlice,
        op: ReduceOp,
        stream: RawStream,
    ) -> Result<(), NcclError> {
        self.fits("reduce_scatter", (send, 1), (receive, self.size))?;
        let call = self.nccl.functions().reduce_scatter;
        self.enqueue("ncclReduceScatter", |comm| {
            // SAFETY: `send` holds `size` parts as long as `receive`; the rest is the caller's promise.
            unsafe { call(send.at(0), receive.at(0), receive.len, send.kind.code(), code(op), comm, stream.handle()) }
        })
    }

    /// `receive` becomes all ranks' `send` in rank order; it is `size` times as long. In place when `send` is part `rank` of it.
    ///
    /// # Errors
    /// As [`DeviceCommunicator::all_reduce`].
    ///
    /// # Safety
    /// As [`DeviceCommunicator::all_reduce`].
    pub unsafe fn all_gather(&self, send: RawSlice, receive: RawSlice, stream: RawStream) -> Result<(), NcclError> {
        self.fits("all_gather", (send, self.size), (receive, 1))?;
        let call = self.nccl.functions().all_gather;
        self.enqueue("ncclAllGather", |comm| {
            // SAFETY: `receive` holds `size` parts as long as `send`; the rest is the caller's promise.
            unsafe { call(send.at(0), receive.at(0), send.len, send.kind.code(), comm, stream.handle()) }
        })
    }

    /// `slice` becomes `root`'s.
    ///
    /// # Errors
    /// A `root` outside the group, or NCCL's failure.
    ///
    /// # Safety
    /// As [`DeviceCommunicator::all_reduce`].
    pub unsafe fn broadcast(&self, slice: RawSlice, root: usize, stream: RawStream) -> Result<(), NcclError> {
        let root = self.peer("broadcast", root)?;
        let call = self.nccl.functions().broadcast;
        self.enqueue("ncclBroadcast", |comm| {
            // SAFETY: sending and receiving in place is allowed; the rest is the caller's promise.
            unsafe { call(slice.at(0), slice.at(0), slice.len, slice.kind.code(), root, comm, stream.handle()) }
        })
    }

    /// Sends `slice` to rank `to`, which must be receiving: the stream goes on when it has.
    ///
    /// # Errors
    /// A rank outside the group, or NCCL's failure.
    ///
    /// # Safety
    /// As [`DeviceCommunicator::all_reduce`].
    pub unsafe fn send(&self, slice: RawSlice, to: usize, stream: RawStream) -> Result<(), NcclError> {
        let to = self.peer("send", to)?;
        let call = self.nccl.functions().send;
        self.enqueue("ncclSend", |comm| {
            // SAFETY: the caller's promise.
            unsafe { call(slice.at(0), slice.len, slice.kind.code(), to, comm, stream.handle()) }
        })
    }

    /// Receives `slice` from rank `from`.
    ///
    /// # Errors
    /// As [`DeviceCommunicator::send`].
    ///
    /// # Safety
    /// As [`DeviceCommunicator::all_reduce`].
    pub unsafe fn recv(&self, slice: RawSlice, from: usize, stream: RawStream) -> Result<(), NcclError> {
        let from = self.peer("recv", from)?;
        let call = self.nccl.functions().recv;
        self.enqueue("ncclRecv", |comm| {
            // SAFETY: the caller's promise.
            unsafe { call(slice.at(0), slice.len, slice.kind.code(), from, comm, stream.handle()) }
        })
    }

    /// Sends `counts.send[q]` elements to each rank `q` and receives `counts.receive[q]` from it: one group of sends and receives,
    /// which NCCL runs at the same time. The slices must not overlap.
    ///
    /// # Errors
    /// Counts that do not fit the group or the slices, or NCCL's failure.
    ///
    /// # Safety
    /// As [`DeviceCommunicator::all_reduce`].
    pub unsafe fn all_to_all_v(
        &self,
        send: RawSlice,
        receive: RawSlice,
        counts: &Counts,
        stream: RawStream,
    ) -> Result<(), NcclError> {
        let total = |counts: &[usize]| counts.iter().sum::<usize>();
        let fits = |counts: &[usize], slice: RawSlice| counts.len() == self.size && total(counts) == slice.len;
        if !fits(&counts.send, send) || !fits(&counts.receive, receive) || send.kind != receive.kind {
            let reason = format!("{counts:?} do not fit {} ranks, {send:?} and {receive:?}", self.size);
            return Err(NcclError::Argument { call: "all_to_all_v", reason });
        }
        let (functions, kind, stream) = (self.nccl.functions(), send.kind.code(), stream.handle());
        self.with(|comm| {
            let (mut from, mut to) = (0, 0);
            // SAFETY: no arguments.
            self.nccl.check("ncclGroupStart", unsafe { (functions.group_start)() })?;
            let mut failure = Ok(());
            for (peer, (sent, received)) in counts.send.iter().zip(&counts.receive).enumerate() {
                // SAFETY: the parts lie inside the slices, whose lengths are the counts' sums; the rest is the caller's promise.
                let codes = unsafe {
                    [
                        (*sent > 0).then(|| (functions.send)(send.at(from), *sent, kind, peer as c_int, comm, stream)),
                        (*received > 0)
                            .then(|| (functions.recv)(receive.at(to), *received, kind, peer as c_int, comm, stream)),
                    ]
                };
                for (function, code) in ["ncclSend", "ncclRecv"].into_iter().zip(codes) {
                    failure = failure.and(self.nccl.check(function, code.unwrap_or(0)));
                }
                (from, to) = (from + sent, to + received);
            }
            // The group is ended in any case: it belongs to this thread, not to this communicator.
            // SAFETY: no arguments.
            failure.and(self.nccl.check("ncclGroupEnd", unsafe { (functions.group_end)() }))
        })
    }

    /// What went wrong since the last call, as far as NCCL knows: a GPU or a network that failed.
    ///
    /// # Errors
    /// That failure.
    pub fn health(&self) -> Result<(), NcclError> {
        let mut code = 0;
        self.with(|comm| {
            // SAFETY: the communicator is alive and `code` is valid for writing.
            let asked = unsafe { (self.nccl.functions().comm_async_error)(comm, &mut code) };
            self.nccl.check("ncclCommGetAsyncError", asked)
        })?;
        self.nccl.check("an enqueued call", code)
    }

    /// Gives up what is under way; later calls fail. The other ranks learn nothing from it.
    pub fn abort(&self) {
        if let Some(Handle(comm)) = self.lock().take() {
            // SAFETY: the communicator is alive and was taken out, so that nobody uses it again. What it answers helps nobody.
            unsafe { (self.nccl.functions().comm_abort)(comm) };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Handle>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call` on the living communicator, one caller at a time, with its GPU as the thread's current one.
    fn with(&self, call: impl FnOnce(ncclComm_t) -> Result<(), NcclError>) -> Result<(), NcclError> {
        let handle = self.lock();
        let aborted = || NcclError::Argument { call: "nccl", reason: "the communicator was aborted".into() };
        let Handle(comm) = handle.as_ref().ok_or_else(aborted)?;
        self.context.bind_to_thread().map_err(driver("use the device"))?;
        call(*comm)
    }

    fn enqueue(&self, function: &'static str, call: impl FnOnce(ncclComm_t) -> u32) -> Result<(), NcclError> {
        self.with(|comm| self.nccl.check(function, call(comm)))
    }

    fn peer(&self, call: &'static str, peer: usize) -> Result<c_int, NcclError> {
        let outside = || NcclError::Argument { call, reason: format!("rank {peer} of a group of {}", self.size) };
        (peer < self.size).then_some(peer as c_int).ok_or_else(outside)
    }

    /// Equal kinds, and lengths that agree after multiplication.
    fn fits(&self, call: &'static str, send: (RawSlice, usize), receive: (RawSlice, usize)) -> Result<(), NcclError> {
        fit(call, send, receive, self.size)
    }
}

/// [`DeviceCommunicator::fits`] without a GPU.
pub(super) fn fit(
    call: &'static str,
    (send, parts): (RawSlice, usize),
    (receive, of): (RawSlice, usize),
    size: usize,
) -> Result<(), NcclError> {
    if send.kind == receive.kind && send.len.checked_mul(parts) == receive.len.checked_mul(of) {
        return Ok(());
    }
    let reason = format!("{send:?} and {receive:?} do not fit each other in a group of {size}");
    Err(NcclError::Argument { call, reason })
}

fn code(op: ReduceOp) -> ncclRedOp_t {
    match op {
        ReduceOp::Sum => ncclRedOp_t::ncclSum,
        ReduceOp::Max => ncclRedOp_t::ncclMax,
        ReduceOp::Min => ncclRedOp_t::ncclMin,
    }
}

impl Drop for DeviceCommunicator {
    fn drop(&mut self) {
        if let Some(Handle(comm)) = self.lock().take() {
            // Destroying needs the GPU; when that is gone there is nothing left to destroy.
            if self.context.bind_to_thread().is_ok() {
                // SAFETY: the communicator is alive and nobody else has it any more.
                unsafe { (self.nccl.functions().comm_destroy)(comm) };
            }
        }
    }
}
