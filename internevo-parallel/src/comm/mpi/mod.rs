//! The `mpi` backend: a process per rank, started by `mpirun` or `srun` and connected through Open MPI, with the bits of the
//! `local` backend.
//!
//! One thread owns MPI and moves the elements, while the rank computes (`engine.rs`, on top of `transport.rs`). Beside MPI,
//! a TCP connection to rank 0 carries heartbeats, and its loss ends the job on every rank (`control/`). Ranks that share a
//! core should run under `OMPI_MCA_mpi_yield_when_idle=1`: this backend sleeps while it waits, but `MPI_Init` does not.

mod control;
mod engine;
mod letter;
mod messages;
mod operation;
mod shared;
mod transport;

use std::{
    fmt, io,
    net::{IpAddr, TcpListener},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use control::{Control, INVITATION_BYTES, Invitation};
use engine::{Command, Engine};
use shared::{Port, Shared};
pub use transport::MpiFault;
use transport::Transport;

use super::{CommError, Communicator, RunError, call::Place, member::Member, ranks::panic_message};

/// What is done with a failure; see [`MpiOptions::on_failure`].
pub type FailureHook = Box<dyn Fn(&CommError) + Send + Sync>;

/// Settings of an MPI world.
pub struct MpiOptions {
    /// How long a call may wait for other ranks to make it before the world fails.
    pub timeout: Duration,
    /// After how long without a heartbeat a rank counts as hung.
    pub silence: Duration,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Calls of this rank that the flight recorder keeps.
    pub recorded_calls: usize,
    /// Called once when the world fails, by the thread that notices, before any waiting call returns: `mpirun` kills the
    /// other ranks as soon as one is gone, so a message that must be seen is printed here.
    pub on_failure: Option<FailureHook>,
    /// How long SIGTERM, by which `mpirun` ends a job, is held back so that the failure behind it can be noticed and reported.
    /// `None` leaves the signal to the application.
    pub sigterm_grace: Option<Duration>,
    /// The address of this host at which the others reach rank 0's control plane. `None` tries all of them.
    pub control_address: Option<IpAddr>,
    /// Bytes of the longest MPI message; longer blocks are cut. At most 1 GiB.
    pub longest_message: usize,
}

impl Default for MpiOptions {
    /// Ten minutes for a call, 20 seconds of silence, two heartbeats a second, 16 recorded calls, half a second of grace.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(600),
            silence: Duration::from_secs(20),
            heartbeat: Duration::from_millis(500),
            recorded_calls: 16,
            on_failure: None,
            sigterm_grace: Some(Duration::from_millis(500)),
            control_address: None,
            longest_message: 1 << 30,
        }
    }
}

impl fmt::Debug for MpiOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MpiOptions")
            .field("timeout", &self.timeout)
            .field("silence", &self.silence)
            .field("heartbeat", &self.heartbeat)
            .field("recorded_calls", &self.recorded_calls)
            .field("on_failure", &self.on_failure.is_some())
            .field("sigterm_grace", &self.sigterm_grace)
            .field("control_address", &self.control_address)
            .field("longest_message", &self.longest_message)
            .finish()
    }
}

/// Why no MPI world came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MpiError {
    /// MPI itself failed.
    #[error("MPI: {0}")]
    Mpi(#[from] MpiFault),
    /// The ranks could not be connected beside MPI.
    #[error("rank {rank}: the control plane cannot start: {source}")]
    Control {
        /// The rank that says so.
        rank: usize,
        /// Why.
        source: io::Error,
    },
    /// The system gave no thread, or took it away.
    #[error("the communication thread cannot run: {0}")]
    Thread(String),
}

/// This process's rank of an MPI world. It lives until [`MpiWorld::close`], or until it is dropped.
pub struct MpiWorld {
    world: Arc<dyn Communicator>,
    shared: Arc<Shared>,
    control: Arc<Control>,
    engine: Option<thread::JoinHandle<()>>,
}

/// Starts MPI, on a thread of its own, and connects this process with the other ranks. Every rank of the job calls it, once.
///
/// # Errors
/// [`MpiError`]; the process should end then, as its rank is missing.
pub fn mpi_world(options: MpiOptions) -> Result<MpiWorld, MpiError> {
    if let Some(grace) = options.sigterm_grace {
        hold_back_sigterm(grace)?;
    }
    let (sender, commands) = mpsc::channel();
    let (tell, started) = mpsc::channel();
    let (start, ready) = mpsc::channel();
    let (address, longest) = (options.control_address, options.longest_message);
    let body = move || communicate(address, longest, commands, &tell, &ready);
    let engine = thread::Builder::new().name("mpi".into()).spawn(body);
    let engine = engine.map_err(|error| MpiError::Thread(error.to_string()))?;
    let gone = |_| MpiError::Thread("it ended while MPI was starting".into());
    let Started { rank, ranks, listener, invitation } = started.recv().map_err(gone)??;
    let shared = Arc::new(Shared::new(rank, ranks, options, sender));
    let control = Control::start(shared.clone(), listener, &invitation);
    let control = control.map_err(|source| MpiError::Control { rank, source })?;
    start.send((shared.clone(), control.clone())).map_err(|_| MpiError::Thread("it ended early".into()))?;
    let port = Port { shared: shared.clone(), control: control.clone() };
    let world = Arc::new(Member::new(Arc::new(port), Place::in_world(rank, ranks)));
    Ok(MpiWorld { world, shared, control, engine: Some(engine) })
}

