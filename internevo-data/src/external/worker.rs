//! One process of an external filter. One thread writes to it and one reads from it, so that neither side's full pipe stops the other,
//! and whoever waits can give up.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
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

/// How a process is talked with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talk {
    /// Most documents without an answer.
    pub window: usize,
    /// Longest time between two answers.
    pub timeout: Duration,
}

/// A running process.
pub(super) struct Worker {
    child: Child,
    talk: Talk,
    /// Lines to judge; `None` once there are no more.
    questions: Option<Sender<Vec<u8>>>,
    /// What the process says, line by line; as many lines as may be without a reader.
    answers: Receiver<io::Result<Vec<u8>>>,
    complaints: Complaints,
}

/// The last that a process wrote to its standard error. Not waited for without end: a process may leave others behind.
struct Complaints {
    words: Arc<Mutex<Vec<u8>>>,
    listener: JoinHandle<()>,
}

impl Worker {
    pub fn start(command: &[String], talk: Talk) -> Result<Self, String> {
        let (program, arguments) = command.split_first().ok_or("the command is empty")?;
        let piped = || Stdio::piped();
        let child = Command::new(program).args(arguments).stdin(piped()).stdout(piped()).stderr(piped()).spawn();
        let mut child = child.map_err(|error| format!("`{}` cannot be started: {error}", command.join(" ")))?;
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let stderr = child.stderr.take().expect("piped");
        let (questions, to_ask) = channel();
        let (answer, answers) = sync_channel(talk.window);
        thread::spawn(move || write(stdin, &to_ask));
        thread::spawn(move || read(stdout, &answer));
        Ok(Self { child, talk, questions: Some(questions), answers, complaints: Complaints::listen(stderr) })
    }

    /// Asks about documents, some of them ahead. The error names the first document without an answer; after it the process is of no
    /// more use.
    pub fn judge_all<'d>(&mut self, documents: &[&'d Document]) -> Result<Vec<Verdict>, (&'d str, String)> {
        let mut verdicts = Vec::with_capacity(documents.len());
        let mut ahead = documents.iter();
        ahead.by_ref().take(self.talk.window).for_each(|document| self.ask(document));
        for document in documents {
            verdicts.push(self.answer(&document.id).map_err(|reason| (document.id.as_str(), reason))?);
            ahead.next().into_iter().for_each(|document| self.ask(document));
        }
        Ok(verdicts)
    }

    fn ask(&self, document: &Document) {
        let mut line = Vec::with_capacity(document.text.len() + 256);
        document.write_line(&mut line);
        // Nobody takes the question when the process has ended; then there is no answer either, and that is told.
        let _ = self.questions.as_ref().map(|questions| questions.send(line));
    }

    fn answer(&mut self, id: &str) -> Result<Verdict, String> {
        match self.answers.recv_timeout(self.talk.timeout) {
            Ok(Ok(answer)) if !answer.is_empty() => verdict(&answer, id),
            Ok(Err(error)) => Err(self.ended(&format!("cannot be talked to ({error})"))),
            Ok(Ok(_)) | Err(RecvTimeoutError::Disconnected) => Err(self.ended("ended without an answer")),
            Err(RecvTimeoutError::Timeout) => Err(self.too_slow()),
        }
    }

    fn too_slow(&mut self) -> String {
        let _ = self.child.kill();
        let seconds = self.talk.timeout.as_secs_f64();
        self.ended(&format!("no answer within {seconds} s (does it flush each one?)"))
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

/// Writes until there is no more to ask or the process ends: then it has said why on standard error, not here.
fn write(mut stdin: ChildStdin, to_ask: &Receiver<Vec<u8>>) {
    for question in to_ask {
        if stdin.write_all(&question).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

/// Reads lines until the process ends or nobody wants them. The last one is empty or cut.
fn read(stdout: ChildStdout, answers: &SyncSender<io::Result<Vec<u8>>>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut answer = Vec::new();
        let read = (&mut stdout).take(MAX_ANSWER).read_until(b'\n', &mut answer).map(|_| answer);
        let over = !matches!(&read, Ok(answer) if answer.ends_with(b"\n"));
        if answers.send(read).is_err() || over {
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
