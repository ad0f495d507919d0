//! Communicators over NCCL: host buffers go up to the device, through the collective and down again.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use cudarc::driver::{CudaEvent, CudaSlice, CudaStream, DevicePtrMut};

use super::{DeviceCommunicator, Nccl, NcclError, NcclId, RawSlice, RawStream, error::driver};
use crate::comm::{
    Buffer, CommError, Communicator, Counts, ElementKind, FailureCause, Pending, RankTrace, ReduceOp,
    buffer::on_vector,
    call::{Call, Place, Verb},
    member::{Deposit, Engine, Member},
    self_mail::SelfMail,
};

/// Pauses between looks at an operation under way: the first ones short for small messages, then longer to leave the core alone.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// Settings of an NCCL world.
#[derive(Clone, Debug)]
pub struct NcclOptions {
    /// GPU of this machine to use: the rank's number on its node.
    pub gpu: usize,
    /// How long an operation may take before the world counts as failed.
    pub timeout: Duration,
}

impl Default for NcclOptions {
    /// The first GPU, ten minutes.
    fn default() -> Self {
        Self { gpu: 0, timeout: Duration::from_secs(600) }
    }
}

/// One rank of an NCCL world. Every group has a stream of its own; operations of a group run in the order of the calls.
///
/// **Messages.** NCCL has no tags: messages between two ranks must be received in the order in which they were sent, across tags and
/// groups. Those to higher ranks and those to lower ranks travel apart, so that two ranks may send to each other first and
/// receive afterwards.
pub struct NcclWorld {
    world: Arc<Member<Group>>,
    device: Arc<DeviceCommunicator>,
}

impl NcclWorld {
    /// Joins the world of `size` ranks that `id` names. Collective: returns when all ranks have joined.
    ///
    /// # Errors
    /// As [`DeviceCommunicator::new`].
    pub fn new(nccl: &Nccl, id: NcclId, rank: usize, size: usize, options: NcclOptions) -> Result<Self, NcclError> {
        let lane = Lane::new(DeviceCommunicator::new(nccl, options.gpu, id, rank, size)?)?;
        let (up, down) = (lane.twin()?, lane.twin()?);
        let copies = lane.comm.context().new_stream().map_err(driver("create a stream"))?;
        let all = [&lane, &up, &down].map(|lane| Arc::downgrade(&lane.comm));
        let (all, failure) = (Mutex::new(all.into()), OnceLock::new());
        let world = Arc::new(World { rank, options, copies, up, down, all, failure });
        let device = lane.comm.clone();
        let group = Arc::new(Group { lane, to_self: SelfMail::default(), world });
        Ok(Self { world: Arc::new(Member::new(group, Place::in_world(rank, size))), device })
    }

    /// The group of all ranks.
    pub fn communicator(&self) -> Arc<dyn Communicator> {
        self.world.clone()
    }

    /// The verbs of the group of all ranks on device memory, for tensors that are there already.
    pub fn device(&self) -> &DeviceCommunicator {
        &self.device
    }
}

/// This rank in one group.
struct Group {
    lane: Lane,
    to_self: SelfMail,
    world: Arc<World>,
}

/// A communicator with a stream of its own. Cloning shares both.
#[derive(Clone)]
struct Lane {
    comm: Arc<DeviceCommunicator>,
    stream: Arc<CudaStream>,
}

/// What all groups of this rank share.
struct World {
    rank: usize,
    options: NcclOptions,
    /// For transfers between host and device, which wait for no peer.
    copies: Arc<CudaStream>,
    /// Messages to higher and to lower ranks of the world.
    up: Lane,
    down: Lane,
    /// All communicators, to be aborted together.
    all: Mutex<Vec<Weak<DeviceCommunicator>>>,
    failure: OnceLock<CommError>,
}

impl Lane {
    fn new(comm: DeviceCommunicator) -> Result<Self, NcclError> {
        let stream = comm.context().new_stream().map_err(driver("create a stream"))?;
        Ok(Self { comm: Arc::new(comm), stream })
    }

    fn raw_stream(&self) -> RawStream {
        RawStream(self.stream.cu_stream() as u64)
    }

    /// Another lane between the same ranks.
    fn twin(&self) -> Result<Self, NcclError> {
        Self::new(self.comm.split(Some(0), 0)?.expect("every rank named a color"))
    }
}

impl Group {
    /// A collective whose result takes the place of what is sent.
    fn in_place(
        &self,
        call: String,
        buffer: Buffer,
        enqueue: impl FnOnce(&Lane, RawSlice) -> Result<(), NcclError>,
    ) -> Result<Pending, CommError> {
        self.world.alive()?;
        let posted = Staged::up(&self.world, &self.lane, buffer).and_then(|mut staged| {
            staged.run(|lane, own| enqueue(lane, own))?;
            Ok(staged)
        });
        self.world.pending(posted, call)
    }

