//! Proves the NCCL backend on one GPU: what is installed, the conformance suite in a world of one, and every verb of the device
//! API on memory that this program fills and reads itself. Not here: more than one rank.
//!
//! `cargo run -p internevo-parallel --features nccl --example nccl_one_rank`

use std::{error::Error, process::ExitCode};

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut};
use internevo_parallel::comm::{
    Counts, ReduceOp,
    conformance::{self, Violation},
    nccl::{
        DeviceCommunicator, DeviceType, Nccl, NcclId, NcclOptions, NcclWorld, RawSlice, RawStream, diagnose, locate,
    },
};

const GPU: usize = 0;
const LEN: usize = 100_003;

fn main() -> ExitCode {
    for line in diagnose() {
        println!("{} {}: {}", if line.usable { "ok     " } else { "MISSING" }, line.what, line.detail);
    }
    match prove() {
        Ok(()) => {
            println!("ok      every verb, on host buffers and on device memory");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn prove() -> Result<(), Box<dyn Error>> {
    let nccl = locate()?;
    conformance::run(|body| {
        let world = |e: &dyn Error| Violation::World(e.to_string());
        let id = nccl.unique_id().map_err(|e| world(&e))?;
        let rank = NcclWorld::new(&nccl, id, 0, 1, NcclOptions::default()).map_err(|e| world(&e))?;
        body(rank.communicator())
    })?;
    // As the bytes travel between processes.
    let id = NcclId::from_bytes(&nccl.unique_id()?.to_bytes())?;
    on_device(&nccl, id)
}

/// Every verb of the device API, in a world of one and in a group split off it.
fn on_device(nccl: &Nccl, id: NcclId) -> Result<(), Box<dyn Error>> {
    let comm = DeviceCommunicator::new(nccl, GPU, id, 0, 1)?;
    let stream = CudaContext::new(GPU)?.new_stream()?;
    let values: Vec<f32> = (0..LEN).map(|i| i as f32 - 0.5).collect();
    let raw_stream = RawStream(stream.cu_stream() as u64);
    let counts = Counts { send: vec![LEN], receive: vec![LEN] };
    let split = comm.split(Some(7), 0)?.ok_or("a rank that names a color has no group")?;
    for comm in [&comm, &split] {
        // SAFETY: `moved` keeps both allocations until the stream is done, and this stream is theirs.
        unsafe {
            moved("all_reduce", &stream, &values, |a, b| comm.all_reduce(a, b, ReduceOp::Sum, raw_stream))?;
            moved("reduce_scatter", &stream, &values, |a, b| comm.reduce_scatter(a, b, ReduceOp::Max, raw_stream))?;
            moved("all_gather", &stream, &values, |a, b| comm.all_gather(a, b, raw_stream))?;
            moved("all_to_all_v", &stream, &values, |a, b| comm.all_to_all_v(a, b, &counts, raw_stream))?;
            moved("broadcast", &stream, &values, |a, b| {
                comm.all_reduce(a, b, ReduceOp::Min, raw_stream)?;
                comm.broadcast(b, 0, raw_stream)
            })?;
        }
        comm.health()?;
    }
    Ok(())
}

/// Checks that `call` brings `values` from one allocation to another, which held zeros.
fn moved<E: Error + 'static>(
    what: &str,
    stream: &std::sync::Arc<CudaStream>,
    values: &Vec<f32>,
    call: impl FnOnce(RawSlice, RawSlice) -> Result<(), E>,
) -> Result<(), Box<dyn Error>> {
    let source: CudaSlice<f32> = stream.clone_htod(values)?;
    let mut target: CudaSlice<f32> = stream.alloc_zeros(values.len())?;
    {
        let slice = |pointer| RawSlice { pointer, len: values.len(), kind: DeviceType::F32 };
        let ((from, _read), (to, _written)) = (source.device_ptr(stream), target.device_ptr_mut(stream));
        call(slice(from), slice(to))?;
    }
    let arrived = stream.clone_dtoh(&target)?;
    stream.synchronize()?;
    if &arrived == values { Ok(()) } else { Err(format!("{what} gave other values").into()) }
}
