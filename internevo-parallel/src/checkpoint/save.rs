//! Writing a checkpoint: every writer its own files, then one rank commits.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use internevo_core::storage::{StorageError, create_dir_all, sync_parent, write_atomic};

use super::{
    CheckpointError, CheckpointState, FORMAT, SavedLayout, SavedOptimizer,
    error::together,
    folder::{remove_dir, step_name, temporary_name},
    manifest::{FileRecord, MANIFEST, Manifest, STATE},
    state_key,
    tensors::{Part, write},
};
use crate::{comm::gather_bytes, state::StateTable, zero::ShardedOptimizer};

/// What to save beside the parameters and the optimizer. Rank 0's values are stored.
#[derive(Clone, Copy, Debug)]
pub struct SaveRequest<'a> {
    /// The folder that holds the job's checkpoints.
    pub dir: &'a Path,
    /// Optimizer steps taken so far.
    pub step: u64,
    /// Hash of the resolved configuration.
    pub config_hash: &'a str,
    /// Plugins that take part.
    pub plugins: &'a [String],
    /// The trainer's own state.
    pub trainer: &'a serde_json::Value,
}

/// How a file is opened for writing.
type Create<'a> = &'a dyn Fn(&Path) -> io::Result<File>;

/// Saves a checkpoint and returns its folder. Collective over the world; a checkpoint of the same step is replaced.
///
/// # Errors
/// When any rank cannot write; every rank then gets an error, nothing is left of this checkpoint, and older ones are untouched.
pub fn save(request: &SaveRequest<'_>, optimizer: &ShardedOptimizer) -> Result<PathBuf, CheckpointError> {
    save_through(&|path| File::create(path), request, optimizer)
}

fn save_through(
    create: Create<'_>,
    request: &SaveRequest<'_>,
    optimizer: &ShardedOptimizer,
) -> Result<PathBuf, CheckpointError> {
    let world = &*optimizer.groups.world;
    let leader = world.rank() == 0;
    let folder = request.dir.join(temporary_name(request.step, "tmp"));
    let attempt = || {
        together(world, if leader { begin(&folder) } else { Ok(()) })?;
        let records = together(world, write_tensors(create, &folder, optimizer))?;
        let bytes = serde_json::to_vec(&records).map_err(|e| CheckpointError::damaged(&folder, e.to_string()))?;
        let all = gather_bytes(world, &bytes)?;
        together(world, if leader { commit(&folder, request, optimizer, &all) } else { Ok(()) })
    };
    let result = attempt();
    if result.is_err()
        && leader
        && let Err(error) = remove_dir(&folder)
    {
        tracing::warn!(%error, "a failed save left its temporary folder behind");
    }
    result.map(|()| request.dir.join(step_name(request.step)))
}

/// Makes an empty temporary folder.
fn begin(folder: &Path) -> Result<(), CheckpointError> {
    remove_dir(folder)?;
    Ok(create_dir_all(folder)?)
}

/// Writes this rank's files, if it is a writer.
fn write_tensors(
    create: Create<'_>,
    folder: &Path,
    optimizer: &ShardedOptimizer,
) -> Result<Vec<FileRecord>, CheckpointError> {
    let groups = &optimizer.groups;
    if groups.zero1_replica.rank() != 0 {
        return Ok(Vec::new());
    }
    let (writer, writers) = (groups.zero1.rank(), groups.zero1.size());
    let file = |kind: &str, parts: &[Part<'_>]| {
        let path = folder.join(format!("{kind}-{:05}-of-{writers:05}.safetensors", writer + 1));
        let file = create(&path).map_err(StorageError::at("create", &path))?;
        write(file, &path, parts)
    };
    Ok(vec![file("model", &model_parts(optimizer, writer, writers))?, file("optimizer", &state_parts(optimizer))?])
}

/// Whole parameters, divided among the writers by where their middle lies in the flat vector.
fn model_parts(optimizer: &ShardedOptimizer, writer: usize, writers: usize) -> Vec<Part<'_>> {
    let total = optimizer.table.total().max(1);
    let owner = |range: &Range<usize>| ((range.start + range.len() / 2) * writers / total).min(writers - 1);
    let own = optimizer.table.entries().iter().filter(|entry| owner(&entry.range()) == writer);
    let part = |entry: &'_ crate::state::Entry| Part {
        name: entry.spec.name.clone(),
        shape: entry.spec.shape.clone(),
        offsets: vec![0; entry.spec.shape.len()],
        data: &optimizer.params[entry.range()],
    };
    own.map(part).collect()
}

/// This rank's shard of the optimizer state: a flat slice of each parameter and buffer.
fn state_parts(optimizer: &ShardedOptimizer) -> Vec<Part<'_>> {
    let pieces = optimizer.table.pieces(&optimizer.own_shard());
    let mut parts = Vec::new();
    for (buffer, values) in optimizer.optimizer.state() {
        parts.extend(pieces.iter().map(|piece| Part {
            name: state_key(buffer, &optimizer.table.entries()[piece.entry].spec.name),
            shape: vec![piece.range.len()],
            offsets: vec![piece.start],
            data: &values[piece.range.clone()],
        }));
    }
    parts
}

