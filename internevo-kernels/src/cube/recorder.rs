//! A graphics card on paper: a [`Client`] that needs no device, no driver and no memory. The launch functions of this crate run
//! on it unchanged, at any shape, and what they would have launched is recorded as CUDA C++.
//!
//! Nothing is computed: reading a buffer of a paper card is an error.

mod card;
mod meter;
mod server;

pub use card::Card;

use super::Client;
use cubecl::device::DeviceId;
use cubecl::server::LaunchError;
use meter::Meter;
use server::{Log, PaperServer};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Kind of device that no runtime of cubecl uses: all bits of the runtime's number set.
const PAPER: u16 = 0xE0;

/// A card that records what it is asked to launch.
pub struct PaperGpu {
    card: Card,
    client: Client,
    meter: Arc<Meter>,
    log: Arc<Mutex<Log>>,
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel's module in its crate and its function: `rms_norm::forward_kernel`.
    pub kernel: String,
    /// Units of a cube along each axis.
    pub cube_dim: [u32; 3],
    /// Cubes along each axis; `None` where a buffer says it.
    pub cubes: Option<[u32; 3]>,
    /// Bytes of each buffer given to the kernel, in the order of its arguments.
    pub buffers: Vec<u64>,
    /// The kernel as the CUDA runtime would hand it to NVRTC, or why it would refuse the launch.
    pub code: Result<Arc<Code>, LaunchError>,
}

/// A kernel in CUDA C++. Two launches with equal code run the same machine code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    /// The translation unit.
    pub source: String,
    /// Its one `__global__` function.
    pub entry: String,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: usize,
}

impl PaperGpu {
    /// A card of its own: nothing is shared with other cards on paper.
    pub fn new(card: Card) -> Self {
        static CARDS: AtomicU16 = AtomicU16::new(0);
        let device = DeviceId::new(PAPER, CARDS.fetch_add(1, Ordering::Relaxed));
        let (meter, log) = (Arc::new(Meter::default()), Arc::default());
        let client = Client::init(device, PaperServer::new(device, card, &meter, Arc::clone(&log)));
        meter.attach(client.clone());
        Self { card, client, meter, log }
    }

    /// Which card it is.
    pub fn card(&self) -> Card {
        self.card
    }

    /// What launch functions take. [`super::Machine::of`] it is the machine that CUDA would report for the card.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The launches since the last call, in order.
    pub fn launches(&self) -> Vec<Launch> {
        self.drain();
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut log.launches)
    }

    /// Bytes of the buffers alive now.
    pub fn live_bytes(&self) -> u64 {
        self.meter.live()
    }

    /// Most bytes alive at once since the card was made or since [`PaperGpu::forget_peak`].
    pub fn peak_bytes(&self) -> u64 {
        self.meter.peak()
    }

    /// Starts the peak again at what is alive now.
    pub fn forget_peak(&self) {
        self.meter.forget_peak();
    }

    /// Waits until the card has seen everything asked of it.
    fn drain(&self) {
        self.client.flush().expect("a card on paper has no faults");
    }
}

impl std::fmt::Debug for PaperGpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PaperGpu").field("card", &self.card).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
