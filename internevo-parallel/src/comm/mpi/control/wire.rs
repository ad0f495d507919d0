//! The language of the control plane: one JSON object a line over TCP.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::comm::{Death, FailureCause, RankTrace};

/// Bytes of the longest line that is read: a failure with the flight of some ten thousand ranks.
const LONGEST_LINE: u64 = 16 << 20;
/// How long a line may take to go out. The lines are short: a peer whose buffers are full has not read for many seconds.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// What is said between rank 0 and another rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// The first word of a rank, which proves that it belongs to this job.
    Hello { cookie: String, rank: usize },
    /// Rank 0's answer.
    Welcome,
    /// A heartbeat with what the rank did last.
    Beat(RankTrace),
    /// Rank 0's heartbeat with what every rank did last.
    Table(Vec<RankTrace>),
    /// A rank has found a failure.
    Report(FailureCause),
    /// The failure that counts.
    Fail { cause: FailureCause, flight: Vec<RankTrace> },
    /// A rank makes no more calls; so many letters has it sent to each rank.
    Left { rank: usize, sent: Vec<u64> },
    /// A rank has ended MPI.
    Finished { rank: usize },
}

/// The writing half of a connection.
pub(super) struct Link(Mutex<TcpStream>);

/// The reading half of a connection.
pub(super) struct Hearing(BufReader<TcpStream>);

/// Both halves of a connection whose peer is given up after `silence`.
pub(super) fn halves(stream: TcpStream, silence: Duration) -> io::Result<(Link, Hearing)> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(silence))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok((Link(Mutex::new(stream.try_clone()?)), Hearing(BufReader::new(stream))))
}

impl Link {
    /// Says a word. A peer that cannot hear it is noticed by who listens to it.
    pub(super) fn say(&self, word: &Word) {
        let mut line = serde_json::to_vec(word).expect("words are plain data");
        line.push(b'\n');
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.write_all(&line);
    }

    /// Says no more, and lets the peer's reader end.
    pub(super) fn hang_up(&self) {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.shutdown(Shutdown::Both);
    }
}

impl Hearing {
    /// The next word, or the sign that none will come.
    pub(super) fn next(&mut self) -> Result<Word, Death> {
        let mut line = Vec::new();
        match self.0.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => serde_json::from_slice(&line).map_err(|_| Death::Disconnected),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(Death::Silent(self.patience()))
            }
            _ => Err(Death::Disconnected),
        }
    }

    /// Changes how long the peer may be silent.
    pub(super) fn be_patient(&self, silence: Duration) -> io::Result<()> {
        self.0.get_ref().set_read_timeout(Some(silence))
    }

    fn patience(&self) -> Duration {
        self.0.get_ref().read_timeout().ok().flatten().unwrap_or_default()
    }
}
