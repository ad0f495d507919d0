//! How long a call takes on a device.

use std::time::Instant;

use anyhow::Context as _;
use cubecl::future::block_on;
use internevo_kernels::cube::Client;

/// Windows that are timed; the median counts.
const WINDOWS: usize = 7;
/// Seconds of a window: long against the wait at its end.
const WINDOW: f64 = 0.02;

/// Seconds per call.
pub struct Time {
    /// Of the median window.
    pub median: f64,
    /// Of the fastest and of the slowest window, over the median's.
    pub spread: [f64; 2],
}

/// Times `run` with everything it launches. A window holds as many calls as take [`WINDOW`], and ends when the device has
/// finished them; launching overlaps with running.
///
/// # Errors
/// What a launch reports.
pub fn time(client: &Client, run: &dyn Fn(&Client)) -> anyhow::Result<Time> {
    let window = |calls: usize| -> anyhow::Result<f64> {
        let start = Instant::now();
        for _ in 0..calls {
            run(client);
        }
        block_on(client.sync()).context("the device reports")?;
        Ok(start.elapsed().as_secs_f64())
    };
    // The first call compiles.
    window(2)?;
    let calls = (WINDOW / (window(3)? / 3.0)).ceil().clamp(1.0, 2000.0) as usize;
    let mut seconds = (0..WINDOWS).map(|_| Ok(window(calls)? / calls as f64)).collect::<anyhow::Result<Vec<_>>>()?;
    seconds.sort_by(f64::total_cmp);
    let median = seconds[WINDOWS / 2];
    Ok(Time { median, spread: [seconds[0] / median, seconds[WINDOWS - 1] / median] })
}
