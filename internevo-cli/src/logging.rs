//! Library events (`tracing`) on the terminal and in each rank's `logs/rank-N.jsonl`.
//!
//! `RUST_LOG` chooses what the terminal shows (`warn` without it; `internevo_data=debug,info` is a valid value). The files
//! take everything from `info` on.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use internevo_core::storage::{self, StorageError};
use serde_json::{Map, Value, json};
use tracing::{
    Dispatch, Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::{Context, SubscriberExt as _},
    registry::Registry,
};

use crate::terminal::Console;

/// Sends the events of every thread without an own log to the terminal. Later calls in one process change nothing.
pub fn install(console: &Console) {
    let subscriber = Registry::default().with(terminal_layer(console));
    // An embedding program may have its own subscriber; that one then gets the events.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// A dispatcher for one rank's thread: the terminal, and a JSON line per event in `logs/rank-N.jsonl`.
///
/// # Errors
/// When the log file cannot be opened.
pub fn rank_dispatch(console: &Console, run_dir: &Path, rank: usize) -> Result<Dispatch, StorageError> {
    let path = rank_log(run_dir, rank);
    storage::create_dir_all(path.parent().expect("a log lies in a folder"))?;
    let file = File::options().create(true).append(true).open(&path).map_err(StorageError::at("open", &path))?;
    let lines = JsonLines { file: Mutex::new(file), rank }.with_filter(LevelFilter::INFO);
    Ok(Dispatch::new(Registry::default().with(lines).with(terminal_layer(console))))
}

/// `logs/rank-N.jsonl`.
pub fn rank_log(run_dir: &Path, rank: usize) -> PathBuf {
    run_dir.join("logs").join(format!("rank-{rank}.jsonl"))
}

fn terminal_layer<S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>>(
    console: &Console,
) -> impl Layer<S> {
    let wanted = std::env::var("RUST_LOG").ok().and_then(|v| v.parse::<Targets>().ok());
    OnTerminal { console: console.clone() }
        .with_filter(wanted.unwrap_or_else(|| Targets::new().with_default(Level::WARN)))
}

struct OnTerminal {
    console: Console,
}

impl<S: Subscriber> Layer<S> for OnTerminal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut text = fields.message;
        for (key, value) in &fields.others {
            match value {
                Value::String(s) => text.push_str(&format!(" {key}={s}")),
                other => text.push_str(&format!(" {key}={other}")),
            }
        }
        match *event.metadata().level() {
            Level::ERROR => self.console.error(&text),
            Level::WARN => self.console.warn(&text),
            _ => self.console.note(&text),
        }
    }
}

struct JsonLines {
    file: Mutex<File>,
    rank: usize,
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Map::new();
        line.insert("time".into(), json!(jiff::Timestamp::now().to_string()));
        line.insert("rank".into(), json!(self.rank));
        line.insert("level".into(), json!(event.metadata().level().as_str()));
        line.insert("target".into(), json!(event.metadata().target()));
        line.insert("message".into(), json!(fields.message));
        line.extend(fields.others);
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        if let Ok(mut file) = self.file.lock() {
            // A full disk shows up where something that matters is written.
            let _ = file.write_all(text.as_bytes());
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else {
            self.others.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, json!(value));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::ConsoleOptions;

    #[test]
    fn a_ranks_events_become_json_lines_in_its_own_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let console = Console::new(ConsoleOptions { quiet: true, no_color: true });
        let dispatch = rank_dispatch(&console, dir.path(), 3).expect("log file");
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!(step = 7u64, path = "a \"quoted\" name", "checkpoint saved");
            tracing::debug!("not recorded");
        });
        let text = std::fs::read_to_string(rank_log(dir.path(), 3)).expect("log");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(text.trim()).expect("JSON");
        assert_eq!(line["step"], 7);
        assert_eq!(line["rank"], 3);
        assert_eq!(line["message"], "checkpoint saved");
        assert_eq!(line["path"], "a \"quoted\" name");
    }
}