/// What the communication thread knows when MPI runs.
struct Started {
    rank: usize,
    ranks: usize,
    listener: Option<TcpListener>,
    invitation: Invitation,
}

/// The communication thread: starts MPI, waits until the control plane is ready, and serves.
fn communicate(
    address: Option<IpAddr>,
    longest: usize,
    commands: Receiver<Command>,
    tell: &Sender<Result<Started, MpiError>>,
    ready: &Receiver<(Arc<Shared>, Arc<Control>)>,
) {
    let begin = || {
        let mut transport = Transport::start(longest)?;
        let started = invite(&mut transport, address)?;
        Ok((transport, started))
    };
    match begin() {
        Ok((transport, started)) => {
            // Without a listener there is no world: `mpi_world` has returned an error.
            if tell.send(Ok(started)).is_ok()
                && let Ok((shared, control)) = ready.recv()
            {
                Engine::new(transport, shared, control, commands).run();
            }
        }
        Err(error) => drop(tell.send(Err(error))),
    }
}

/// Lets every rank know where rank 0 listens.
fn invite(transport: &mut Transport, address: Option<IpAddr>) -> Result<Started, MpiError> {
    let (rank, ranks) = (transport.rank(), transport.ranks());
    let opened = (rank == 0).then(|| Invitation::open(address)).transpose();
    let opened = opened.map_err(|source| MpiError::Control { rank, source })?;
    let mut bytes = opened.as_ref().map_or([0; INVITATION_BYTES], |(_, invitation)| invitation.encode());
    transport.broadcast_bytes(&mut bytes)?;
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "rank 0 runs another version");
    let invitation = Invitation::decode(&bytes).ok_or_else(unreadable);
    let invitation = invitation.map_err(|source| MpiError::Control { rank, source })?;
    Ok(Started { rank, ranks, listener: opened.map(|(listener, _)| listener), invitation })
}

/// Lets SIGTERM end the process only after `grace`.
fn hold_back_sigterm(grace: Duration) -> Result<(), MpiError> {
    let failed = |error: io::Error| MpiError::Thread(format!("SIGTERM cannot be held back: {error}"));
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM]).map_err(failed)?;
    let body = move || {
        for signal in signals.forever() {
            thread::sleep(grace);
            // Ends the process as if the signal had not been held back; it cannot fail for a signal that is registered.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    };
    thread::Builder::new().name("sigterm".into()).spawn(body).map(drop).map_err(failed)
}

impl MpiWorld {
    /// The group of all ranks.
    pub fn communicator(&self) -> Arc<dyn Communicator> {
        self.world.clone()
    }

    /// Runs this rank and closes the world. An error or a panic of `body` aborts the job on every rank.
    ///
    /// # Errors
    /// What `body` returned or its panic; or, when it succeeded, the failure that kept the world from its orderly end.
    pub fn run<T, E>(self, body: impl FnOnce(Arc<dyn Communicator>) -> Result<T, E>) -> Result<T, RunError<E>>
    where
        E: fmt::Debug + fmt::Display + From<CommError>,
    {
        let rank = self.world.rank();
        match catch_unwind(AssertUnwindSafe(|| body(self.communicator()))) {
            Ok(Ok(value)) => match self.close() {
                Ok(()) => Ok(value),
                Err(error) => Err(RunError::Failed { rank, error: error.into() }),
            },
            Ok(Err(error)) => {
                self.world.abort(&error.to_string());
                Err(RunError::Failed { rank, error })
            }
            Err(panic) => {
                let message = panic_message(&*panic);
                self.world.abort(&format!("it panicked: {message}"));
                Err(RunError::Panicked { rank, message })
            }
        }
    }

    /// Leaves the world, and returns when every rank has left and MPI is ended. Calls that the rank makes afterwards fail.
    ///
    /// # Errors
    /// The failure of the world. The process may end at once then; MPI is not ended.
    pub fn close(mut self) -> Result<(), CommError> {
        self.part()
    }

    fn part(&mut self) -> Result<(), CommError> {
        let Some(engine) = self.engine.take() else { return Ok(()) };
        if thread::panicking() {
            self.world.abort("it panicked");
        }
        self.shared.leave();
        let ended = self.shared.wait_for_end();
        if ended.is_ok() {
            // It has nothing left to do. After a failure it may hang in MPI: the process ends without it.
            let _ = engine.join();
        }
        self.control.hang_up();
        ended
    }
}

impl Drop for MpiWorld {
    fn drop(&mut self) {
        if let Err(error) = self.part() {
            tracing::debug!(%error, "the MPI world ended by a failure");
        }
    }
}
