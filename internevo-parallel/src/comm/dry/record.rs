//! Counting what a rank communicates, over any backend.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use internevo_core::volume::{Verb, VolumeRow};

use crate::comm::{Buffer, CommError, Communicator, Counts, ElementKind, Pending, RankTrace, ReduceOp};

/// The counts of one rank, over all its groups. Cloning shares them.
#[derive(Clone, Default)]
pub struct VolumeRecorder(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    groups: Vec<GroupName>,
    tallies: BTreeMap<(usize, Verb), Tally>,
}

#[derive(PartialEq)]
struct GroupName {
    label: String,
    ranks: Vec<usize>,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    calls: u64,
    elements: u64,
    bytes: u64,
    /// Bytes to and from others where the call's arguments fix them.
    direct: Option<(u64, u64)>,
}

impl VolumeRecorder {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was counted since the start or the last reset: a row per group and verb, groups in the order in which they were
    /// made, without groups and verbs that were not used.
    pub fn report(&self) -> Vec<VolumeRow> {
        let book = self.book();
        let row = |(&(group, verb), tally): (&(usize, Verb), &Tally)| {
            let GroupName { label, ranks } = &book.groups[group];
            let ring = || verb.ring_bytes(ranks.len(), tally.bytes).map(|bytes| (bytes, bytes));
            let (sent, received) = tally.direct.or_else(ring).expect("messages are counted directly");
            let (calls, elements, bytes) = (tally.calls, tally.elements, tally.bytes);
            VolumeRow { group: label.clone(), ranks: ranks.clone(), verb, calls, elements, bytes, sent, received }
        };
        book.tallies.iter().map(row).collect()
    }

    /// Forgets the counts, not the groups; between steps.
    pub fn reset(&self) {
        self.book().tallies.clear();
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a group; the same one for the same name and ranks.
    fn group(&self, label: String, ranks: &[usize]) -> usize {
        let (mut book, name) = (self.book(), GroupName { label, ranks: ranks.to_vec() });
        let known = book.groups.iter().position(|group| *group == name);
        known.unwrap_or_else(|| {
            book.groups.push(name);
            book.groups.len() - 1
        })
    }

    fn count(&self, group: usize, verb: Verb, elements: usize, size: usize, direct: Option<(usize, usize)>) {
        let mut book = self.book();
        let tally = book.tallies.entry((group, verb)).or_default();
        tally.calls += 1;
        tally.elements += elements as u64;
        tally.bytes += (elements * size) as u64;
        if let Some((sent, received)) = direct {
            let (all_sent, all_received) = tally.direct.unwrap_or_default();
            tally.direct = Some((all_sent + (sent * size) as u64, all_received + (received * size) as u64));
        }
    }
}

/// `comm`, with every call that it accepts counted in `recorder`; so are the groups made from it. The given group is called
/// `world`; others are called as [`Communicator::subgroup_named`] says, or after their ranks.
pub fn record(comm: Arc<dyn Communicator>, recorder: &VolumeRecorder) -> Arc<dyn Communicator> {
    wrap(comm, recorder, "world".to_owned())
}

fn wrap(inner: Arc<dyn Communicator>, recorder: &VolumeRecorder, label: String) -> Arc<dyn Communicator> {
    let group = recorder.group(label, inner.world_ranks());
    Arc::new(Recorded { inner, recorder: recorder.clone(), group })
}

struct Recorded {
    inner: Arc<dyn Communicator>,
    recorder: VolumeRecorder,
    group: usize,
}

impl Recorded {
    /// Counts a call over a ring if it is accepted.
    fn ring(
        &self,
        verb: Verb,
        elements: usize,
        kind: ElementKind,
        call: Result<Pending, CommError>,
    ) -> Result<Pending, CommError> {
        call.inspect(|_| self.recorder.count(self.group, verb, elements, kind.size(), None))
    }

    fn wrapped(&self, group: Arc<dyn Communicator>) -> Arc<dyn Communicator> {
        let label = describe(group.world_ranks());
        wrap(group, &self.recorder, label)
    }
}

impl Communicator for Recorded {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn world_ranks(&self) -> &[usize] {
        self.inner.world_ranks()
    }

    fn split(&self, color: Option<u32>, key: i32) -> Result<Option<Arc<dyn Communicator>>, CommError> {
        Ok(self.inner.split(color, key)?.map(|group| self.wrapped(group)))
    }

