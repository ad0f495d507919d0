//! Checkpoints: resuming on any layout, and everything that can be wrong with one.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use common::{Mlp, Setup, bits, train};
use internevo_parallel::{
    ParallelError, ShardedOptimizer,
    checkpoint::{self, Content, SaveRequest, newest_complete, prune, read_model, read_state, verify},
    comm::{Communicator, run_ranks},
};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::json;

type Outcome<T> = Result<T, ParallelError>;

fn save(dir: &Path, step: u64, optimizer: &ShardedOptimizer) -> Outcome<PathBuf> {
    let plugins = ["optimizer adamw".to_owned()];
    let trainer = json!({ "tokens": 4096 });
    let request = SaveRequest { dir, step, config_hash: "c0ffee", plugins: &plugins, trainer: &trainer };
    Ok(checkpoint::save(&request, optimizer)?)
}

/// Trains `steps` steps and saves; returns the parameters.
fn train_and_save(setup: Setup, dir: &Path, steps: u64) -> Vec<f32> {
    let result = run_ranks(setup.ranks, |comm| -> Outcome<_> {
        let rank = comm.rank();
        let mut optimizer = setup.optimizer(comm)?;
        train(&mut optimizer, &setup, rank, 0..steps)?;
        let path = save(dir, steps, &optimizer)?;
        assert!(path.ends_with(format!("step-{steps:08}")));
        Ok(optimizer.params().to_vec())
    });
    result.unwrap_or_else(|e| panic!("{setup:?}: {e}")).swap_remove(0)
}

fn resume(setup: &Setup, comm: Arc<dyn Communicator>, dir: &Path) -> Outcome<(ShardedOptimizer, u64)> {
    let search = checkpoint::find(&*comm, dir)?;
    let mut optimizer = setup.optimizer(comm)?;
    let found = search.found.expect("a checkpoint");
    let state = checkpoint::load(&found, &mut optimizer, Content::Everything)?;
    assert_eq!((state.step, state.trainer), (found.step(), json!({ "tokens": 4096 })));
    Ok((optimizer, state.step))
}

fn resume_error(dir: &Path, model: impl Fn() -> Setup + Sync) -> String {
    let setup = model();
    run_ranks(setup.ranks, |comm| resume(&setup, comm, dir).map(drop)).expect_err("refused").to_string()
}

#[test]
fn a_run_that_is_resumed_on_any_layout_ends_with_the_bits_of_an_uninterrupted_one() {
    let straight = {
        let dir = tempfile::tempdir().expect("temporary folder");
        train_and_save(Setup::new(1, 1), dir.path(), 10)
    };
    for writer in [Setup::new(4, 2), Setup::new(2, 1)] {
        let dir = tempfile::tempdir().expect("temporary folder");
        train_and_save(writer, dir.path(), 6);
        for reader in [Setup::new(1, 1), Setup::new(2, 2), Setup::new(4, 4), Setup::new(4, 1)] {
            let ends = run_ranks(reader.ranks, |comm| -> Outcome<_> {
                let rank = comm.rank();
                let (mut optimizer, step) = resume(&reader, comm, dir.path())?;
                assert_eq!((step, optimizer.updates()), (6, 6));
                train(&mut optimizer, &reader, rank, step..10)?;
                Ok(bits(optimizer.params()))
            });
            let ends = ends.unwrap_or_else(|e| panic!("{reader:?}: {e}"));
            assert!(ends.iter().all(|end| *end == bits(&straight)), "{writer:?} to {reader:?}");
        }
    }
}

