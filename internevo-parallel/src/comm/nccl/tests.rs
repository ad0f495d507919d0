//! What can be proven without a GPU: finding the library, refusing what is not one, the id, and the checks of arguments.

use std::path::Path;

use super::{
    DeviceType, LIBRARY_VARIABLE, NcclError, NcclId, RawSlice, device::fit, diagnose, library::locate_at, locate,
};
use crate::comm::FailureCause;

#[test]
fn what_is_not_there_is_reported_with_every_place_that_was_tried() {
    let missing = locate_at(Some(Path::new("/nowhere/libnccl.so.2"))).expect_err("there is no such file");
    assert_eq!(missing.tried.len(), 1);
    let text = missing.to_string();
    assert!(text.contains("/nowhere/libnccl.so.2") && text.contains(LIBRARY_VARIABLE), "{text}");

    let empty = tempfile::tempdir().expect("a folder");
    let missing = locate_at(Some(empty.path())).expect_err("the folder is empty");
    let tried: Vec<_> =
        missing.tried.iter().map(|(path, _)| path.strip_prefix(empty.path()).expect("below it")).collect();
    let wheel = Path::new("nvidia/nccl/lib");
    let names = ["libnccl.so".into(), "libnccl.so.2".into(), wheel.join("libnccl.so"), wheel.join("libnccl.so.2")];
    assert_eq!(tried, names);
}

#[test]
fn a_library_that_is_not_nccl_is_refused_with_the_function_it_lacks() {
    // Every process has the C library loaded.
    let missing = locate_at(Some(Path::new("libc.so.6"))).expect_err("it has no collectives");
    assert!(missing.to_string().contains("ncclGetVersion"), "{missing}");

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("libnccl.so.2");
    std::fs::write(&file, "not a library").expect("a file");
    let missing = locate_at(Some(folder.path())).expect_err("a text cannot be loaded");
    assert_eq!(missing.tried.len(), 1, "the file that exists is the only candidate: {missing}");
    assert_eq!(missing.tried[0].0, file);
}

#[test]
fn a_diagnosis_names_driver_gpus_and_library_and_never_panics() {
    let lines = diagnose();
    assert_eq!(lines.iter().map(|line| line.what).take(3).collect::<Vec<_>>(), ["CUDA driver", "GPUs", "NCCL"]);
    assert!(lines.iter().all(|line| !line.detail.is_empty()), "{lines:?}");
    assert_eq!(lines[2].usable, locate().is_ok());
    assert_eq!(lines.len(), if lines[2].usable { 4 } else { 3 });
}

#[test]
fn an_id_survives_its_journey_as_bytes_and_another_length_is_refused() {
    let bytes: [u8; 128] = std::array::from_fn(|i| (i * 37) as u8);
    let id = NcclId::from_bytes(&bytes).expect("128 bytes");
    assert_eq!(id.to_bytes(), bytes);
    assert_eq!(format!("{id:?}"), "NcclId(00254a6f94b9de03...)");
    for wrong in [0, 127, 129] {
        let error = NcclId::from_bytes(&vec![0; wrong]).expect_err("an id has 128 bytes");
        assert!(error.to_string().contains(&wrong.to_string()), "{error}");
    }
}

/// Runs where NCCL is installed: `NCCL_SO_PATH=.../libnccl.so.2 cargo test -p internevo-parallel --features nccl -- --ignored`.
#[test]
#[ignore = "needs libnccl (no GPU)"]
fn an_installed_nccl_makes_ids_that_differ_and_refuses_a_world_without_a_gpu() {
    let nccl = locate().expect("NCCL is installed");
    assert!(nccl.version() >= (2, 18, 0), "{nccl:?}");
    let (a, b) = (nccl.unique_id().expect("needs no GPU"), nccl.unique_id().expect("needs no GPU"));
    assert_ne!(a, b);
    assert_eq!(NcclId::from_bytes(&a.to_bytes()).expect("128 bytes"), a);
    let error = super::DeviceCommunicator::new(&nccl, 4_000, a, 0, 1).err().expect("no machine has that many GPUs");
    assert!(
        matches!(error, NcclError::NoDriver | NcclError::Driver { .. } | NcclError::Argument { .. }),
        "refused before NCCL is asked: {error}"
    );
    let error = super::DeviceCommunicator::new(&nccl, 0, a, 1, 1).err().expect("rank 1 of 1");
    assert!(matches!(error, NcclError::Argument { .. }), "{error}");
}

#[test]
fn slices_that_do_not_fit_each_other_are_refused_before_nccl_sees_them() {
    let slice = |len, kind| RawSlice { pointer: 0x1000, len, kind };
    let (long, short) = (slice(12, DeviceType::Bf16), slice(3, DeviceType::Bf16));
    fit("reduce_scatter", (long, 1), (short, 4), 4).expect("a quarter each");
    fit("all_gather", (short, 4), (long, 1), 4).expect("four quarters");
    for (send, receive) in [(long, short), (long, slice(12, DeviceType::F16)), (slice(0, DeviceType::Bf16), short)] {
        let error = fit("all_reduce", (send, 1), (receive, 1), 4).expect_err("they differ");
        assert!(matches!(error, NcclError::Argument { call: "all_reduce", .. }), "{error}");
    }
    let huge = slice(usize::MAX, DeviceType::U8);
    fit("all_gather", (huge, 4), (short, 1), 4).expect_err("the product does not fit a number");
}

#[test]
fn a_failure_on_a_rank_says_which_and_what_it_was_in() {
    let call = NcclError::Call { function: "ncclAllReduce", code: 6, text: "remote process exited".into() };
    let error = call.on_rank(3, "all_reduce(f32 x 8)");
    assert!(matches!(error.cause(), FailureCause::Transport { rank: 3, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("remote process exited") && text.contains("all_reduce(f32 x 8)"), "{text}");
    let argument = NcclError::Argument { call: "send", reason: "rank 9 of a group of 2".into() };
    let error = argument.on_rank(1, "send");
    assert!(matches!(error.cause(), FailureCause::Invalid { rank: 1, .. }), "{error}");
}
