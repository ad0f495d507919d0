//! One process of an external filter. A thread of its own talks with it, so that whoever waits can give up.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{Document, Verdict};

/// Time that a process has to end when there is nothing more to judge.
const FAREWELL: Duration = Duration::from_secs(2);
/// Time in which the last words of a process that ended arrive.
const LISTENING: Duration = Duration::from_millis(500);
/// Pause between two looks at a process.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes of an answer or of standard error that a message shows.
const SHOWN_BYTES: usize = 400;
/// Longest answer.
const MAX_ANSWER: u64 = 1 << 20;

/// What the process answers.
#[derive(Deserialize)]
struct Answer {
    id: String,
    keep: bool,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    value: f64,
}

/// A running process.
pub(super) struct Worker {
    child: Child,
    /// Lines to judge; `None` once there are no more.
    questions: Option<Sender<Vec<u8>>>,
    answers: Receiver<io::Result<Vec<u8>>>,
    complaints: Complaints,
}

/// The last that a process wrote to its standard error. Not waited for without end: a process may leave others behind.
struct Complaints {
    words: Arc<Mutex<Vec<u8>>>,
    listener: JoinHandle<()>,
}

impl Worker {
    pub fn start(command: &[String]) -> Result<Self, String> {
        let (program, arguments) = command.split_first().ok_or("the command is empty")?;
        let piped = || Stdio::piped();
        let child = Command::new(program).args(arguments).stdin(piped()).stdout(piped()).stderr(piped()).spawn();
        let mut child = child.map_err(|error| format!("`{}` cannot be started: {error}", command.join(" ")))?;
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let stderr = child.stderr.take().expect("piped");
        let (questions, to_ask) = channel();
        let (answer, answers) = channel();
        thread::spawn(move || talk(stdin, stdout, &to_ask, &answer));
        Ok(Self { child, questions: Some(questions), answers, complaints: Complaints::listen(stderr) })
    }

    /// Asks about one document. After an error the process is of no more use.
    pub fn judge(&mut self, document: &Document, timeout: Duration) -> Result<Verdict, String> {
        let mut line = Vec::with_capacity(document.text.len() + 256);
        document.write_line(&mut line);
        let asked = self.questions.as_ref().is_some_and(|questions| questions.send(line).is_ok());
        let answer = match self.answers.recv_timeout(timeout) {
            Ok(answer) if asked => answer.map_err(|error| error.to_string()),
            Err(RecvTimeoutError::Timeout) if asked => return Err(self.too_slow(timeout)),
            _ => Ok(Vec::new()),
        };
        match answer {
            Ok(answer) if !answer.is_empty() => verdict(&answer, &document.id),
            Ok(_) => Err(self.ended("ended without an answer")),
            Err(error) => Err(self.ended(&format!("cannot be talked to ({error})"))),
        }
    }

    fn too_slow(&mut self, timeout: Duration) -> String {
        let _ = self.child.kill();
        self.ended(&format!("no answer within {} s", timeout.as_secs_f64()))
    }

    /// `what` happened, with how the process ended and its last words.
    fn ended(&mut self, what: &str) -> String {
        let status = self.end().map_or_else(String::new, |status| format!(" ({status})"));
        match self.complaints.last_words().trim() {
            "" => format!("{what}{status}"),
            words => format!("{what}{status}; it said: {words}"),
        }
    }

    /// Closes the process's input and waits until it ends; a process that does not is killed.
    fn end(&mut self) -> Option<ExitStatus> {
        self.questions = None;
        let start = Instant::now();
        while start.elapsed() < FAREWELL {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(PAUSE),
                ended => return ended.ok().flatten(),
            }
        }
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

fn verdict(answer: &[u8], id: &str) -> Result<Verdict, String> {
    let shown = || String::from_utf8_lossy(&answer[..answer.len().min(SHOWN_BYTES)]).trim_end().to_owned();
    let parsed: Answer = serde_json::from_slice(answer)
        .map_err(|error| format!("`{}` is no verdict, such as {{\"id\": …, \"keep\": true}}: {error}", shown()))?;
    if parsed.id != id {
        return Err(format!("`{}` is a verdict on document `{}`", shown(), parsed.id));
    }
    if parsed.keep {
        return Ok(Verdict::Keep);
    }
    if parsed.reason.is_empty() {
        return Err(format!("`{}` drops the document without a reason", shown()));
    }
    Ok(Verdict::drop(parsed.reason, parsed.value))
}

/// Asks and listens until there is no more to ask or the process ends.
fn talk(mut stdin: ChildStdin, stdout: ChildStdout, to_ask: &Receiver<Vec<u8>>, answers: &Sender<io::Result<Vec<u8>>>) {
    let mut stdout = BufReader::new(stdout);
    for question in to_ask {
        // A process that ends before it has read everything has said why on standard error, not here.
        let asked = stdin.write_all(&question).and_then(|()| stdin.flush());
        let mut answer = Vec::new();
        let answered = match asked {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(answer),
            Err(error) => Err(error),
            Ok(()) => (&mut stdout).take(MAX_ANSWER).read_until(b'\n', &mut answer).map(|_| answer),
        };
        let over = !matches!(&answered, Ok(answer) if answer.ends_with(b"\n"));
        if answers.send(answered).is_err() || over {
            return;
        }
    }
}

impl Complaints {
    /// Reads everything, so that the process never waits, and keeps the end.
    fn listen(mut stderr: impl Read + Send + 'static) -> Self {
        let words = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&words);
        let listener = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                let mut words = kept.lock().unwrap_or_else(PoisonError::into_inner);
                words.extend_from_slice(&buffer[..read]);
                let surplus = words.len().saturating_sub(SHOWN_BYTES);
                words.drain(..surplus);
            }
        });
        Self { words, listener }
    }

    fn last_words(&self) -> String {
        let start = Instant::now();
        while !self.listener.is_finished() && start.elapsed() < LISTENING {
            thread::sleep(PAUSE);
        }
        String::from_utf8_lossy(&self.words.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}
