//! The dry backend and the recorder against hand-made counts and against the local backend.

use std::sync::Arc;

use internevo_core::volume::{Verb, VolumeRow};

use super::{DryOptions, VolumeRecorder, dry_world, record};
use crate::comm::{
    Buffer, CommError, Communicator, Counts, ElementKind, FailureCause, ReduceOp, conformance, run_ranks,
};

fn wait(pending: Result<crate::comm::Pending, CommError>) -> Buffer {
    pending.expect("the call is valid").wait().expect("nobody else can fail")
}

/// Every verb once; 40 elements are divisible by the number of ranks.
fn every_verb(comm: &dyn Communicator) -> Result<(), CommError> {
    let (rank, ranks) = (comm.rank(), comm.size());
    let (next, previous) = ((rank + 1) % ranks, (rank + ranks - 1) % ranks);
    comm.all_reduce(Buffer::F32(vec![1.0; 40]), ReduceOp::Sum)?.wait()?;
    comm.reduce_scatter(Buffer::F64(vec![1.0; 40]), ReduceOp::Max)?.wait()?;
    comm.all_gather(Buffer::I64(vec![1; 10]))?.wait()?;
    comm.all_gather_in_place(Buffer::U8(vec![1; 40]))?.wait()?;
    // Rank r sends 1 + r + q elements to rank q.
    let counts: Vec<usize> = (0..ranks).map(|q| 1 + rank + q).collect();
    let buffer = Buffer::F32(vec![1.0; counts.iter().sum()]);
    comm.all_to_all_v(buffer, &Counts { send: counts.clone(), receive: counts })?.wait()?;
    comm.broadcast(Buffer::F32(vec![1.0; 25]), 1)?.wait()?;
    comm.send(Buffer::F32(vec![1.0; 7]), next, 3)?.wait()?;
    comm.recv(ElementKind::F32, 7, previous, 3)?.wait()?;
    comm.barrier()
}

fn moved(rows: &[VolumeRow], verb: Verb) -> (u64, u64, u64) {
    let row = rows.iter().find(|row| row.verb == verb).unwrap_or_else(|| panic!("no {verb} in {rows:?}"));
    (row.bytes, row.sent, row.received)
}

#[test]
fn the_rows_of_a_dry_rank_are_those_counted_by_hand() {
    let (comm, recorder) = dry_world(2, 4, DryOptions::default());
    every_verb(&*comm).expect("the calls are valid");
    let rows = recorder.report();
    assert_eq!(moved(&rows, Verb::AllReduce), (160, 240, 240));
    assert_eq!(moved(&rows, Verb::ReduceScatter), (320, 240, 240));
    assert_eq!(moved(&rows, Verb::AllGather), (320 + 40, 270, 270));
    // Rank 2 of 4: 3 + 4 + 5 + 6 floats, 5 of which stay.
    assert_eq!(moved(&rows, Verb::AllToAll), (72, 52, 52));
    assert_eq!(moved(&rows, Verb::Broadcast), (100, 100, 100));
    assert_eq!(moved(&rows, Verb::Send), (28, 28, 0));
    assert_eq!(moved(&rows, Verb::Receive), (28, 0, 28));
    assert_eq!(rows.iter().find(|row| row.verb == Verb::AllGather).map(|row| (row.calls, row.elements)), Some((2, 80)));
    recorder.reset();
    assert_eq!(recorder.report(), []);
}

#[test]
fn a_dry_rank_counts_what_the_same_rank_of_a_real_world_counts() {
    let real = run_ranks(4, |comm| {
        let recorder = VolumeRecorder::new();
        let comm = record(comm, &recorder);
        every_verb(&*comm)?;
        every_verb(&*comm.subgroup_named("again", &[0, 1, 2, 3])?)?;
        Ok::<_, CommError>(recorder.report())
    });
    for (rank, expected) in real.expect("a healthy world").into_iter().enumerate() {
        let (comm, recorder) = dry_world(rank, 4, DryOptions::default());
        every_verb(&*comm).expect("the calls are valid");
        let again = comm.subgroup_named("again", &[0, 1, 2, 3]).expect("a member");
        every_verb(&*again).expect("the calls are valid");
        assert_eq!(recorder.report(), expected, "rank {rank}");
    }
}

#[test]
fn what_all_ranks_send_is_what_all_ranks_receive() {
    for ranks in [2, 5, 8] {
        let rows = run_ranks(ranks, |comm| {
            let recorder = VolumeRecorder::new();
            every_verb(&*record(comm, &recorder))?;
            Ok::<_, CommError>(recorder.report())
        });
        let rows = rows.expect("a healthy world").concat();
        let (sent, received) = (rows.iter().map(|r| r.sent).sum::<u64>(), rows.iter().map(|r| r.received).sum::<u64>());
        assert_eq!(sent, received, "{ranks} ranks");
    }
}