#[test]
fn a_run_killed_in_the_middle_of_a_step_resumes_from_the_last_checkpoint() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let setup = Setup::new(2, 2);
    let killed = run_ranks(2, |comm| -> Outcome<()> {
        let rank = comm.rank();
        let mut optimizer = setup.optimizer(comm)?;
        train(&mut optimizer, &setup, rank, 0..5)?;
        save(dir.path(), 5, &optimizer)?;
        train(&mut optimizer, &setup, rank, 5..7)?;
        assert!(rank == 0, "killed");
        train(&mut optimizer, &setup, rank, 7..10).map(drop)
    });
    assert!(killed.expect_err("a rank died").to_string().contains("killed"));
    // What a save leaves when it is killed.
    fs::create_dir(dir.path().join(".step-00000007.tmp")).expect("create");
    let ends = run_ranks(2, |comm| -> Outcome<_> {
        let rank = comm.rank();
        let (mut optimizer, step) = resume(&setup, comm, dir.path())?;
        train(&mut optimizer, &setup, rank, step..10)?;
        save(dir.path(), 10, &optimizer)?;
        Ok(bits(optimizer.params()))
    });
    let other = tempfile::tempdir().expect("temporary folder");
    assert!(ends.expect("resumes")[0] == bits(&train_and_save(setup, other.path(), 10)));
    let search = newest_complete(dir.path()).expect("listed");
    assert_eq!(search.found.as_ref().expect("found").step(), 10);
    assert!(search.rejected[0].why.contains("half-written"), "{search:?}");
    prune(dir.path(), 1).expect("pruned");
    let left: Vec<_> = fs::read_dir(dir.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(left, ["step-00000010"]);
}

#[test]
fn the_model_alone_starts_a_fresh_optimizer() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let params = train_and_save(Setup::new(2, 2), dir.path(), 3);
    let found = verify(dir.path().join("step-00000003")).expect("whole");
    let setup = Setup::new(1, 1);
    let loaded = run_ranks(1, |comm| -> Outcome<_> {
        let mut optimizer = setup.optimizer(comm)?;
        checkpoint::load(&found, &mut optimizer, Content::Model)?;
        assert_eq!(optimizer.updates(), 0);
        Ok(optimizer.params().to_vec())
    });
    assert!(bits(&loaded.expect("loads")[0]) == bits(&params));
    let (state, flat) = read_model(found.path()).expect("reads");
    assert!(bits(&flat) == bits(&params) && state.parameters == Mlp::new().specs());
}

#[test]
fn the_files_are_safetensors_that_torch_distributed_checkpoint_can_place() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let params = train_and_save(Setup::new(4, 4), dir.path(), 2);
    let folder = dir.path().join("step-00000002");
    let mut covered = std::collections::BTreeMap::<String, Vec<(usize, usize)>>::new();
    for entry in fs::read_dir(&folder).expect("list") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|e| e != "safetensors") {
            continue;
        }
        let bytes = fs::read(&path).expect("read");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let metadata = header.metadata().clone().expect("metadata");
        assert_eq!((metadata["format"].as_str(), metadata["DCP_VERSION"].as_str()), ("pt", "1.0"));
        let sharding: serde_json::Value = serde_json::from_str(&metadata["DCP_SHARDING_INFO"]).expect("json");
        for (name, view) in SafeTensors::deserialize(&bytes).expect("whole").tensors() {
            let offsets = sharding[&name]["saved_offsets"].as_array().expect("an offset for every tensor");
            assert_eq!(offsets.len(), view.shape().len(), "{name}");
            assert!(offsets.iter().all(|o| o.as_u64() == Some(0)), "{name} is stored whole");
            covered.entry(name).or_default().push((0, view.shape().iter().product()));
        }
    }
    for spec in Mlp::new().specs() {
        for name in ["", "optimizer.exp_avg.", "optimizer.exp_avg_sq."].map(|p| format!("{p}{}", spec.name)) {
            let runs = covered.get_mut(&name).unwrap_or_else(|| panic!("{name} is not stored"));
            runs.sort_unstable();
            let end =
                runs.iter().fold(0, |at, (start, len)| if *start == at { at + len } else { panic!("{name} has gaps") });
            assert_eq!(end, spec.elements(), "{name}");
        }
    }
    assert!(bits(&read_model(&folder).expect("reads").1) == bits(&params));
}

/// Two checkpoints, the newer one about to be damaged.
fn two_checkpoints() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let setup = Setup::new(2, 2);
    train_and_save(setup, dir.path(), 1);
    train_and_save(setup, dir.path(), 2);
    let newest = dir.path().join("step-00000002");
    (dir, newest)
}

