//! Writing a checkpoint: every writer its own files, then one rank commits.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use internevo_core::{
    layout::GroupKind,
    storage::{StorageError, create_dir_all, sync_parent, write_atomic},
};

use super::{
    CheckpointError, CheckpointState, FORMAT, SavedLayout, SavedOptimizer,
    error::together,
    folder::{remove_dir, step_name, temporary_name},
    manifest::{FileRecord, MANIFEST, Manifest, STATE},
    state_key,
    tensors::{Announced, Writer},
};
use crate::{
    comm::gather_bytes,
    optimizer::WholeState,
    state::{Assignment, ParamSpec},
    zero::ShardedOptimizer,
};

/// Elements that are brought together at a time: 64 MiB.
const BATCH: usize = 16 << 20;

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

/// Brings the state together, parameter by parameter, and writes what this rank is the writer of. Collective over the ranks of
/// each copy of the state; those of the first copy write.
fn write_tensors(
    create: Create<'_>,
    folder: &Path,
    optimizer: &ShardedOptimizer,
) -> Result<Vec<FileRecord>, CheckpointError> {
    if optimizer.groups.zero1_replica.rank() != 0 {
        return Ok(Vec::new());
    }
    let shard = optimizer.shard();
    let whole = optimizer.optimizer.whole_state();
    let files = FileWriter { create, folder, optimizer, assignments: assignments(optimizer) };
    let model = files.write("model", &[("", &shard)], &[]);
    let state = files.write("optimizer", &optimizer.optimizer.state(), &whole);
    Ok(vec![model?, state?])
}

/// Which rank of the state's copy writes which parameter: by where its middle lies among all elements.
fn assignments(optimizer: &ShardedOptimizer) -> Vec<Assignment> {
    let specs = optimizer.plan.specs();
    let (total, writers) = (specs.iter().map(ParamSpec::elements).sum::<usize>().max(1), optimizer.exchange.ranks());
    let mut start = 0;
    let assign = |(param, spec): (usize, &ParamSpec)| {
        let middle = start + spec.elements() / 2;
        start += spec.elements();
        Assignment { param, owner: (middle * writers / total).min(writers - 1) }
    };
    specs.iter().enumerate().map(assign).collect()
}

/// Writes this rank's files of one checkpoint.
struct FileWriter<'a> {
    create: Create<'a>,
    folder: &'a Path,
    optimizer: &'a ShardedOptimizer,
    assignments: Vec<Assignment>,
}

impl FileWriter<'_> {
    /// Writes the file `kind` with `buffers`, each an element per element of the shard, and with `whole` vectors. After a failed
    /// write this rank still takes part in the exchange to its end.
    fn write(
        &self,
        kind: &str,
        buffers: &[(&str, &[f32])],
        whole: &[WholeState<&[f32]>],
    ) -> Result<FileRecord, CheckpointError> {
        let exchange = &self.optimizer.exchange;
        let (writer, writers) = (exchange.rank() + 1, exchange.ranks());
        let path = self.folder.join(format!("{kind}-{writer:05}-of-{writers:05}.safetensors"));
        let whole: Vec<_> = whole.iter().filter(|w| self.owns(w.param)).collect();
        let mut header = Vec::new();
        for (buffer, _) in buffers {
            let own = self.assignments.iter().filter(|a| a.owner == exchange.rank());
            header.extend(own.map(|a| self.announce(buffer, a.param, exchange.shape(a.param))));
        }
        header.extend(whole.iter().map(|w| self.announce(w.name, w.param, &[w.values.len()])));

        let file = (self.create)(&path).map_err(|e| StorageError::at("create", &path)(e).into());
        let mut output = file.and_then(|file| Writer::begin(file, &path, &header));
        let mut put = |values: &[f32]| {
            if let Ok(writer) = &mut output
                && let Err(error) = writer.put(values)
            {
                output = Err(error);
            }
        };
        for (_, values) in buffers {
            for batch in self.batches() {
                let tensors = exchange.gather(batch, values)?;
                tensors.iter().for_each(|(_, tensor)| put(tensor));
            }
        }
        whole.iter().for_each(|state| put(state.values));
        output?.finish()
    }

    fn owns(&self, param: usize) -> bool {
        self.assignments[param].owner == self.optimizer.exchange.rank()
    }

    fn announce(&self, buffer: &str, param: usize, shape: &[usize]) -> Announced {
        let name = &self.optimizer.plan.specs()[param].name;
        let name = if buffer.is_empty() { name.clone() } else { state_key(buffer, name) };
        Announced { name, shape: shape.to_vec() }
    }

    /// Consecutive assignments of at most [`BATCH`] elements, at least one each.
    fn batches(&self) -> impl Iterator<Item = &[Assignment]> {
        let elements = |a: &Assignment| self.optimizer.plan.specs()[a.param].elements();
        let mut rest = self.assignments.as_slice();
        std::iter::from_fn(move || {
            let mut sum = 0;
            let fits = rest.iter().take_while(|a| {
                sum += elements(a);
                sum <= BATCH
            });
            let (batch, after) = rest.split_at(fits.count().max(1).min(rest.len()));
            rest = after;
            (!batch.is_empty()).then_some(batch)
        })
    }
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
    let layout = optimizer.plan.layout();
    let size = |kind| layout.size(kind);
    CheckpointState {
        format: FORMAT,
        step: request.step,
        updates: optimizer.updates,
        skipped_steps: optimizer.skipped,
        layout: SavedLayout {
            world: layout.world(),
            data: size(GroupKind::Data),
            zero1: size(GroupKind::Zero1),
            tensor: size(GroupKind::Tensor),
            weight: size(GroupKind::Weight),
        },
        optimizer: SavedOptimizer {
            kind: optimizer.kind.to_owned(),
            state: optimizer.optimizer.state().iter().map(|(name, _)| (*name).to_owned()).collect(),
        },
        config_hash: request.config_hash.to_owned(),
        plugins: request.plugins.to_vec(),
        parameters: optimizer.plan.specs().to_vec(),
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
        state::StatePlan,
    };

    fn optimizer(comm: std::sync::Arc<dyn Communicator>) -> Result<ShardedOptimizer, ParallelError> {
        let config = Config::default();
        let choice = OptimizerChoice::from_config(&Registry::collect()?, &config)?;
        let layout = ParallelLayout::new(&config.parallel, comm.size()).expect("data parallel only");
        let groups = ProcessGroups::new(&layout, comm)?;
        let specs = vec![ParamSpec { name: "w".into(), shape: vec![100, 100], decay: true }; 3];
        let specs = specs.into_iter().enumerate().map(|(i, s)| ParamSpec { name: format!("w{i}"), ..s }).collect();
        let plan = StatePlan::replicated(specs, layout, 1 << 20)?;
        ShardedOptimizer::new(plan, vec![0.5; 30_000], groups, &choice, ZeroConfig::from_config(&config)?)
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