/// Writes `state.json` and the manifest, makes everything durable and gives the folder its name.
fn commit(
    folder: &Path,
    request: &SaveRequest<'_>,
    optimizer: &ShardedOptimizer,
    records: &[Vec<u8>],
) -> Result<(), CheckpointError> {
    let mut files = Vec::new();
    for bytes in records {
        let records: Vec<FileRecord> =
            serde_json::from_slice(bytes).map_err(|e| CheckpointError::damaged(folder, e.to_string()))?;
        files.extend(records);
    }
    let state = to_json(folder, &state_of(request, optimizer))?;
    write_atomic(folder.join(STATE), &state)?;
    let blake3 = blake3::hash(&state).to_hex().to_string();
    files.push(FileRecord { name: STATE.into(), size: state.len() as u64, blake3 });
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let manifest = Manifest { format: FORMAT, step: request.step, files };
    write_atomic(folder.join(MANIFEST), to_json(folder, &manifest)?)?;
    replace(folder, request)
}

/// Renames the folder; a checkpoint of the same step makes way and is removed afterwards.
fn replace(folder: &Path, request: &SaveRequest<'_>) -> Result<(), CheckpointError> {
    let target = request.dir.join(step_name(request.step));
    let old = request.dir.join(temporary_name(request.step, "old.tmp"));
    if target.exists() {
        remove_dir(&old)?;
        fs::rename(&target, &old).map_err(StorageError::at("replace", &target))?;
    }
    fs::rename(folder, &target).map_err(StorageError::at("write", &target))?;
    sync_parent(&target)?;
    Ok(remove_dir(&old)?)
}

fn to_json(folder: &Path, value: &impl serde::Serialize) -> Result<Vec<u8>, CheckpointError> {
    serde_json::to_vec_pretty(value).map_err(|e| CheckpointError::damaged(folder, e.to_string()))
}

fn state_of(request: &SaveRequest<'_>, optimizer: &ShardedOptimizer) -> CheckpointState {
    let groups = &optimizer.groups;
    let table: &StateTable = &optimizer.table;
    CheckpointState {
        format: FORMAT,
        step: request.step,
        updates: optimizer.updates,
        skipped_steps: optimizer.skipped,
        layout: SavedLayout { world: groups.world.size(), data: groups.data.size(), zero1: groups.zero1.size() },
        optimizer: SavedOptimizer {
            kind: optimizer.kind.to_owned(),
            state: optimizer.optimizer.state().iter().map(|(name, _)| (*name).to_owned()).collect(),
        },
        config_hash: request.config_hash.to_owned(),
        plugins: request.plugins.to_vec(),
        parameters: table.specs(),
        trainer: request.trainer.clone(),
    }
}

#[cfg(test)]
mod tests {
    use internevo_core::{config::Config, layout::ParallelLayout, plugin::Registry};

    use super::*;
    use crate::{
        ParallelError, ProcessGroups, ZeroConfig,
        comm::{Communicator, run_ranks},
        optimizer::OptimizerChoice,
        state::ParamSpec,
    };

    fn optimizer(comm: std::sync::Arc<dyn Communicator>) -> Result<ShardedOptimizer, ParallelError> {
        let config = Config::default();
        let choice = OptimizerChoice::from_config(&Registry::collect()?, &config)?;
        let layout = ParallelLayout::new(&config.parallel, comm.size()).expect("data parallel only");
        let groups = ProcessGroups::new(&layout, comm)?;
        let specs = vec![ParamSpec { name: "w".into(), shape: vec![100, 100], decay: true }];
        ShardedOptimizer::new(specs, vec![0.5; 10_000], groups, &choice, ZeroConfig::from_config(&config)?)
    }

    #[test]
    fn a_full_disk_on_one_rank_is_everyones_error_and_leaves_only_the_older_checkpoint() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let errors = run_ranks(3, |comm| -> Result<String, ParallelError> {
            let full = comm.rank() == 1;
            let optimizer = optimizer(comm)?;
            let request = |step| SaveRequest {
                dir: dir.path(),
                step,
                config_hash: "",
                plugins: &[],
                trainer: &serde_json::Value::Null,
            };
            save(&request(1), &optimizer)?;
            // The device that is always full.
            let create = |path: &Path| File::create(if full { Path::new("/dev/full") } else { path });
            Ok(save_through(&create, &request(2), &optimizer).expect_err("the disk is full").to_string())
        });
        for (rank, error) in errors.expect("the ranks go on").iter().enumerate() {
            assert!(error.contains("the disk is full"), "{error}");
            assert!(error.contains("model-00002-of-00003.safetensors"), "{error}");
            assert!(rank == 1 || error.starts_with("rank 1:"), "{error}");
        }
        let left: Vec<_> = fs::read_dir(dir.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(left, ["step-00000001"]);
    }
}
