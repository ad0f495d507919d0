//! Ctrl-C and SIGTERM: the first asks the training loop to save and stop, the second ends the process at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{error::EXIT_FAILURE, terminal::Console};

/// Whether someone asked this process to stop. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    /// A loop polls [`Interrupt::requested`]; without one, the first signal ends the process.
    polled: Arc<AtomicBool>,
    requested: Arc<AtomicBool>,
}

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on, except those that this process was started to ignore (`nohup`). Outside
    /// [`Interrupt::polling`] a signal ends the process with code 1 after printing `hint`, which says how to continue.
    pub fn install(console: &Console, hint: &str) -> Self {
        let interrupt = Self::default();
        let (handler, console, hint) = (interrupt.clone(), console.clone(), hint.to_owned());
        let installed = listen(move || {
            if handler.polled.load(Ordering::SeqCst) && !handler.requested.swap(true, Ordering::SeqCst) {
                console.warn("stopping as soon as everything is saved; interrupt again to stop at once");
                return;
            }
            console.error(&format!("interrupted; {hint}"));
            std::process::exit(i32::from(EXIT_FAILURE));
        });
        if let Err(reason) = installed {
            tracing::warn!("signals keep their default effect: {reason}");
        }
        interrupt
    }

    /// While the guard lives, the first signal only sets [`Interrupt::requested`].
    pub fn polling(&self) -> PollGuard<'_> {
        self.polled.store(true, Ordering::SeqCst);
        PollGuard(self)
    }

    /// A signal has arrived while polling.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }
}

/// See [`Interrupt::polling`].
pub struct PollGuard<'a>(&'a Interrupt);

impl Drop for PollGuard<'_> {
    fn drop(&mut self) {
        self.0.polled.store(false, Ordering::SeqCst);
    }
}

/// Calls `handler` on a thread of its own for every signal.
#[cfg(unix)]
fn listen(handler: impl Fn() + Send + 'static) -> std::io::Result<()> {
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in &mut signals {
            handler();
        }
    })?;
    Ok(())
}

#[cfg(not(unix))]
fn listen(handler: impl FnMut() + Send + 'static) -> Result<(), ctrlc::Error> {
    ctrlc::try_set_handler(handler)
}

/// Whether the process was started with `signal` ignored, as `nohup` does with SIGHUP and a shell with SIGINT of its background
/// jobs. Where there is no `/proc`, only SIGHUP is taken to be.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.map_or(signal == SIGHUP, |mask| mask >> (signal - 1) & 1 == 1)
}