#[test]
fn a_damaged_checkpoint_is_skipped_with_a_reason_that_names_the_file() {
    let file = "optimizer-00002-of-00002.safetensors";
    let flip = |path: &Path| {
        let mut bytes = fs::read(path.join(file)).expect("read");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(path.join(file), bytes).expect("write");
    };
    let truncate = |path: &Path| {
        let bytes = fs::read(path.join(file)).expect("read");
        fs::write(path.join(file), &bytes[..bytes.len() / 2]).expect("write");
    };
    let remove = |path: &Path| fs::remove_file(path.join(file)).expect("remove");
    let unfinished = |path: &Path| fs::remove_file(path.join("manifest.json")).expect("remove");
    let garbage = |path: &Path| fs::write(path.join("manifest.json"), "{").expect("write");
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(Damage<'_>, &str, &str); 5] = [
        (&flip, file, "altered"),
        (&truncate, file, "bytes instead of"),
        (&remove, file, "cannot read"),
        (&unfinished, "manifest.json", "not finished"),
        (&garbage, "manifest.json", "cannot be read"),
    ];
    for (damage, name, reason) in cases {
        let (dir, newest) = two_checkpoints();
        damage(&newest);
        let search = newest_complete(dir.path()).expect("listed");
        assert_eq!(search.found.expect("the older one is whole").step(), 1);
        let why = &search.rejected[0].why;
        assert!(why.contains(name) && why.contains(reason) && search.rejected.len() == 1, "{why}");
        assert!(verify(&newest).is_err());
    }
}

/// Rewrites a safetensors file and the manifest, so that only the content is wrong.
fn rewrite(folder: &Path, file: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(folder.join(file)).expect("read");
    change(&mut bytes);
    fs::write(folder.join(file), &bytes).expect("write");
    let path = folder.join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("json");
    for record in manifest["files"].as_array_mut().expect("a list") {
        if record["name"] == file {
            record["size"] = json!(bytes.len());
            record["blake3"] = json!(blake3::hash(&bytes).to_hex().to_string());
        }
    }
    fs::write(path, manifest.to_string()).expect("write");
}

#[test]
fn wrong_content_is_an_error_that_names_file_and_tensor() {
    let replace = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let at = bytes.windows(from.len()).rposition(|w| w == from.as_bytes()).expect("in the header");
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        }
    };
    let nan = |bytes: &mut Vec<u8>| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(&str, Change<'_>, &[&str]); 4] = [
        ("model-00002-of-00002.safetensors", &nan, &["model-00002-of-00002", "`w2.weight`", "not a number"]),
        (
            "optimizer-00001-of-00002.safetensors",
            &nan,
            &["optimizer-00001-of-00002", "`optimizer.exp_avg_sq.w1.bias`", "not a number"],
        ),
        ("model-00002-of-00002.safetensors", &replace("[65,96]", "[96,65]"), &["`w2.weight`", "[96, 65]", "[65, 96]"]),
        ("model-00001-of-00002.safetensors", &replace("\"w1.bias\"", "\"w1.mess\""), &["`w1.bias`", "missing"]),
    ];
    for (file, change, expected) in cases {
        let (dir, newest) = two_checkpoints();
        rewrite(&newest, file, change);
        let message = resume_error(dir.path(), || Setup::new(2, 2));
        assert!(expected.iter().all(|e| message.contains(e)), "{message}");
    }
}

#[test]
fn saving_the_same_step_again_replaces_it_and_keeps_what_the_state_says() {
    let dir = tempfile::tempdir().expect("temporary folder");
    train_and_save(Setup::new(2, 1), dir.path(), 2);
    train_and_save(Setup::new(4, 4), dir.path(), 2);
    let found = newest_complete(dir.path()).expect("listed").found.expect("whole");
    let state = read_state(found.path()).expect("reads");
    assert_eq!((state.layout.world, state.layout.zero1, state.config_hash.as_str()), (4, 4, "c0ffee"));
    assert_eq!(
        (state.optimizer.kind.as_str(), state.optimizer.state),
        ("adamw", vec!["exp_avg".into(), "exp_avg_sq".into()])
    );
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    assert!(newest_complete(&dir.path().join("absent")).expect("no error").found.is_none());
}

