//! The local backend: the conformance suite at several sizes, and failures that only threads can show.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use internevo_parallel::comm::{
    Buffer, CommError, Communicator, FailureCause, LocalOptions, ReduceOp, RunError, conformance, local_world_with,
    run_ranks, run_ranks_with, write_flight,
};

#[test]
fn the_local_backend_conforms_at_every_size() {
    for ranks in [1, 2, 3, 4, 5, 8] {
        conformance::run(|body| Ok(run_ranks(ranks, body).map(drop)?)).unwrap_or_else(|e| panic!("{ranks} ranks: {e}"));
    }
    for ranks in [2, 3, 5] {
        conformance::run_failures(|body| Ok(run_ranks(ranks, body).map(drop)?))
            .unwrap_or_else(|e| panic!("{ranks} ranks: {e}"));
    }
}

#[test]
fn a_panic_ends_the_other_ranks_and_is_reported_as_the_cause() {
    let result = run_ranks(3, |comm| {
        assert!(comm.rank() != 1, "rank one had enough");
        comm.barrier()
    });
    match result {
        Err(RunError::Panicked { rank: 1, message }) => assert!(message.contains("had enough"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_without_run_ranks_is_still_noticed() {
    let mut world = local_world_with(2, LocalOptions::default());
    let (second, first) = (world.pop().expect("two"), world.pop().expect("two"));
    let panics = std::thread::spawn(move || {
        let _mine = second;
        panic!("on purpose");
    });
    let error = first.barrier().expect_err("the other rank panics");
    assert!(panics.join().is_err());
    assert!(matches!(error.cause(), FailureCause::Panicked { rank: 1, waiting: 0, .. }), "{error}");
}

#[test]
fn a_rank_that_never_arrives_is_named_after_the_time_limit() {
    let options = LocalOptions { timeout: Duration::from_millis(150), ..LocalOptions::default() };
    let mut world = local_world_with(3, options);
    let absent = world.pop().expect("three");
    let waits = |comm: Arc<dyn Communicator>| {
        std::thread::spawn(move || comm.all_reduce(Buffer::F32(vec![1.0]), ReduceOp::Sum)?.wait())
    };
    let started = Instant::now();
    let threads: Vec<_> = world.into_iter().map(waits).collect();
    let errors: Vec<CommError> =
        threads.into_iter().map(|t| t.join().expect("no panic").expect_err("nobody comes")).collect();
    assert!(started.elapsed() >= Duration::from_millis(150));
    for error in &errors {
        assert!(matches!(error.cause(), FailureCause::Timeout { missing, .. } if missing == &[2]), "{error}");
        assert!(error.to_string().contains("all_reduce(sum, f32 x 1) #0"), "{error}");
    }
    assert!(absent.barrier().is_err(), "the world has failed for the absent rank too");
}

#[test]
fn the_error_of_the_first_rank_is_returned_and_carries_what_every_rank_did() {
    let result = run_ranks_with(2, LocalOptions { recorded_calls: 3, ..LocalOptions::default() }, |comm| {
        for _ in 0..5 {
            comm.barrier()?;
        }
        if comm.rank() == 1 { comm.all_gather(Buffer::U8(vec![0]))?.wait().map(drop) } else { comm.barrier() }
    });
    let Err(RunError::Failed { error, .. }) = result else { panic!("a mismatch is an error") };
    let flight = error.flight();
    assert_eq!(flight.len(), 2);
    assert_eq!(flight[0].calls.len(), 3, "only the last calls are kept");
    assert!(flight.iter().any(|t| t.calls.last().is_some_and(|c| c == "all_gather(u8 x 1) #5 of ranks [0, 1]")));
}

#[test]
fn the_flight_recorder_is_read_at_any_time_and_written_down_as_json_lines() {
    let logs = tempfile::tempdir().expect("a temporary folder");
    let options = LocalOptions { recorded_calls: 2, ..LocalOptions::default() };
    let world = local_world_with(1, options);
    for _ in 0..3 {
        world[0].barrier().expect("alone");
    }
    let path = write_flight(&logs.path().join("logs"), 0, &world[0].flight(), None).expect("a writable folder");
    assert_eq!(path.file_name().and_then(|name| name.to_str()), Some("flight-rank-0.jsonl"));
    let text = std::fs::read_to_string(path).expect("written");
    let second = r#"{"rank":0,"number":1,"call":"barrier #1 of ranks [0]"}"#;
    assert_eq!(text.lines().collect::<Vec<_>>(), [second, &second.replace('1', "2")]);
    world[0].abort("enough");
    let error = world[0].barrier().expect_err("aborted");
    let path = write_flight(logs.path(), 0, error.flight(), Some(&error)).expect("a writable folder");
    let text = std::fs::read_to_string(path).expect("written");
    assert_eq!(text.lines().next(), Some(r#"{"rank":0,"failure":"rank 0 aborted: enough"}"#));
}
