//! What can go wrong between ranks, and the flight record that says what each rank was doing.

use std::{fmt, sync::Arc};

/// A failed communication. Cheap to clone: one failure is reported on every rank.
#[derive(Clone, thiserror::Error)]
#[error("{}", self.describe())]
pub struct CommError(Arc<Failure>);

struct Failure {
    cause: FailureCause,
    flight: Vec<RankTrace>,
}

impl CommError {
    /// A failure with what the ranks did before it; for backends.
    pub fn new(cause: FailureCause, flight: Vec<RankTrace>) -> Self {
        Self(Arc::new(Failure { cause, flight }))
    }

    /// What happened.
    pub fn cause(&self) -> &FailureCause {
        &self.0.cause
    }

    /// The last collectives of each rank, in rank order, as far as this rank knows them.
    pub fn flight(&self) -> &[RankTrace] {
        &self.0.flight
    }

    fn describe(&self) -> String {
        let mut text = self.0.cause.to_string();
        for trace in &self.0.flight {
            let last = trace.calls.last().map_or("none yet", String::as_str);
            text.push_str(&format!("\n  rank {}: last call: {last}", trace.rank));
        }
        text
    }
}

impl fmt::Debug for CommError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommError").field("cause", &self.0.cause).field("flight", &self.0.flight).finish()
    }
}

/// One rank's line of the flight recorder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankTrace {
    /// Rank in the world.
    pub rank: usize,
    /// Its last calls, oldest first: `all_reduce(sum, f32 x 1024) #17 of ranks [0, 1]`.
    pub calls: Vec<String>,
}

/// Why communication failed. Ranks are ranks of the world.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailureCause {
    /// Ranks of one group made different calls.
    #[error("mismatched collectives at call #{sequence} of ranks {members:?}: {}", list(calls))]
    Mismatch {
        /// Number of the call within its group, from 0.
        sequence: u64,
        /// The group.
        members: Vec<usize>,
        /// What each rank that arrived had called.
        calls: Vec<(usize, String)>,
    },
    /// A message was not what its receiver expected.
    #[error("rank {to} expected {expected} from rank {from} under tag {tag}, but it sent {found}")]
    Message {
        /// Sender.
        from: usize,
        /// Receiver.
        to: usize,
        /// Tag of the message.
        tag: u32,
        /// Kind and length that were expected.
        expected: String,
        /// Kind and length that came.
        found: String,
    },
    /// A rank called `abort`.
    #[error("rank {rank} aborted: {why}")]
    Aborted {
        /// The rank.
        rank: usize,
        /// Its reason.
        why: String,
    },
    /// A rank panicked.
    #[error("rank {rank} panicked while rank {waiting} waited for it in {call}")]
    Panicked {
        /// The rank.
        rank: usize,
        /// Who noticed.
        waiting: usize,
        /// What the noticing rank waited in.
        call: String,
    },
    /// A rank gave up its communicators without making the call that others wait in.
    #[error("rank {rank} left without joining {call}, in which rank {waiting} waits")]
    Left {
        /// The rank.
        rank: usize,
        /// Who noticed.
        waiting: usize,
        /// What the noticing rank waited in.
        call: String,
    },
    /// Ranks did not arrive within the time limit.
    #[error("rank {waiting} waited {waited:?} in {call}; missing: ranks {missing:?}")]
    Timeout {
        /// Who gave up.
        waiting: usize,
        /// What it waited in.
        call: String,
        /// The ranks that had not arrived.
        missing: Vec<usize>,
        /// How long it waited.
        waited: std::time::Duration,
    },
    /// The machinery between the ranks failed.
    #[error("rank {rank}: {what}; it was {}", waiting_in(waiting.as_deref()))]
    Transport {
        /// The rank on which it failed.
        rank: usize,
        /// What failed and how.
        what: String,
        /// What that rank was waiting in.
        waiting: Option<String>,
    },
    /// This rank's own call makes no sense.
    #[error("rank {rank}: {call}: {reason}")]
    Invalid {
        /// The caller.
        rank: usize,
        /// The call.
        call: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn waiting_in(call: Option<&str>) -> String {
    call.map_or_else(|| "not waiting for anyone".to_owned(), |call| format!("waiting in {call}"))
}

fn list(calls: &[(usize, String)]) -> String {
    calls.iter().map(|(rank, call)| format!("rank {rank} called {call}")).collect::<Vec<_>>().join("; ")
}
