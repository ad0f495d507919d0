//! A checkpoint written by two ZeRO ranks loads in `torch.distributed.checkpoint`, bit for bit. Runs where
//! `INTERNEVO_PEERS_PYTHON` names a Python with torch (`cargo xtask peers dcp` sets one up); skips with a reason elsewhere.

mod common;

use std::process::Command;

use common::{Setup, train};
use internevo_parallel::{
    ParallelError,
    checkpoint::{self, SaveRequest, read_model},
    comm::run_ranks,
};
use serde_json::json;

#[test]
fn torch_distributed_checkpoint_reads_the_parameters_bit_for_bit() {
    let Some(python) = std::env::var_os("INTERNEVO_PEERS_PYTHON") else {
        println!("skipped: INTERNEVO_PEERS_PYTHON is not set (`cargo xtask peers dcp` sets it up)");
        return;
    };
    let dir = tempfile::tempdir().expect("temporary folder");
    let setup = Setup::new(2, 2);
    let saved = run_ranks(setup.ranks, |comm| -> Result<_, ParallelError> {
        let rank = comm.rank();
        let mut optimizer = setup.optimizer(comm)?;
        train(&mut optimizer, &setup, rank, 0..3)?;
        let request =
            SaveRequest { dir: dir.path(), step: 3, config_hash: "c0ffee", plugins: &[], trainer: &json!({}) };
        let path = checkpoint::save(&request, &optimizer)?;
        let entries = optimizer.table().params().iter().map(|p| (p.spec.name.clone(), p.spec.shape.clone(), p.range()));
        Ok((path, entries.collect::<Vec<_>>()))
    });
    let (path, entries) = saved.expect("two ranks save").swap_remove(0);
    let (_, flat) = read_model(&path).expect("the checkpoint just written");
    let expected: serde_json::Map<String, serde_json::Value> = entries
        .into_iter()
        .map(|(name, shape, range)| {
            let bits: Vec<u32> = flat[range].iter().map(|x| x.to_bits()).collect();
            (name, json!({ "shape": shape, "bits": bits }))
        })
        .collect();
    let expected_path = dir.path().join("expected.json");
    std::fs::write(&expected_path, serde_json::to_vec(&expected).expect("serialises")).expect("room");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torch_dcp.py");
    let output = Command::new(python).arg(script).arg(&path).arg(&expected_path).output().expect("python starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    println!("{}", text.trim());
}
