//! Reading a checkpoint onto any layout: every rank reads the slices of its own shard.

use std::{collections::HashSet, path::Path};

use super::{
    CheckpointError, CheckpointState, FORMAT, Found,
    error::together,
    manifest::{Manifest, STATE},
    state_key,
    tensors::{TensorIndex, read_json},
};
use crate::{ParallelError, state::ParamSpec, zero::ShardedOptimizer};

/// What to take from a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The parameters alone; the optimizer starts anew (`load_ckpt_content = ["model"]`).
    Model,
    /// Parameters and optimizer: training goes on as if it had not stopped.
    Everything,
}

/// Loads a checkpoint, whatever layout it was written on. Collective over the world. Returns what `state.json` holds, the
/// trainer's own state among it.
///
/// # Errors
/// On every rank, when any rank finds a tensor missing, of another shape, truncated or with a NaN, or when the checkpoint is of another model or optimizer. The optimizer must not be used after an error.
pub fn load(
    checkpoint: &Found,
    optimizer: &mut ShardedOptimizer,
    content: Content,
) -> Result<CheckpointState, ParallelError> {
    let world = optimizer.groups.world.clone();
    let state = together(&*world, read_shard(checkpoint.path(), optimizer, content))?;
    optimizer.gather_params()?;
    if content == Content::Everything {
        (optimizer.updates, optimizer.skipped) = (state.updates, state.skipped_steps);
    }
    Ok(state)
}

fn read_shard(
    path: &Path,
    optimizer: &mut ShardedOptimizer,
    content: Content,
) -> Result<CheckpointState, CheckpointError> {
    let state = read_state(path)?;
    let index = TensorIndex::open(path, &Manifest::read(path)?.tensor_files())?;
    check_model(path, optimizer.plan.specs(), &index)?;
    let (table, pieces) = (optimizer.table.clone(), optimizer.pieces.clone());
    // This rank's elements of one kind of state into a shard.
    let read = |buffer: &str, shard: &mut [f32]| -> Result<(), CheckpointError> {
        for piece in &pieces {
            let param = &table.params()[piece.param];
            let key = if buffer.is_empty() { param.spec.name.clone() } else { state_key(buffer, &param.spec.name) };
            for run in param.slab.runs(&piece.flat) {
                let at = piece.at.start + run.local - piece.flat.start;
                index.read(&key, run.global, &mut shard[at..at + run.len])?;
            }
        }
        Ok(())
    };
    let mut shard = optimizer.shard();
    read("", &mut shard)?;
    optimizer.write_shard(&shard);
    if content == Content::Everything {
        check_optimizer(path, &state, optimizer)?;
        for (buffer, values) in optimizer.optimizer.state_mut() {
            read(buffer, values)?;
        }
        for whole in optimizer.optimizer.whole_state_mut() {
            index.read(&state_key(whole.name, &table.params()[whole.param].spec.name), 0, whole.values)?;
        }
    }
    Ok(state)
}

/// Every parameter of the model is there with its shape, and nothing else is.
fn check_model(path: &Path, specs: &[ParamSpec], index: &TensorIndex) -> Result<(), CheckpointError> {
    for ParamSpec { name, shape: expected, .. } in specs {
        let Some((shape, file)) = index.shape(name) else {
            return Err(CheckpointError::tensor(path, name, "is missing"));
        };
        if shape != expected {
            let reason = format!("has shape {shape:?}, the model needs {expected:?}");
            return Err(CheckpointError::tensor(file, name, reason));
        }
    }
    let known: HashSet<&str> = specs.iter().map(|s| s.name.as_str()).collect();
    let unknown = |name: &&str| !name.starts_with("optimizer.") && !known.contains(name);
    match index.names().filter(unknown).min() {
        Some(name) => Err(CheckpointError::tensor(path, name, "is not part of the model")),
        None => Ok(()),
    }
}

fn check_optimizer(path: &Path, state: &CheckpointState, optimizer: &ShardedOptimizer) -> Result<(), CheckpointError> {
    if state.optimizer.kind == optimizer.kind {
        return Ok(());
    }
    let reason = format!("was written by optimizer `{}`, this job uses `{}`", state.optimizer.kind, optimizer.kind);
    Err(CheckpointError::Incompatible { path: path.to_owned(), reason })
}

/// Reads `state.json` of a checkpoint.
///
/// # Errors
/// When the file is missing, cannot be read or has a newer format.
pub fn read_state(path: &Path) -> Result<CheckpointState, CheckpointError> {
    let file = path.join(STATE);
    let state: CheckpointState = read_json(&file)?;
    if state.format > FORMAT {
        let reason = format!("has format {}, this program reads up to {FORMAT}", state.format);
        return Err(CheckpointError::damaged(file, reason));
    }
    Ok(state)
}

/// Reads all parameters of a checkpoint, flat and in the order of its table; for export and generation. Not collective.
///
/// # Errors
/// As [`load`].
pub fn read_model(path: &Path) -> Result<(CheckpointState, Vec<f32>), CheckpointError> {
    let state = read_state(path)?;
    let index = TensorIndex::open(path, &Manifest::read(path)?.tensor_files())?;
    check_model(path, &state.parameters, &index)?;
    let mut flat = vec![0.0; state.parameters.iter().map(ParamSpec::elements).sum()];
    let mut start = 0;
    for spec in &state.parameters {
        index.read(&spec.name, 0, &mut flat[start..start + spec.elements()])?;
        start += spec.elements();
    }
    Ok((state, flat))
}