    /// A collective from one piece of device memory to another, which holds `len` elements.
    fn between(
        &self,
        call: String,
        buffer: Buffer,
        len: usize,
        enqueue: impl FnOnce(&Lane, RawSlice, RawSlice) -> Result<(), NcclError>,
    ) -> Result<Pending, CommError> {
        self.world.alive()?;
        let posted = Staged::up(&self.world, &self.lane, buffer).and_then(|mut source| {
            let mut target = Staged::room(&self.world, &self.lane, source.landing.kind(), len)?;
            target.run(|_, receive| source.run(|lane, send| enqueue(lane, send, receive)))?;
            Ok(target)
        });
        self.world.pending(posted, call)
    }
}

impl Engine for Group {
    fn post(&self, place: &Place, _sequence: u64, call: Call, deposit: Deposit) -> Result<Pending, CommError> {
        let Deposit { buffer, send, receive } = deposit;
        let (name, slot, ranks) = (call.to_string(), place.slot, place.members.len());
        // SAFETY, of every call below: `Staged` keeps its memory until the lane's stream has passed the call, and two of them
        // are different allocations.
        match call.verb {
            Verb::AllReduce(op) => self.in_place(name, buffer, |lane, own| {
                // SAFETY: see above.
                unsafe { lane.comm.all_reduce(own, own, op, lane.raw_stream()) }
            }),
            Verb::ReduceScatter(op) => self.between(name, buffer, call.len / ranks, |lane, from, to| {
                // SAFETY: see above.
                unsafe { lane.comm.reduce_scatter(from, to, op, lane.raw_stream()) }
            }),
            Verb::AllGather | Verb::Split => self.between(name, buffer, call.len * ranks, |lane, from, to| {
                // SAFETY: see above.
                unsafe { lane.comm.all_gather(from, to, lane.raw_stream()) }
            }),
            Verb::AllGatherInPlace => self.in_place(name, buffer, |lane, own| {
                let part = own.len / ranks;
                let start = own.pointer + (slot * part * own.kind.size()) as u64;
                let from = RawSlice { pointer: start, len: part, kind: own.kind };
                // SAFETY: see above; sending from the own part of what is received is NCCL's in-place form.
                unsafe { lane.comm.all_gather(from, own, lane.raw_stream()) }
            }),
            Verb::AllToAll => {
                let (len, counts) = (receive.iter().sum(), Counts { send, receive });
                self.between(name, buffer, len, |lane, from, to| {
                    // SAFETY: see above.
                    unsafe { lane.comm.all_to_all_v(from, to, &counts, lane.raw_stream()) }
                })
            }
            Verb::Broadcast { root } => self.in_place(name, buffer, |lane, own| {
                // SAFETY: see above.
                unsafe { lane.comm.broadcast(own, root, lane.raw_stream()) }
            }),
            Verb::Barrier => self.in_place(name, Buffer::U8(vec![0]), |lane, own| {
                // SAFETY: see above.
                unsafe { lane.comm.all_reduce(own, own, ReduceOp::Max, lane.raw_stream()) }
            }),
        }
    }

    fn send(&self, place: &Place, buffer: Buffer, to: usize, tag: u32) -> Result<Pending, CommError> {
        self.world.alive()?;
        let (peer, call) = (place.members[to], format!("send({} x {})", buffer.kind(), buffer.len()));
        if peer == self.world.rank {
            self.to_self.post(tag, buffer);
            return Ok(Pending::ready(Buffer::U8(Vec::new())));
        }
        let sent = Staged::up(&self.world, self.world.towards(peer), buffer).and_then(|mut staged| {
            // SAFETY: freeing the memory is queued behind the call.
            staged.run(|lane, own| unsafe { lane.comm.send(own, peer, lane.raw_stream()) })
        });
        sent.map_err(|error| self.world.fail(error.on_rank(self.world.rank, &call)))?;
        Ok(Pending::ready(Buffer::U8(Vec::new())))
    }

    fn receive(
        &self,
        place: &Place,
        kind: ElementKind,
        len: usize,
        from: usize,
        tag: u32,
    ) -> Result<Pending, CommError> {
        self.world.alive()?;
        let peer = place.members[from];
        if peer == self.world.rank {
            return self.to_self.take(place, kind, len, tag).map(Pending::ready);
        }
        let lane = if peer < self.world.rank { &self.world.up } else { &self.world.down };
        let posted = Staged::room(&self.world, lane, kind, len).and_then(|mut staged| {
            // SAFETY: `Staged` keeps its memory until the lane's stream has passed the call.
            staged.run(|lane, own| unsafe { lane.comm.recv(own, peer, lane.raw_stream()) })?;
            Ok(staged)
        });
        self.world.pending(posted, format!("recv({kind} x {len}) from rank {peer}"))
    }

    fn abort(&self, why: &str) {
        let cause = FailureCause::Aborted { rank: self.world.rank, why: why.to_owned() };
        self.world.fail(CommError::new(cause, Vec::new()));
    }

    fn flight(&self) -> Vec<RankTrace> {
        Vec::new()
    }

    fn divided(self: &Arc<Self>, color: Option<u32>, key: i32) -> Result<Option<Arc<Self>>, CommError> {
        let failed = |error: NcclError| self.world.fail(error.on_rank(self.world.rank, "split"));
        let Some(comm) = self.lane.comm.split(color, key).map_err(failed)? else { return Ok(None) };
        let lane = Lane::new(comm).map_err(failed)?;
        self.world.all.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&lane.comm));
        Ok(Some(Arc::new(Self { lane, to_self: SelfMail::default(), world: self.world.clone() })))
    }
}

