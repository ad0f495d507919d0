//! Damaged and foreign folders: one clear message that names file and key or tensor, and nothing overwritten.

use std::{fs, path::Path};

use internevo_kernels::KernelSet;
use internevo_model::{
    ModelError,
    hf::{ExportOptions, Format, export, export_internlm2, export_llama, import},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    hf_round_trip::{edit_config, rewrite},
    support::{random_parameters, small_spec},
};

fn exported() -> TempDir {
    let spec = small_spec(2, 2, KernelSet::Fused);
    let dir = tempfile::tempdir().expect("temporary folder");
    export_llama(dir.path(), &spec, &random_parameters(&spec, 1), None).expect("exports");
    dir
}

fn refusal(dir: &Path) -> String {
    import(dir).expect_err("must be refused").to_string()
}

#[test]
fn a_file_cut_anywhere_is_called_truncated() {
    let dir = exported();
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).expect("readable");
    for length in [0, 5, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).expect("writes");
        let message = refusal(dir.path());
        assert!(message.contains("model.safetensors") && message.contains("truncated"), "{length}: {message}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&path, longer).expect("writes");
    assert!(refusal(dir.path()).contains("too long"));
    let mut garbled = whole;
    garbled[20] = b'\x01';
    fs::write(&path, garbled).expect("writes");
    assert!(refusal(dir.path()).contains("header is damaged"));
}

#[test]
fn missing_unexpected_and_misshapen_tensors_are_listed_together() {
    let dir = exported();
    rewrite(&dir.path().join("model.safetensors"), |name, tensor| {
        if name == "model.layers.1.mlp.up_proj.weight" {
            tensor.shape = vec![1, tensor.shape[0] * tensor.shape[1]];
        }
        if name == "model.norm.weight" {
            tensor.dtype = safetensors::Dtype::I32;
        }
        name != "model.layers.0.self_attn.k_proj.weight"
    });
    edit_config(dir.path(), |config| config["num_hidden_layers"] = json!(1));
    let message = refusal(dir.path());
    for part in [
        "model.layers.0.self_attn.k_proj.weight is missing",
        "model.norm.weight in model.safetensors is I32",
        "model.layers.1.mlp.down_proj.weight in model.safetensors is unexpected",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    edit_config(dir.path(), |config| config["num_hidden_layers"] = json!(2));
    assert!(
        refusal(dir.path()).contains("up_proj.weight in model.safetensors is [1, 540], config.json asks for [27, 20]")
    );
}

#[test]
fn computations_that_differ_are_refused_by_key() {
    let changes: [(&str, &str, serde_json::Value); 9] = [
        ("rope_scaling", "rope_scaling", json!({ "type": "dynamic", "factor": 2.0 })),
        ("rope_parameters", "rope_parameters", json!({ "rope_type": "llama3", "rope_theta": 100.0 })),
        ("rope_theta", "rope_theta", json!(7.0)),
        ("attention_bias", "attention_bias", json!(true)),
        ("hidden_act", "hidden_act", json!("gelu")),
        ("quantization_config", "quantization_config", json!({ "bits": 4 })),
        ("model_type", "model_type", json!("mixtral")),
        ("hidden_size", "hidden_size", json!("wide")),
        ("num_key_value_heads", "num_kv_attention_heads", json!(3)),
    ];
    for (key, named, value) in changes {
        let dir = exported();
        edit_config(dir.path(), |config| config[key] = value);
        let message = refusal(dir.path());
        assert!(message.contains("config.json") && message.contains(named), "{key}: {message}");
    }
    // The classic spelling alone, the default scaling, and a null say the same as what we write.
    let dir = exported();
    edit_config(dir.path(), |config| {
        config.as_object_mut().expect("an object").remove("rope_parameters");
        config["rope_scaling"] = json!({ "type": "default" });
        config["quantization_config"] = json!(null);
    });
    assert_eq!(import(dir.path()).expect("imports").spec.rope_base, 100.0);
}

#[test]
fn an_unreadable_configuration_is_named_with_its_line() {
    let dir = exported();
    fs::write(dir.path().join("config.json"), "{\n  \"hidden_size\": ,\n}").expect("writes");
    assert!(refusal(dir.path()).contains("config.json:2:"), "{}", refusal(dir.path()));
    fs::remove_file(dir.path().join("config.json")).expect("removes");
    assert!(refusal(dir.path()).contains("config.json"));
}

#[test]
fn a_missing_shard_and_a_shard_outside_the_folder_are_refused() {
    let spec = small_spec(2, 2, KernelSet::Fused);
    let dir = tempfile::tempdir().expect("temporary folder");
    let options = ExportOptions::new(Format::Llama).with_max_shard_bytes(6_000);
    export(dir.path(), &spec, &random_parameters(&spec, 1), &options).expect("exports");
    let index = dir.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).expect("readable");
    fs::write(&index, text.replace("model-00002", "../model-00002")).expect("writes");
    assert!(refusal(dir.path()).contains("no plain file name"));
    fs::write(&index, &text).expect("writes");
    let shard = fs::read_dir(dir.path())
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .find(|p| p.to_string_lossy().contains("model-00002"))
        .expect("a second shard");
    fs::remove_file(&shard).expect("removes");
    assert!(refusal(dir.path()).contains("model-00002"));
}

#[test]
fn nothing_foreign_is_overwritten_and_a_failed_export_leaves_no_trace() {
    let spec = small_spec(2, 2, KernelSet::Fused);
    let flat = random_parameters(&spec, 1);
    let dir = tempfile::tempdir().expect("temporary folder");
    let target = dir.path().join("notes");
    fs::create_dir(&target).expect("creates");
    fs::write(target.join("thesis.tex"), "years of work").expect("writes");
    let error = export_llama(&target, &spec, &flat, None).expect_err("occupied");
    assert!(matches!(&error, ModelError::TargetOccupied { path } if *path == target), "{error}");
    assert!(target.join("thesis.tex").is_file());

    let out = dir.path().join("out");
    assert!(matches!(export_llama(&out, &spec, &flat[1..], None), Err(ModelError::ParameterCount { .. })));
    // 4 heads of 6 are 24, the model is 20 wide.
    assert!(
        export_internlm2(&out, &spec, &flat, None).expect_err("no such InternLM2").to_string().contains("head_dim")
    );
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
}
