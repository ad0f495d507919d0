//! A job with a process per rank (`launch.communicator = "mpi"`). Rank 0 leads: it builds the corpus, chooses the run and writes
//! the outputs; the others wait, open the same data and train.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use internevo_core::{config::Resolved, layout::ParallelLayout};
use internevo_parallel::comm::{
    Buffer, CommError, Communicator, MpiOptions, MpiWorld, RunError, gather_bytes, mpi_world, write_flight,
};
use serde::{Deserialize, Serialize};

use super::{
    job::{Job, Trained},
    ranks,
    resume::{ResumeRequest, Start},
    session::Session,
};
use crate::{
    context::Context,
    corpus,
    error::{Silent, chain},
    interrupt::Interrupt,
    phases::Phases,
    user_bail,
};

/// While rank 0 prepares, it tells the others so this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// What rank 0 tells the others before training.
#[derive(Debug, Serialize, Deserialize)]
enum Orders {
    /// Train this run.
    Train { run: PathBuf, start: Start },
    /// There is nothing to do: the run is finished, or rank 0 cannot begin, and says why. The others end without an error: a code
    /// of their own would let mpirun end rank 0 before it has spoken.
    Nothing,
}

/// Trains as this process's rank.
///
/// # Errors
/// As [`super::run`]; a rank that died or hangs is named.
pub fn run(cx: &Context, resolved: &Resolved, resume: &ResumeRequest, layout: ParallelLayout) -> anyhow::Result<()> {
    let failure = Arc::new(Failure { run: OnceLock::new(), reported: AtomicBool::new(false), rank: OnceLock::new() });
    let world = connect(cx, resolved, failure.clone())?;
    let _ = failure.rank.set(world.communicator().rank());
    let (rank, size) = (world.communicator().rank(), world.communicator().size());
    if size != layout.world() {
        let wanted = layout.world();
        world.close()?;
        if rank > 0 {
            // A code of their own would let mpirun end rank 0 before it has spoken.
            return Ok(());
        }
        user_bail!(
            "launch.ranks: {wanted} ranks are configured, {size} processes were started; add --set launch.ranks={size}"
        );
    }
    // One voice: the others' errors reach the terminal, nothing else.
    let cx = if rank == 0 { cx.clone() } else { cx.quiet() };
    let outcome = if rank == 0 {
        lead(&cx, resolved, resume, layout, world, &failure)
    } else {
        follow(&cx, resolved, layout, world, &failure)
    };
    match outcome {
        // Said when it was noticed: mpirun ends the other ranks at once.
        Err(error) if failure.reported.load(Ordering::SeqCst) && ranks::comm_failure(&error).is_some() => {
            Err(Silent.into())
        }
        outcome => outcome,
    }
}

/// Where a failed world is reported.
struct Failure {
    run: OnceLock<PathBuf>,
    rank: OnceLock<usize>,
    reported: AtomicBool,
}

impl Failure {
    fn report(&self, cx: &Context, error: &CommError) {
        if self.reported.swap(true, Ordering::SeqCst) {
            return;
        }
        let rank = self.rank.get().copied().unwrap_or_default();
        cx.console.error(&format!("rank {rank}: {error}"));
        if let Some(run) = self.run.get()
            && let Err(error) = write_flight(&run.join("logs"), rank, error.flight(), Some(error))
        {
            cx.console.warn(&format!("rank {rank}: the flight record cannot be written: {error}"));
        }
    }
}

fn connect(cx: &Context, resolved: &Resolved, failure: Arc<Failure>) -> anyhow::Result<MpiWorld> {
    let launch = &resolved.config.launch;
    let (reporter, console) = (failure, cx.clone());
    let options = MpiOptions {
        timeout: Duration::from_secs(launch.timeout),
        recorded_calls: launch.recorded_calls,
        on_failure: Some(Box::new(move |error| reporter.report(&console, error))),
        // The trainer catches it itself, to save first.
        sigterm_grace: None,
        ..MpiOptions::default()
    };
    Ok(mpi_world(options)?)
}