impl World {
    fn alive(&self) -> Result<(), CommError> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Ends this rank's communication, if nothing has yet, and returns the failure that counts.
    fn fail(&self, error: CommError) -> CommError {
        let failure = self.failure.get_or_init(|| error).clone();
        let all = std::mem::take(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner));
        all.iter().filter_map(Weak::upgrade).for_each(|comm| comm.abort());
        failure
    }

    fn towards(&self, peer: usize) -> &Lane {
        if peer > self.rank { &self.up } else { &self.down }
    }

    /// The handle of what was posted.
    fn pending(self: &Arc<Self>, posted: Result<Staged, NcclError>, call: String) -> Result<Pending, CommError> {
        let staged = posted.map_err(|error| self.fail(error.on_rank(self.rank, &call)))?;
        let world = self.clone();
        Ok(Pending::new(move || staged.down(&world, &call)))
    }

    /// Waits until `event` has happened. Looks, instead of blocking in the driver, so that a failure ends the wait.
    fn wait_for(&self, event: &CudaEvent, comm: &DeviceCommunicator, call: &str) -> Result<(), CommError> {
        let (start, mut pause) = (Instant::now(), FIRST_PAUSE);
        let failed = |error: NcclError| self.fail(error.on_rank(self.rank, call));
        while !event.try_is_complete().map_err(|source| failed(driver("wait")(source)))? {
            self.alive()?;
            comm.health().map_err(failed)?;
            let waited = start.elapsed();
            if waited > self.options.timeout {
                let what = format!("no completion within {waited:.0?}; NCCL cannot tell which rank is missing");
                let cause = FailureCause::Transport { rank: self.rank, what, waiting: Some(call.to_owned()) };
                return Err(self.fail(CommError::new(cause, Vec::new())));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.alive()
    }
}

/// Host elements and their room on the device.
///
/// The device memory belongs to the stream for copies, and cudarc makes that stream wait for the lane's recorded use before it
/// frees it: dropping a `Staged` while its operation is under way is sound.
struct Staged {
    landing: Buffer,
    device: CudaSlice<u8>,
    lane: Lane,
    copies: Arc<CudaStream>,
    done: Option<CudaEvent>,
}

impl Staged {
    /// Room for `len` elements on the device.
    fn room(world: &World, lane: &Lane, kind: ElementKind, len: usize) -> Result<Self, NcclError> {
        Self::with_landing(world, lane, Buffer::zeros(kind, len))
    }

    fn with_landing(world: &World, lane: &Lane, landing: Buffer) -> Result<Self, NcclError> {
        // The driver refuses to allocate nothing.
        let bytes = (landing.len() * landing.kind().size()).max(1);
        let device = world.copies.alloc_zeros(bytes).map_err(driver("allocate device memory"))?;
        Ok(Self { landing, device, lane: lane.clone(), copies: world.copies.clone(), done: None })
    }

    /// Copies `buffer` to the device; its host memory is free, and kept for the result, when this returns.
    fn up(world: &World, lane: &Lane, buffer: Buffer) -> Result<Self, NcclError> {
        let mut staged = Self::with_landing(world, lane, buffer)?;
        let bytes: &[u8] = on_vector!(&staged.landing, v => bytemuck::cast_slice(v));
        staged.copies.memcpy_htod(bytes, &mut staged.device).map_err(driver("copy to the device"))?;
        staged.copies.synchronize().map_err(driver("copy to the device"))?;
        Ok(staged)
    }

    /// Lets `enqueue` put a call on the lane's stream that uses the device memory: after everything that was done to it, and
    /// before everything that will be.
    fn run(&mut self, enqueue: impl FnOnce(&Lane, RawSlice) -> Result<(), NcclError>) -> Result<(), NcclError> {
        let (len, kind) = (self.landing.len(), self.landing.kind().into());
        {
            let (pointer, _recorded) = self.device.device_ptr_mut(&self.lane.stream);
            enqueue(&self.lane, RawSlice { pointer, len, kind })?;
        }
        self.done = Some(self.lane.stream.record_event(None).map_err(driver("record an event"))?);
        Ok(())
    }

    /// Waits for the call and brings the result to the host.
    fn down(mut self, world: &World, call: &str) -> Result<Buffer, CommError> {
        if let Some(done) = &self.done {
            world.wait_for(done, &self.lane.comm, call)?;
        }
        if self.landing.is_empty() {
            return Ok(self.landing);
        }
        let (copies, device) = (&self.copies, &self.device);
        let bytes: &mut [u8] = on_vector!(&mut self.landing, v => bytemuck::cast_slice_mut(v));
        let copied = copies.memcpy_dtoh(device, bytes).and_then(|()| copies.synchronize());
        copied.map_err(|source| world.fail(driver("copy to the host")(source).on_rank(world.rank, call)))?;
        Ok(self.landing)
    }
}