#[test]
fn pruning_keeps_the_newest_and_touches_nothing_else() {
    let dir = tempfile::tempdir().expect("temporary folder");
    for step in 1..=4 {
        train_and_save(Setup::new(1, 1), dir.path(), step);
    }
    fs::create_dir(dir.path().join("notes")).expect("create");
    assert!(prune(dir.path(), 0).expect("pruned").is_empty());
    let removed = prune(dir.path(), 2).expect("pruned");
    assert_eq!(removed, ["step-00000001", "step-00000002"].map(|n| dir.path().join(n)));
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 3);
    assert_eq!(newest_complete(dir.path()).expect("listed").found.expect("whole").step(), 4);
}

mod resharding {
    use internevo_core::{config::Config, layout::ParallelLayout, plugin::Registry, rng::CounterRng};
    use internevo_parallel::{ParamSpec, ProcessGroups, StatePlan, ZeroConfig, optimizer::OptimizerChoice};

    use super::*;

    fn optimizer(comm: Arc<dyn Communicator>, specs: &[ParamSpec], zero1: i64, fill: f32) -> Outcome<ShardedOptimizer> {
        let mut config = Config::default();
        config.parallel.zero1.size = zero1;
        let layout = ParallelLayout::new(&config.parallel, comm.size()).expect("sound");
        let choice = OptimizerChoice::from_config(&Registry::collect()?, &config)?;
        let total = specs.iter().map(ParamSpec::elements).sum();
        let zero = ZeroConfig::from_config(&config)?;
        let groups = ProcessGroups::new(&layout, comm)?;
        let plan = StatePlan::replicated(specs.to_vec(), layout, 10_000)?;
        ShardedOptimizer::new(plan, vec![fill; total], groups, &choice, zero)
    }

    /// One update with a random gradient: afterwards parameters and state tell what was loaded.
    fn update(optimizer: &mut ShardedOptimizer, name: &str) -> Outcome<Vec<u32>> {
        let rng = CounterRng::new(9, name);
        optimizer.accumulate(|flat| flat.iter_mut().enumerate().for_each(|(i, g)| *g = rng.normal(i as u64) as f32))?;
        optimizer.step(1e-2, 0.95)?;
        Ok(bits(optimizer.params()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn any_table_survives_any_change_of_layout(
            shapes in prop::collection::vec(prop::collection::vec(0usize..90, 0..3), 1..8),
            from in 1usize..5,
            to in 1usize..5,
        ) {
            let spec = |(i, shape): (usize, &Vec<usize>)| {
                ParamSpec { name: format!("layers.{i}.weight"), shape: shape.clone(), decay: i % 2 == 0 }
            };
            let specs: Vec<ParamSpec> = shapes.iter().enumerate().map(spec).collect();
            let dir = tempfile::tempdir().expect("temporary folder");
            let write = run_ranks(from, |comm| -> Outcome<()> {
                let mut optimizer = optimizer(comm, &specs, -1, 0.5)?;
                update(&mut optimizer, "first")?;
                save(dir.path(), 1, &optimizer).map(drop)
            });
            write.expect("written");
            // Gradients are the same on every rank, so the sum over `to` ranks differs from one rank's by a factor that
            // clipping takes out only approximately: compare `to` ranks with and without sharding.
            let read = |zero1: i64| run_ranks(to, |comm| -> Outcome<_> {
                let found = checkpoint::find(&*comm, dir.path())?.found.expect("whole");
                let mut optimizer = optimizer(comm, &specs, zero1, 0.0)?;
                checkpoint::load(&found, &mut optimizer, Content::Everything)?;
                let loaded = bits(optimizer.params());
                Ok((loaded, update(&mut optimizer, "second")?))
            }).expect("read");
            let (sharded, whole) = (read(-1), read(1));
            let stored = bits(&read_model(&dir.path().join("step-00000001")).expect("reads").1);
            prop_assert!(sharded.iter().chain(&whole).all(|(loaded, _)| *loaded == stored));
            prop_assert!(sharded.iter().chain(&whole).all(|(_, next)| *next == whole[0].1));
        }
    }
}
