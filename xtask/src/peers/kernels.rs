//! `cargo xtask peers kernels`: each operation of ours and of PyTorch in turns, as a rate and as a share of what this machine
//! was measured to copy and to multiply in the same run. What is measured is defined in `benches/src/operations.rs` and
//! `xtask/peers/kernels.py`.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::{Model, example};
use crate::command::workspace_root;

/// What to compare.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: Model,
    /// Turns; a side's figure is the median of the shortest times of its turns, the ratio the median of the turns' ratios
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only operations whose name contains this (the roofs `copy` and `gemm` always run)
    #[arg(long, default_value = "")]
    only: String,
    /// One JSON document on stdout instead of a table
    #[arg(long)]
    json: bool,
}

/// One line of the table.
struct Row {
    name: String,
    /// Per call: bytes or FLOPs, as `unit` says.
    work: f64,
    unit: Unit,
    /// Seconds per call, median of the turns' shortest.
    ours: f64,
    /// The same of PyTorch, and how many times faster ours is; absent where it has no such operation.
    peer: Option<(f64, f64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Flops,
}

impl Unit {
    /// Of 10^9 a second.
    fn rate(self) -> &'static str {
        match self {
            Unit::Bytes => "GB/s",
            Unit::Flops => "GFLOP/s",
        }
    }

    /// The operation that measures the machine's limit.
    fn roof(self) -> &'static str {
        match self {
            Unit::Bytes => "copy",
            Unit::Flops => "gemm",
        }
    }
}

impl Row {
    /// 10^9 a second.
    fn rate(&self) -> f64 {
        self.work / self.ours / 1e9
    }

    /// 10^9 a second of the faster side.
    fn best_rate(&self) -> f64 {
        self.rate().max(self.peer.map_or(0.0, |(seconds, _)| self.work / seconds / 1e9))
    }
}

pub fn run(python: &Path, args: &Args) -> anyhow::Result<()> {
    let mut ours = Worker::start(example("kernels").args(args.model.arguments()))?;
    let operations = ours.operations()?;
    let mut command = Command::new(python);
    command.arg(workspace_root().join("xtask/peers/kernels.py")).args(args.model.arguments());
    let mut peer = Worker::start(&mut command)?;
    let mut rows = Vec::new();
    for (name, unit, work) in operations {
        if name == unit.roof() || name.contains(&args.only) {
            let (mut seconds, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..args.rounds.max(1) {
                let own = ours.ask(&name)?.with_context(|| format!("no answer for `{name}`"))?;
                seconds.push(own);
                if let Some(other) = peer.ask(&name)? {
                    theirs.push(other);
                    ratios.push(other / own);
                }
            }
            let ours = median(seconds).expect("at least one round");
            let peer = median(theirs).zip(median(ratios));
            rows.push(Row { name, work, unit, ours, peer });
        }
    }
    print(&rows, args);
    Ok(())
}

fn print(rows: &[Row], args: &Args) {
    let roof = |unit: Unit| rows.iter().find(|row| row.name == unit.roof()).map_or(f64::NAN, Row::best_rate);
    if args.json {
        let lines: Vec<String> = rows.iter().map(|row| json(row, row.rate() / roof(row.unit))).collect();
        println!("{{\"model\":{},\"rows\":[{}]}}", args.model.json(), lines.join(","));
        return;
    }
    println!(
        "{:<28} {:>9} {:>9} {:>6} {:>9}         {:>5}",
        "operation", "ours ms", "torch ms", "ratio", "rate", "share"
    );
    for row in rows {
        let (theirs, ratio) = row.peer.map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |(seconds, ratio)| (format!("{:.3}", seconds * 1e3), format!("{ratio:.2}")),
        );
        println!(
            "{:<28} {:>9.3} {theirs:>9} {ratio:>6} {:>9.1} {:<7} {:>5.0}%",
            row.name,
            row.ours * 1e3,
            row.rate(),
            row.unit.rate(),
            100.0 * row.rate() / roof(row.unit)
        );
    }
}

/// Names are ours and need no escapes.
fn json(row: &Row, share: f64) -> String {
    let peer = row.peer.map_or_else(
        || "\"torch_seconds\":null,\"ratio\":null".to_owned(),
        |(seconds, ratio)| format!("\"torch_seconds\":{seconds},\"ratio\":{ratio}"),
    );
    format!(
        "{{\"name\":\"{}\",\"seconds\":{},{peer},\"rate\":{},\"unit\":\"{}\",\"share\":{share}}}",
        row.name,
        row.ours,
        row.rate(),
        row.unit.rate()
    )
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A program that measures what it is asked for, line by line. It ends with its input.
struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program:?}"))?;
        let output = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines();
        let input = child.stdin.take();
        Ok(Self { child, input, output })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        match self.output.next() {
            Some(line) => Ok(line?),
            None => bail!("the measuring program ended ({})", self.child.wait()?),
        }
    }

    /// Name, unit and work per call of each operation, which the program lists first.
    fn operations(&mut self) -> anyhow::Result<Vec<(String, Unit, f64)>> {
        let mut all = Vec::new();
        loop {
            let line = self.line()?;
            let fields: Vec<&str> = line.split(' ').collect();
            match fields[..] {
                [name, "bytes", work] => all.push((name.to_owned(), Unit::Bytes, work.parse()?)),
                [name, "flops", work] => all.push((name.to_owned(), Unit::Flops, work.parse()?)),
                [""] => return Ok(all),
                _ => bail!("expected `<operation> bytes|flops <work>`, found `{line}`"),
            }
        }
    }

    /// Shortest seconds of one call, or nothing if the program does not know the operation.
    fn ask(&mut self, name: &str) -> anyhow::Result<Option<f64>> {
        let input = self.input.as_mut().expect("open until the worker is dropped");
        writeln!(input, "{name}").and_then(|()| input.flush()).context("the measuring program ended")?;
        let answer = self.line()?;
        match answer.as_str() {
            "none" => Ok(None),
            seconds => Ok(Some(seconds.parse().with_context(|| format!("expected seconds, found `{seconds}`"))?)),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.input.take());
        // Nothing is lost if it is gone already.
        let _ = self.child.wait();
    }
}
