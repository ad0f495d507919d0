//! The bench on a GPU: every kernel against f64 at real shapes, then its time. `benches/gpu.sh` carries this program to a
//! machine with an NVIDIA card, runs PyTorch's kernels beside it and joins both into one table.
//!
//! ```text
//! cargo run --release -p gpu-benches --features cuda --bin gpu -- --out DIR [--seconds 240] [--only TEXT]
//! cargo run -p gpu-benches --features wgpu --bin gpu -- --out DIR --tiny        # on Mesa's software Vulkan
//! ```

mod checks;
mod roof;
mod timing;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use cubecl::Device;
use cubecl::features::TypeUsage;
use gpu_benches::calls::{self, Inputs, type_name};
use internevo_kernels::cube::{Client, ElemType};
use serde::Serialize;

use checks::Check;

/// What was asked for.
struct Options {
    out: PathBuf,
    seconds: f64,
    tiny: bool,
    only: String,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self { out: ".".into(), seconds: f64::INFINITY, tiny: false, only: String::new() };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--out" => options.out = value()?.into(),
                "--seconds" => options.seconds = value()?.parse()?,
                "--only" => options.only = value()?,
                "--tiny" => options.tiny = true,
                other => bail!("unknown argument {other}"),
            }
        }
        Ok(options)
    }
}

/// What `ours.json` holds.
#[derive(Default, Serialize)]
struct Results {
    device: String,
    seed: u64,
    /// Bytes per second that a copy reads and writes.
    copy_bytes_per_second: f64,
    checks: Vec<Checked>,
    times: Vec<Timed>,
    /// Calls for which there was no time.
    skipped: Vec<String>,
}

#[derive(Serialize)]
struct Checked {
    name: String,
    elem: &'static str,
    shape: String,
    /// `‖out − ref‖ / ‖ref‖`; absent if the kernel could not be run.
    error: Option<f64>,
    tolerance: f64,
    passed: bool,
    message: String,
}

#[derive(Serialize)]
struct Timed {
    name: String,
    elem: &'static str,
    shape: String,
    seconds: f64,
    /// Fastest and slowest window over the median.
    spread: [f64; 2],
    bytes: f64,
    flops: f64,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gpu: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every check passed.
fn run() -> anyhow::Result<bool> {
    let options = Options::parse(std::env::args().skip(1))?;
    let client = device()?;
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
    let mut results = Results { device: client.properties().identity.name.clone(), seed, ..Results::default() };
    println!("{} through {}, seed {seed}", results.device, client.name());
    let start = Instant::now();
    let in_time = || start.elapsed().as_secs_f64() < options.seconds;
    for check in checks::complete(options.tiny) {
        let able = has_type(&client, check.elem) && (check.served)(&client);
        if !check.name.contains(&options.only) || !able {
            continue;
        }
        if in_time() {
            results.checks.push(checked(&client, &check, seed));
        } else {
            results.skipped.push(format!("check of {} {}", check.name, check.shape));
        }
    }
    if !options.tiny {
        results.copy_bytes_per_second = roof::copy(&client)?;
        println!("copy: {:.0} GB/s", results.copy_bytes_per_second / 1e9);
        time_all(&client, &options, &in_time, &mut results);
    }
    std::fs::create_dir_all(&options.out)?;
    std::fs::write(options.out.join("ours.json"), serde_json::to_vec_pretty(&results)?)?;
    let failed = results.checks.iter().filter(|check| !check.passed).count();
    let seconds = start.elapsed().as_secs_f64();
    println!("{} checks, {failed} failed; {} times; {seconds:.0} s", results.checks.len(), results.times.len());
    Ok(failed == 0)
}

/// The device of the runtime that this build was given; CUDA's before Vulkan's.
fn device() -> anyhow::Result<Client> {
    let device = if cfg!(feature = "cuda") { Device::cuda(0) } else { Device::wgpu(Default::default()) };
    Ok(device.context("this bench needs a GPU and its driver")?.client())
}

fn has_type(client: &Client, elem: ElemType) -> bool {
    client.properties().type_usage(elem).is_superset(TypeUsage::Buffer | TypeUsage::Conversion)
}

fn checked(client: &Client, check: &Check, seed: u64) -> Checked {
    let tolerance = checks::tolerance(check.elem);
    let outcome = (check.run)(client, seed);
    let error = outcome.as_ref().ok().copied();
    let passed = error.is_some_and(|error| error <= tolerance);
    let message = outcome.err().map(|error| format!("{error:#}")).unwrap_or_default();
    let (name, elem, shape) = (check.name.clone(), type_name(check.elem), check.shape.clone());
    let mark = if passed { "ok  " } else { "FAIL" };
    println!("{mark} {name} {elem} {shape}: error {:.1e} {message}", error.unwrap_or(f64::NAN));
    Checked { name, elem, shape, error, tolerance, passed, message }
}

/// Compute capability of a CUDA device (90), by the name that cubecl gives its compiled kernels.
fn capability(client: &Client) -> Option<u32> {
    client.properties().identity.fingerprint.strip_prefix("ptx_sm")?.parse().ok()
}

fn time_all(client: &Client, options: &Options, in_time: &dyn Fn() -> bool, results: &mut Results) {
    let fits = |capabilities: &[u32]| capability(client).is_none_or(|version| capabilities.contains(&version));
    for call in calls::complete().0 {
        let Some(cost) = call.cost else { continue };
        let elem = type_name(call.elem);
        if !call.name.contains(&options.only) || !has_type(client, call.elem) || !fits(&call.capabilities) {
            continue;
        }
        if !in_time() {
            results.skipped.push(format!("time of {} {elem} {}", call.name, call.shape));
            continue;
        }
        let run = (call.prepare)(&Inputs::filled(client));
        match timing::time(client, &*run) {
            Ok(time) => {
                println!("{} {elem} {}: {:.1} µs", call.name, call.shape, time.median * 1e6);
                let (name, shape) = (call.name, call.shape);
                let (seconds, spread) = (time.median, time.spread);
                results.times.push(Timed { name, elem, shape, seconds, spread, bytes: cost.bytes, flops: cost.flops });
            }
            Err(error) => results.skipped.push(format!("time of {} {elem} {}: {error:#}", call.name, call.shape)),
        }
    }
}