    fn subgroup(&self, members: &[usize]) -> Result<Arc<dyn Communicator>, CommError> {
        Ok(self.wrapped(self.inner.subgroup(members)?))
    }

    fn subgroup_named(&self, name: &str, members: &[usize]) -> Result<Arc<dyn Communicator>, CommError> {
        Ok(wrap(self.inner.subgroup_named(name, members)?, &self.recorder, name.to_owned()))
    }

    fn all_reduce(&self, buffer: Buffer, op: ReduceOp) -> Result<Pending, CommError> {
        let (len, kind) = (buffer.len(), buffer.kind());
        self.ring(Verb::AllReduce, len, kind, self.inner.all_reduce(buffer, op))
    }

    fn reduce_scatter(&self, buffer: Buffer, op: ReduceOp) -> Result<Pending, CommError> {
        let (len, kind) = (buffer.len(), buffer.kind());
        self.ring(Verb::ReduceScatter, len, kind, self.inner.reduce_scatter(buffer, op))
    }

    fn all_gather(&self, buffer: Buffer) -> Result<Pending, CommError> {
        let (len, kind) = (buffer.len() * self.size(), buffer.kind());
        self.ring(Verb::AllGather, len, kind, self.inner.all_gather(buffer))
    }

    fn all_gather_in_place(&self, buffer: Buffer) -> Result<Pending, CommError> {
        let (len, kind) = (buffer.len(), buffer.kind());
        self.ring(Verb::AllGather, len, kind, self.inner.all_gather_in_place(buffer))
    }

    fn all_to_all_v(&self, buffer: Buffer, counts: &Counts) -> Result<Pending, CommError> {
        let (len, size) = (buffer.len(), buffer.kind().size());
        let pending = self.inner.all_to_all_v(buffer, counts)?;
        // Accepted counts fit the group. What a rank keeps travels nowhere.
        let kept = counts.send[self.rank()];
        let direct = (len - kept, counts.receive.iter().sum::<usize>() - counts.receive[self.rank()]);
        self.recorder.count(self.group, Verb::AllToAll, len, size, Some(direct));
        Ok(pending)
    }

    fn broadcast(&self, buffer: Buffer, root: usize) -> Result<Pending, CommError> {
        let (len, size, ranks) = (buffer.len(), buffer.kind().size(), self.size());
        let pending = self.inner.broadcast(buffer, root)?;
        // A chain from the root around the ring: its last rank sends to nobody.
        let place = (self.rank() + ranks - root) % ranks;
        let direct = (if place + 1 < ranks { len } else { 0 }, if place > 0 { len } else { 0 });
        self.recorder.count(self.group, Verb::Broadcast, len, size, Some(direct));
        Ok(pending)
    }

    fn send(&self, buffer: Buffer, to: usize, tag: u32) -> Result<Pending, CommError> {
        let (len, size) = (buffer.len(), buffer.kind().size());
        let pending = self.inner.send(buffer, to, tag)?;
        let sent = if to == self.rank() { 0 } else { len };
        self.recorder.count(self.group, Verb::Send, len, size, Some((sent, 0)));
        Ok(pending)
    }

    fn recv(&self, kind: ElementKind, len: usize, from: usize, tag: u32) -> Result<Pending, CommError> {
        let pending = self.inner.recv(kind, len, from, tag)?;
        let received = if from == self.rank() { 0 } else { len };
        self.recorder.count(self.group, Verb::Receive, len, kind.size(), Some((0, received)));
        Ok(pending)
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.inner.barrier()?;
        self.recorder.count(self.group, Verb::Barrier, 0, 0, Some((0, 0)));
        Ok(())
    }

    fn abort(&self, why: &str) {
        self.inner.abort(why);
    }

    fn flight(&self) -> Vec<RankTrace> {
        self.inner.flight()
    }
}

/// Ranks as text that stays short: `ranks 0..8`, `ranks 3, 11, ..., 59`, or a list.
fn describe(ranks: &[usize]) -> String {
    let step = |pair: &[usize]| pair[1].wrapping_sub(pair[0]);
    let even = ranks.windows(3).all(|triple| step(&triple[..2]) == step(&triple[1..]));
    match ranks {
        [first, second, .., last] if even && *second == first + 1 => format!("ranks {first}..{}", last + 1),
        [first, second, _, .., last] if even && ranks.len() > 3 => format!("ranks {first}, {second}, ..., {last}"),
        _ => format!("ranks {}", ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}
