//! The suite every backend must pass, for any number of ranks. Inputs are random but reproducible; every rank computes what
//! it must receive on its own and compares bit for bit.
//!
//! ```
//! use internevo_parallel::comm::{conformance, run_ranks};
//!
//! conformance::run(|body| Ok(run_ranks(3, body).map(drop)?)).expect("the local backend conforms");
//! ```

use std::sync::Arc;

use internevo_core::rng::CounterRng;

use super::{
    Buffer, CommError, Communicator, Counts, ElementKind, FailureCause, ReduceOp, RunError, agree, gather_bytes,
};

/// What one rank of a fresh world does in one check.
pub type Body<'a> = &'a (dyn Fn(Arc<dyn Communicator>) -> Result<(), Violation> + Sync);

/// Why a backend does not conform.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A call failed that must not.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// A call gave something else than the trait promises.
    #[error("rank {rank}: {what}")]
    Wrong {
        /// Rank in the world.
        rank: usize,
        /// What was promised and what came.
        what: String,
    },
    /// The world of a check could not be run.
    #[error("{0}")]
    World(String),
}

impl From<RunError<Violation>> for Violation {
    fn from(error: RunError<Violation>) -> Self {
        Self::World(error.to_string())
    }
}

type Check = Result<(), Violation>;

/// What every rank of a world does in one check.
pub type RankCheck = fn(&dyn Communicator) -> Result<(), Violation>;

/// The checks in which a rank fails on purpose, each of which needs a world of its own with at least two ranks: a name and what
/// every rank does.
pub const FAILURES: [(&str, RankCheck); 3] = [
    ("a_mismatch_reaches_everyone", a_mismatch_reaches_everyone),
    ("an_abort_reaches_everyone", an_abort_reaches_everyone),
    ("a_rank_that_leaves_is_named", a_rank_that_leaves_is_named),
];

/// Lengths that cross the tiles and chunks of a backend, and the awkward ones.
const LENGTHS: [usize; 5] = [0, 1, 7, 1_025, 70_001];
const SEED: u64 = 20_240_719;

/// Runs every check that a healthy world must pass. `world` runs a body on all ranks of a fresh world (or, with a process per
/// rank, on this process's rank) and returns the first failure.
///
/// # Errors
/// The first [`Violation`].
pub fn run(world: impl Fn(Body<'_>) -> Check) -> Check {
    for check in [
        reductions_follow_the_tree,
        gathers_and_broadcasts_move_everything,
        all_to_all_moves_ragged_parts,
        messages_arrive_in_order,
        splits_divide_and_order,
        subgroups_hold_their_members,
        handles_may_be_finished_in_any_order,
        random_programs_agree,
        helpers_agree,
    ] {
        world(&|comm| check(&*comm))?;
    }
    Ok(())
}

/// Runs [`FAILURES`]; needs at least two ranks. For backends that can make a fresh world after a failure in one process.
///
/// # Errors
/// The first [`Violation`].
pub fn run_failures(world: impl Fn(Body<'_>) -> Check) -> Check {
    FAILURES.iter().try_for_each(|(_, check)| world(&|comm| check(&*comm)))
}

fn ensure(comm: &dyn Communicator, holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Violation::Wrong { rank: comm.world_ranks()[comm.rank()], what: what() }) }
}

/// Random elements of rank `rank`.
fn sample(kind: ElementKind, name: &str, rank: usize, len: usize) -> Buffer {
    let start = CounterRng::new(SEED, &format!("{name}/{rank}")).word64(0);
    let word = |i: usize| mix(start.wrapping_add(i as u64));
    // Signed, over seven decades, so that every other order of additions rounds differently.
    let float = |i: usize| (word(i) as i64 >> 11) as f64 * 10f64.powi((i % 7) as i32 - 18);
    match kind {
        ElementKind::F32 => Buffer::F32((0..len).map(|i| float(i) as f32).collect()),
        ElementKind::F64 => Buffer::F64((0..len).map(float).collect()),
        ElementKind::I64 => Buffer::I64((0..len).map(|i| word(i) as i64).collect()),
        ElementKind::U8 => Buffer::U8((0..len).map(|i| word(i) as u8).collect()),
    }
}