fn lead(
    cx: &Context,
    resolved: &Resolved,
    resume: &ResumeRequest,
    layout: ParallelLayout,
    world: MpiWorld,
    failure: &Failure,
) -> anyhow::Result<()> {
    let comm = world.communicator();
    let threads = super::use_threads(threads_here(resolved.config.launch.threads, &*comm)?);
    let mut session = match with_signs_of_life(&comm, || Session::begin(cx, resolved, resume, threads))? {
        Ok(session) => session,
        Err(error) => {
            // The others have nothing to add.
            announce(&*comm, &Orders::Nothing)?;
            world.close()?;
            return Err(error);
        }
    };
    if let Start::Finished(run) = &session.start {
        announce(&*comm, &Orders::Nothing)?;
        world.close()?;
        return session.show_finished(run);
    }
    let _ = failure.run.set(session.run.clone());
    announce(&*comm, &Orders::Train { run: session.run.clone(), start: session.start.clone() })?;
    let mut phases = session.take_phases();
    let job = session.job(layout)?;
    session.announce(&job);
    let trained = session.train(&job, &mut phases, || play(&job, world))?;
    session.finish(&job, &mut phases, &trained)
}

/// This process's rank of the world.
fn play(job: &Job<'_>, world: MpiWorld) -> anyhow::Result<Trained> {
    world.run(|comm| ranks::one(job, comm)).map_err(|failure| match failure {
        RunError::Failed { rank, error } => error.context(format!("rank {rank} failed")),
        other => anyhow::anyhow!(chain(&other.into())),
    })
}

fn follow(
    cx: &Context,
    resolved: &Resolved,
    layout: ParallelLayout,
    world: MpiWorld,
    failure: &Failure,
) -> anyhow::Result<()> {
    let comm = world.communicator();
    let threads = super::use_threads(threads_here(resolved.config.launch.threads, &*comm)?);
    let (run, start) = match await_orders(&*comm)? {
        Orders::Train { run, start } => (run, start),
        Orders::Nothing => return Ok(world.close()?),
    };
    let _ = failure.run.set(run.clone());
    let interrupt = Interrupt::install(&cx.console, "the same command continues where it stopped");
    let mut phases = Phases::new(&cx.console);
    // Everything is there: rank 0 made it.
    let data = corpus::prepare(cx, &resolved.config, &interrupt, &mut phases)?;
    let session = Session::joined(cx, resolved, data, run, start, threads, interrupt);
    let job = session.job(layout)?;
    let _polling = job.interrupt.polling();
    play(&job, world).map(drop)
}

/// Threads of this process: as configured, or its share of the cores among the ranks of its host. Collective.
fn threads_here(wanted: usize, comm: &dyn Communicator) -> Result<usize, CommError> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let all = gather_bytes(comm, host.as_bytes())?;
    let neighbours = all.iter().filter(|other| other.as_slice() == host.as_bytes()).count();
    Ok(if wanted > 0 { wanted } else { (crate::system::cores() / neighbours.max(1)).max(1) })
}

/// Runs `body` on rank 0 while the others wait in [`await_orders`], however long it takes.
fn with_signs_of_life<T>(comm: &Arc<dyn Communicator>, body: impl FnOnce() -> T) -> Result<T, CommError> {
    let (done, finished) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let speaker = scope.spawn(move || {
            while finished.recv_timeout(SIGN_OF_LIFE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                tell(&**comm, &[])?;
            }
            Ok(())
        });
        let result = body();
        drop(done);
        speaker.join().expect("it only speaks")?;
        Ok(result)
    })
}

fn announce(comm: &dyn Communicator, orders: &Orders) -> anyhow::Result<()> {
    Ok(tell(comm, &serde_json::to_vec(orders)?)?)
}

/// Sends bytes from rank 0 to all; the length first.
fn tell(comm: &dyn Communicator, bytes: &[u8]) -> Result<(), CommError> {
    comm.broadcast(Buffer::I64(vec![bytes.len() as i64]), 0)?.wait()?;
    if !bytes.is_empty() {
        comm.broadcast(Buffer::U8(bytes.to_vec()), 0)?.wait()?;
    }
    Ok(())
}

fn await_orders(comm: &dyn Communicator) -> anyhow::Result<Orders> {
    loop {
        let length = comm.broadcast(Buffer::I64(vec![0]), 0)?.wait()?.into_i64()[0];
        if length > 0 {
            let bytes = comm.broadcast(Buffer::U8(vec![0; length as usize]), 0)?.wait()?.into_u8();
            return Ok(serde_json::from_slice(&bytes)?);
        }
    }
}