#[test]
fn recording_changes_nothing_and_a_world_of_one_conforms() {
    let wrapped = |comm: Arc<dyn Communicator>| record(comm, &VolumeRecorder::new());
    for ranks in [1, 3, 4] {
        conformance::run(|body| Ok(run_ranks(ranks, |comm| body(wrapped(comm))).map(drop)?))
            .unwrap_or_else(|e| panic!("{ranks} ranks: {e}"));
    }
    conformance::run_failures(|body| Ok(run_ranks(3, |comm| body(wrapped(comm))).map(drop)?)).expect("failures pass");
    conformance::run(|body| body(dry_world(0, 1, DryOptions::default()).0)).expect("one rank needs no peers");
}

#[test]
fn results_have_the_lengths_that_peers_would_give_them() {
    let (comm, _) = dry_world(1, 3, DryOptions::default());
    let data = || Buffer::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(wait(comm.all_reduce(data(), ReduceOp::Sum)), data());
    assert_eq!(wait(comm.reduce_scatter(data(), ReduceOp::Sum)), Buffer::F32(vec![3.0, 4.0]));
    assert_eq!(wait(comm.all_gather(Buffer::I64(vec![7, 8]))), Buffer::I64(vec![7, 8, 7, 8, 7, 8]));
    assert_eq!(wait(comm.all_gather_in_place(data())), Buffer::F32(vec![3.0, 4.0, 3.0, 4.0, 3.0, 4.0]));
    let counts = Counts { send: vec![0, 2, 4], receive: vec![2, 2, 3] };
    let got = wait(comm.all_to_all_v(data(), &counts));
    assert_eq!(got, Buffer::F32(vec![0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), "zeros, the own part, a part cut short");
    assert_eq!(wait(comm.recv(ElementKind::U8, 3, 0, 1)), Buffer::U8(vec![0; 3]));
}

#[test]
fn groups_need_no_peers_but_splitting_does() {
    let (comm, recorder) = dry_world(4090, 4096, DryOptions::default());
    let column: Vec<usize> = (2..4096).step_by(8).collect();
    let group = comm.subgroup(&column).expect("a member");
    assert_eq!((group.rank(), group.size(), group.world_ranks()[1]), (511, 512, 10));
    let nested = group.subgroup_named("pair", &[0, 511]).expect("a member");
    assert_eq!((nested.rank(), nested.world_ranks()), (1, [2, 4090].as_slice()));
    for group in [&group, &nested] {
        wait(group.all_gather(Buffer::F32(vec![0.0; 2])));
    }
    let labels: Vec<_> = recorder.report().into_iter().map(|row| row.group).collect();
    assert_eq!(labels, ["ranks 2, 10, ..., 4090", "pair"]);
    let refused = comm.split(Some(1), 0).err().expect("nobody can be asked");
    assert!(refused.to_string().contains("`subgroup`"), "{refused}");
    for strangers in [&[0, 1][..], &[4090, 4090], &[4090, 4096], &[4090, 1], &[]] {
        let refused = comm.subgroup(strangers).err().expect("no group of this rank");
        assert!(matches!(refused.cause(), FailureCause::Invalid { rank: 4090, .. }), "{refused}");
    }
}

#[test]
fn calls_that_make_no_sense_are_refused_and_not_counted() {
    let (comm, recorder) = dry_world(0, 3, DryOptions { max_result_bytes: 100 });
    let four = || Buffer::F32(vec![0.0; 4]);
    let counts = |send: [usize; 3], receive: [usize; 3]| Counts { send: send.into(), receive: receive.into() };
    let refused = [
        comm.all_reduce(Buffer::U8(vec![0]), ReduceOp::Sum),
        comm.reduce_scatter(four(), ReduceOp::Sum),
        comm.all_gather_in_place(four()),
        comm.all_to_all_v(four(), &counts([1, 1, 1], [1, 1, 1])),
        comm.all_to_all_v(four(), &counts([2, 1, 1], [1, 1, 1])),
        comm.broadcast(four(), 3),
        comm.send(four(), 3, 0),
        comm.recv(ElementKind::F32, 1, 3, 0),
        comm.recv(ElementKind::F32, 26, 1, 0),
        comm.all_gather(Buffer::F32(vec![0.0; 9])),
    ];
    for (number, call) in refused.into_iter().enumerate() {
        let error = call.err().unwrap_or_else(|| panic!("call {number} was accepted"));
        assert!(matches!(error.cause(), FailureCause::Invalid { rank: 0, .. }), "call {number}: {error}");
    }
    assert_eq!(recorder.report(), []);
    comm.abort("enough");
    let error = comm.barrier().expect_err("the world is over");
    assert_eq!(*error.cause(), FailureCause::Aborted { rank: 0, why: "enough".into() });
}

#[test]
fn rows_are_serialisable() {
    let (comm, recorder) = dry_world(0, 2, DryOptions::default());
    wait(comm.all_reduce(Buffer::F32(vec![0.0; 3]), ReduceOp::Sum));
    let rows = recorder.report();
    let json = serde_json::to_string(&rows).expect("plain data");
    assert!(json.contains(r#""group":"world","ranks":[0,1],"verb":"all_reduce","calls":1"#), "{json}");
    assert_eq!(serde_json::from_str::<Vec<VolumeRow>>(&json).expect("plain data"), rows);
}