/// The output function of SplitMix64: cheap, and good enough to tell elements apart.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The promised result of a reduction, by the recursion of its definition.
fn expected_reduction(kind: ElementKind, op: ReduceOp, name: &str, ranks: usize, len: usize) -> Buffer {
    let all: Vec<Buffer> = (0..ranks).map(|r| sample(kind, name, r, len)).collect();
    macro_rules! reduce {
        ($variant:ident, $sum:expr, $max:expr, $min:expr) => {{
            let lanes: Vec<_> = all
                .iter()
                .map(|b| match b {
                    Buffer::$variant(v) => v.as_slice(),
                    _ => unreachable!("all samples are of one kind"),
                })
                .collect();
            let at = |i: usize| lanes.iter().map(|lane| lane[i]).collect::<Vec<_>>();
            Buffer::$variant(match op {
                ReduceOp::Sum => (0..len).map(|i| tree(&at(i), &$sum)).collect(),
                ReduceOp::Max => (0..len).map(|i| tree(&at(i), &$max)).collect(),
                ReduceOp::Min => (0..len).map(|i| tree(&at(i), &$min)).collect(),
            })
        }};
    }
    match kind {
        ElementKind::F32 => reduce!(F32, |a, b| a + b, f32::max, f32::min),
        ElementKind::F64 => reduce!(F64, |a, b| a + b, f64::max, f64::min),
        ElementKind::I64 => reduce!(I64, i64::wrapping_add, i64::max, i64::min),
        ElementKind::U8 => reduce!(U8, u8::wrapping_add, u8::max, u8::min),
    }
}

fn tree<T: Copy>(values: &[T], f: &impl Fn(T, T) -> T) -> T {
    match values {
        [one] => *one,
        _ => {
            let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
            f(tree(left, f), tree(right, f))
        }
    }
}

const KINDS: [ElementKind; 4] = [ElementKind::F32, ElementKind::F64, ElementKind::I64, ElementKind::U8];

fn reductions_follow_the_tree(comm: &dyn Communicator) -> Check {
    let (rank, ranks) = (comm.rank(), comm.size());
    for kind in KINDS {
        for op in [ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min] {
            for len in LENGTHS {
                let what = format!("{op} of {kind} x {len}");
                let len = len / ranks * ranks;
                if (kind, op) == (ElementKind::U8, ReduceOp::Sum) {
                    let refused = comm.all_reduce(sample(kind, &what, rank, len), op);
                    ensure(comm, refused.is_err(), || "a sum of bytes was not refused".into())?;
                    continue;
                }
                let expected = expected_reduction(kind, op, &what, ranks, len);
                let all = comm.all_reduce(sample(kind, &what, rank, len), op)?.wait()?;
                ensure(comm, same_bits(&all, &expected), || format!("all_reduce({what}) is not the tree"))?;
                let part = comm.reduce_scatter(sample(kind, &what, rank, len), op)?.wait()?;
                let expected = slice(&expected, rank * (len / ranks), len / ranks);
                ensure(comm, same_bits(&part, &expected), || format!("reduce_scatter({what}) is not its part"))?;
            }
        }
    }
    let nan = Buffer::F64(vec![if rank == ranks / 2 { f64::NAN } else { rank as f64 }]);
    let max = comm.all_reduce(nan, ReduceOp::Max)?.wait()?.into_f64();
    ensure(comm, max[0].is_nan(), || format!("the maximum with a NaN is {}", max[0]))
}

