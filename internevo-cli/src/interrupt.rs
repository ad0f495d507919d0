//! Ctrl-C and SIGTERM: the first asks the training loop to save and stop, the second ends the process at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{error::EXIT_FAILURE, terminal::Console};

/// Whether someone asked this process to stop. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    /// A loop polls [`Interrupt::requested`]; without one, the first signal ends the process.
    polled: Arc<AtomicBool>,
    requested: Arc<AtomicBool>,
}

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on. Outside [`Interrupt::polling`] a signal ends the process with code 1
    /// after printing `hint`, which says how to continue.
    pub fn install(console: &Console, hint: &str) -> Self {
        let interrupt = Self::default();
        let (handler, console, hint) = (interrupt.clone(), console.clone(), hint.to_owned());
        let installed = ctrlc::try_set_handler(move || {
            if handler.polled.load(Ordering::SeqCst) && !handler.requested.swap(true, Ordering::SeqCst) {
                console.warn("stopping after this step; interrupt again to stop at once");
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