/// Equality that tells -0 from 0.
fn same_bits(a: &Buffer, b: &Buffer) -> bool {
    match (a, b) {
        (Buffer::F32(a), Buffer::F32(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
        }
        (Buffer::F64(a), Buffer::F64(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
        }
        _ => a == b,
    }
}

fn slice(buffer: &Buffer, start: usize, len: usize) -> Buffer {
    match buffer {
        Buffer::F32(v) => Buffer::F32(v[start..start + len].to_vec()),
        Buffer::F64(v) => Buffer::F64(v[start..start + len].to_vec()),
        Buffer::I64(v) => Buffer::I64(v[start..start + len].to_vec()),
        Buffer::U8(v) => Buffer::U8(v[start..start + len].to_vec()),
    }
}

fn concatenated(parts: impl IntoIterator<Item = Buffer>) -> Vec<f32> {
    parts.into_iter().flat_map(Buffer::into_f32).collect()
}

fn gathers_and_broadcasts_move_everything(comm: &dyn Communicator) -> Check {
    for len in LENGTHS {
        let mine = |rank| sample(ElementKind::F32, "gather", rank, len);
        let all = comm.all_gather(mine(comm.rank()))?.wait()?.into_f32();
        let expected = concatenated((0..comm.size()).map(mine));
        ensure(comm, all == expected, || format!("all_gather of {len} elements is not in rank order"))?;
        let mut in_place = vec![f32::NAN; len * comm.size()];
        in_place[comm.rank() * len..][..len].copy_from_slice(&mine(comm.rank()).into_f32());
        let all = comm.all_gather_in_place(Buffer::F32(in_place))?.wait()?.into_f32();
        ensure(comm, all == expected, || format!("all_gather_in_place of {len} elements is not in rank order"))?;
        for root in 0..comm.size() {
            let got = comm.broadcast(mine(comm.rank()), root)?.wait()?;
            ensure(comm, got == mine(root), || format!("broadcast of {len} elements is not root {root}'s"))?;
        }
    }
    let refused = comm.broadcast(Buffer::U8(Vec::new()), comm.size());
    ensure(comm, refused.is_err(), || "a root outside the group was not refused".into())
}

fn all_to_all_moves_ragged_parts(comm: &dyn Communicator) -> Check {
    let (rank, ranks) = (comm.rank(), comm.size());
    let count = |from: usize, to: usize| (3 * from + 5 * to) % 11 * if from == to { 0 } else { 97 };
    let part = |from: usize, to: usize| sample(ElementKind::F32, &format!("to {to}"), from, count(from, to));
    let send: Vec<usize> = (0..ranks).map(|to| count(rank, to)).collect();
    let receive: Vec<usize> = (0..ranks).map(|from| count(from, rank)).collect();
    let buffer = Buffer::F32(concatenated((0..ranks).map(|to| part(rank, to))));
    let got = comm.all_to_all_v(buffer, &Counts { send, receive })?.wait()?.into_f32();
    let expected = concatenated((0..ranks).map(|from| part(from, rank)));
    ensure(comm, got == expected, || "all_to_all_v mixed up the parts".into())
}

fn messages_arrive_in_order(comm: &dyn Communicator) -> Check {
    let (rank, ranks) = (comm.rank(), comm.size());
    let (next, previous) = ((rank + 1) % ranks, (rank + ranks - 1) % ranks);
    let message = |from: usize, tag: u32, n: usize| sample(ElementKind::F32, &format!("{tag}/{n}"), from, 10 + n);
    for n in 0..3 {
        for tag in [7, 8] {
            comm.send(message(rank, tag, n), next, tag)?.wait()?;
        }
    }
    // Another order of tags than sent: tags are separate queues.
    for tag in [8, 7] {
        for n in 0..3 {
            let got = comm.recv(ElementKind::F32, 10 + n, previous, tag)?.wait()?;
            ensure(comm, got == message(previous, tag, n), || format!("message {n} of tag {tag} is another one"))?;
        }
    }
    comm.barrier().map_err(Violation::from)
}

fn splits_divide_and_order(comm: &dyn Communicator) -> Check {
    let (rank, ranks) = (comm.rank(), comm.size());
    // Every third rank joins no group; the others go by parity, in reverse order.
    let color = (rank % 3 != 2).then_some(rank as u32 % 2);
    let group = comm.split(color, -(rank as i32))?;
    ensure(comm, group.is_some() == color.is_some(), || "a color and a group do not go together".into())?;
    if let Some(group) = group {
        let members: Vec<usize> = (0..ranks).rev().filter(|r| r % 3 != 2 && r % 2 == rank % 2).collect();
        let at = members.iter().position(|r| *r == rank);
        ensure(comm, group.world_ranks() == members && Some(group.rank()) == at, || {
            format!("split gave {:?} instead of {members:?}", group.world_ranks())
        })?;
        let all = group.all_gather(Buffer::I64(vec![rank as i64]))?.wait()?.into_i64();
        ensure(comm, all.iter().map(|r| *r as usize).eq(members.iter().copied()), || format!("{all:?}"))?;
        let pair = group.split(Some(group.rank() as u32 / 2), 0)?;
        ensure(comm, pair.is_some_and(|p| p.size() <= 2), || "a group of a group is too large".into())?;
    }
    comm.barrier().map_err(Violation::from)
}

fn subgroups_hold_their_members(comm: &dyn Communicator) -> Check {
    let (rank, ranks) = (comm.rank(), comm.size());
    // Every third rank with every third, so that members are no neighbours.
    let members: Vec<usize> = (rank % 3..ranks).step_by(3).collect();
    let group = comm.subgroup(&members)?;
    let expected: Vec<usize> = members.iter().map(|member| comm.world_ranks()[*member]).collect();
    ensure(comm, group.world_ranks() == expected && members[group.rank()] == rank, || {
        format!("the subgroup of {members:?} is {:?}", group.world_ranks())
    })?;
    let sum = group.all_reduce(Buffer::I64(vec![rank as i64]), ReduceOp::Sum)?.wait()?.into_i64();
    ensure(comm, sum[0] as usize == members.iter().sum::<usize>(), || format!("the subgroup's sum is {}", sum[0]))?;
    for senseless in [&[][..], &[ranks + 1], &[rank, rank]] {
        let refused = comm.subgroup(senseless).is_err();
        ensure(comm, refused, || format!("a subgroup of {senseless:?} was not refused"))?;
    }
    comm.barrier().map_err(Violation::from)
}

fn handles_may_be_finished_in_any_order(comm: &dyn Communicator) -> Check {
    let rank = comm.rank();
    let name = |i: usize| format!("flight-{i}");
    let post = |i: usize| comm.all_reduce(sample(ElementKind::F32, &name(i), rank, 2_000 + i), ReduceOp::Sum);
    let mut pending: Vec<_> = (0..6).map(|i| Ok((i, post(i)?))).collect::<Result<_, CommError>>()?;
    drop(pending.remove(3));
    // Ranks finish in different orders.
    if rank.is_multiple_of(2) {
        pending.reverse();
    }
    for (i, handle) in pending {
        let expected = expected_reduction(ElementKind::F32, ReduceOp::Sum, &name(i), comm.size(), 2_000 + i);
        ensure(comm, same_bits(&handle.wait()?, &expected), || format!("operation {i} in flight went wrong"))?;
    }
    Ok(())
}

fn random_programs_agree(comm: &dyn Communicator) -> Check {
    let (rank, ranks) = (comm.rank(), comm.size());
    let halves = comm.split(Some((rank >= ranks.div_ceil(2)) as u32), 0)?;
    let half = halves.expect("every rank named a color");
    let choices = CounterRng::new(SEED, "program");
    for step in 0..60 {
        let choice = choices.words(step);
        let len = choice[1] as usize % 300 * ranks;
        let group: &dyn Communicator = if choice[2].is_multiple_of(3) { &*half } else { comm };
        let len = if choice[0] % 4 == 1 { len / group.size() * group.size() } else { len };
        let name = format!("step-{step}/{:?}", group.world_ranks());
        let mine = sample(ElementKind::F32, &name, group.rank(), len);
        let sum = || expected_reduction(ElementKind::F32, ReduceOp::Sum, &name, group.size(), len);
        let of = |r| sample(ElementKind::F32, &name, r, len);
        let (got, expected) = match choice[0] % 4 {
            0 => (group.all_reduce(mine, ReduceOp::Sum)?.wait()?, sum()),
            1 => {
                let part = len / group.size();
                (group.reduce_scatter(mine, ReduceOp::Sum)?.wait()?, slice(&sum(), group.rank() * part, part))
            }
            2 => (group.all_gather(mine)?.wait()?, Buffer::F32(concatenated((0..group.size()).map(of)))),
            _ => {
                let root = choice[3] as usize % group.size();
                (group.broadcast(mine, root)?.wait()?, of(root))
            }
        };
        ensure(comm, same_bits(&got, &expected), || format!("random step {step} went wrong"))?;
    }
    Ok(())
}

fn helpers_agree(comm: &dyn Communicator) -> Check {
    let text = |rank: usize| "x".repeat(3 * rank % 5);
    let all = gather_bytes(comm, text(comm.rank()).as_bytes())?;
    ensure(comm, all.iter().enumerate().all(|(r, t)| *t == text(r).as_bytes()), || format!("gathered {all:?}"))?;
    let none = agree(comm, None)?;
    ensure(comm, none.is_none(), || format!("agreed on {none:?} without a failure"))?;
    let last = comm.size() - 1;
    let failure = (comm.rank() == last).then_some("disk full");
    let agreed = agree(comm, failure)?;
    let expected = Some((comm.world_ranks()[last], "disk full".to_owned()));
    ensure(comm, agreed == expected, || format!("agreed on {agreed:?}"))
}

fn a_mismatch_reaches_everyone(comm: &dyn Communicator) -> Check {
    let len = if comm.rank() == 0 { 3 } else { 4 };
    // A rank may still be on its way out of the barrier when the others have failed.
    let result = comm.barrier().and_then(|()| comm.all_reduce(Buffer::F32(vec![0.0; len]), ReduceOp::Sum)?.wait());
    let named = result.as_ref().is_err_and(|e| match e.cause() {
        FailureCause::Mismatch { sequence: 1, calls, .. } => {
            let text = e.to_string();
            calls.len() >= 2 && text.contains("rank 0 called all_reduce(sum, f32 x 3)") && text.contains("f32 x 4")
        }
        _ => false,
    });
    ensure(comm, named, || format!("different lengths gave {result:?}"))
}

fn an_abort_reaches_everyone(comm: &dyn Communicator) -> Check {
    let last = comm.size() - 1;
    if comm.rank() == last {
        comm.abort("on purpose");
    }
    let result = comm.barrier();
    let expected = FailureCause::Aborted { rank: last, why: "on purpose".into() };
    ensure(comm, result.as_ref().is_err_and(|e| *e.cause() == expected), || format!("an abort gave {result:?}"))
}

fn a_rank_that_leaves_is_named(comm: &dyn Communicator) -> Check {
    let last = comm.size() - 1;
    if comm.rank() == last {
        return Ok(());
    }
    let result = comm.barrier();
    let named = result.as_ref().is_err_and(|e| matches!(e.cause(), FailureCause::Left { rank, .. } if *rank == last));
    ensure(comm, named, || format!("a rank that left gave {result:?}"))
}
