//! Layers, provenance and messages, through the public interface.

use std::{fs, path::PathBuf};

use proptest::prelude::*;

use super::*;
use crate::{
    flops::{ModelShape, parameters},
    plugin::PluginError,
};

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary folder"))
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("write");
        path
    }
}

fn sets(arguments: &[&str]) -> LoadRequest {
    LoadRequest { sets: arguments.iter().map(|s| (*s).to_owned()).collect(), ..LoadRequest::default() }
}

fn messages(request: &LoadRequest) -> Vec<String> {
    load(request).expect_err("mistakes").0.iter().map(ToString::to_string).collect()
}

/// The messages for a file with this text, without the folder in front of its name.
fn messages_of(text: &str) -> Vec<String> {
    let files = Files::new();
    let request = LoadRequest { files: vec![files.write("a.toml", text)], ..LoadRequest::default() };
    let folder = format!("{}/", files.0.path().display());
    messages(&request).into_iter().map(|m| m.replace(&folder, "")).collect()
}

fn environment(variables: &[(&str, &str)]) -> LoadRequest {
    let env = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    LoadRequest { env, ..LoadRequest::default() }
}

#[test]
fn nothing_but_defaults_is_the_default_configuration() {
    let resolved = load(&LoadRequest::default()).expect("defaults are valid");
    assert_eq!(resolved.config, Config::default());
    assert_eq!(resolved.origin_of("data.seq_len").expect("a key").layer, Layer::Default);
    assert_eq!(resolved.origin_of("data"), None);
}

#[test]
fn each_layer_wins_over_those_before_it_and_says_so() {
    let files = Files::new();
    let first = files.write("first.toml", "seed = 1\n[data]\nmicro_num = 11\nmicro_bsz = 11\nvalid_every = 11\n");
    let second = files.write("second.toml", "[data]\nmicro_bsz = 22\nvalid_every = 22\n");
    let request = LoadRequest {
        preset: Some("tiny".into()),
        files: vec![first.clone(), second.clone()],
        env: vec![
            ("INTERNEVO_DATA__VALID_EVERY".into(), "33".into()),
            ("INTERNEVO_DATA__MIN_LENGTH".into(), "33".into()),
        ],
        sets: vec!["data.min_length=44".into()],
    };
    let resolved = load(&request).expect("valid");
    let data = &resolved.config.data;
    let found =
        [data.total_steps, data.micro_num, data.micro_bsz, data.valid_every, data.min_length, data.valid_micro_num];
    assert_eq!(found, [500, 11, 22, 33, 44, 16]);
    let origin = |key| resolved.origin_of(key).expect("a key").to_string();
    assert!(origin("data.total_steps").starts_with("preset tiny:"), "{}", origin("data.total_steps"));
    assert_eq!(origin("data.micro_num"), format!("{}:3:1", first.display()));
    assert_eq!(origin("data.micro_bsz"), format!("{}:2:1", second.display()));
    assert_eq!(origin("data.valid_every"), "environment INTERNEVO_DATA__VALID_EVERY");
    assert_eq!(origin("data.min_length"), "--set data.min_length=44");
    assert_eq!(origin("data.valid_micro_num"), "default");
}

#[test]
fn a_config_with_many_mistakes_lists_each_once_with_its_place() {
    let text = r#"job_name = "x"
[data]
seq_len = "long"
seq_length = 3
micro_num = -1
[modle]
hidden_size = 3
num_layers = 2
[model]
checkpoint = "most"
hidden_size = 100
num_attention_heads = 8
dtype = "torch.bfloat16"
[parallel]
tensor = { size = 4, mode = "mtpp" }
[monitor]
prompts = ["a", 7]
[grad_scaler.fp16]
initial_scale = 65536
min_scale = 1
[adam]
lr = nan
"#;
    let expected = [
        r#"a.toml:3:1: data.seq_len: expected a whole number, 0 or more, found string "long""#,
        "a.toml:4:1: data.seq_length: unknown key; did you mean `data.seq_len`?",
        "a.toml:5:1: data.micro_num: expected a whole number, 0 or more, found integer `-1`",
        "a.toml:7:1: modle: unknown key; did you mean `model`?",
        "a.toml:10:1: model.checkpoint: expected true, false, a fraction from 0 to 1, or \"selective\", found string \"most\"",
        "a.toml:17:1: monitor.prompts: item 2: expected a string, found integer `7`",
        "a.toml:19:1: grad_scaler: is an InternEvo key that this version does not support: loss scaling",
        "a.toml:22:1: adam.lr: NaN is not a finite number",
        "a.toml:11:1: model.hidden_size: 100 is not a multiple of 8 heads",
        "a.toml:13:1: model.dtype: `torch.bfloat16`: only `torch.float32` is supported",
        "a.toml:15:12: parallel.tensor.size: the 1 ranks of a stage cannot be split into tensor groups of 4",
    ];
    let found = messages_of(text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn every_syntax_error_has_line_and_column() {
    let found = messages_of("a = \n[data]\nseq_len = 12x\n");
    assert!(found[0].starts_with("a.toml:1:") && found.iter().any(|m| m.starts_with("a.toml:3:")), "{found:?}");
    let found = messages_of("seed = 1\nseed = 2\n");
    assert!(found[0].starts_with("a.toml:2:1: not valid TOML"), "{found:?}");
}

#[test]
fn a_missing_file_and_one_that_is_not_utf8_are_named() {
    let files = Files::new();
    let binary = files.write("binary.toml", b"seed = 1\nx = \xff\n");
    let found = messages(&LoadRequest { files: vec!["/no/such.toml".into(), binary], ..LoadRequest::default() });
    assert!(found[0].starts_with("/no/such.toml: cannot read the file"), "{found:?}");
    assert!(found[1].contains("binary.toml: not UTF-8 (line 2, column 5)"), "{found:?}");
}

#[test]
fn values_of_set_and_environment_are_toml_or_else_strings() {
    let request = LoadRequest {
        env: vec![("INTERNEVO_RUN_DIR".into(), "a b/c".into()), ("INTERNEVO_ADAM__LR".into(), "1e-3".into())],
        ..sets(&[
            "job_name=17",
            "monitor.prompts=[\"x = 1\"]",
            "parallel.zero1=-1",
            "corpus.rust_docs=false",
            "adam.adam_beta2=0",
        ])
    };
    let config = load(&request).expect("valid").config;
    assert_eq!((config.run_dir.as_str(), config.job_name.as_str(), config.adam.lr), ("a b/c", "17", 1e-3));
    assert_eq!((config.monitor.prompts, config.corpus.rust_docs), (vec!["x = 1".to_owned()], false));
    assert_eq!(config.adam.adam_beta2, 0.0);
    let found = messages(&sets(&["data.seq_len=x", "seed", "=3", "data..x=1"]));
    assert!(
        found.iter().any(|m| m.starts_with("--set data.seq_len=x: data.seq_len: expected a whole number")),
        "{found:?}"
    );
    assert_eq!(found.iter().filter(|m| m.contains("expected KEY=VALUE")).count(), 3, "{found:?}");
    let found = messages(&environment(&[("INTERNEVO_DATA__SEQ_LEM", "4")]));
    assert_eq!(found, ["environment INTERNEVO_DATA__SEQ_LEM: data.seq_lem: unknown key; did you mean `data.seq_len`?"]);
}

#[test]
fn variables_of_other_tools_are_not_configuration_but_misspelt_keys_are() {
    load(&environment(&[("INTERNEVO_PEERS", "venv"), ("INTERNEVO_LOG", "debug"), ("PATH", "/bin")])).expect("ignored");
    assert_eq!(messages(&environment(&[("INTERNEVO_SEDE", "3")])).len(), 1);
}

#[test]
fn a_size_may_stand_for_its_section() {
    let files = Files::new();
    let path =
        files.write("a.toml", "[launch]\nranks = 8\n[parallel]\nzero1 = 4\ntensor = 1\npipeline = 1\nweight = 1\n");
    let resolved = load(&LoadRequest { files: vec![path], ..LoadRequest::default() }).expect("valid");
    assert_eq!(resolved.config.parallel.zero1.size, 4);
    assert!(resolved.location("parallel.zero1.size").expect("a key").ends_with(":4:1"));
    let found = messages(&sets(&["launch.ranks=8", "parallel.zero1=3"]));
    assert_eq!(
        found,
        ["--set parallel.zero1=3: parallel.zero1.size: the data group of 8 cannot be split into ZeRO groups of 3"]
    );
}

#[test]
fn a_rule_is_reported_where_it_was_last_touched_and_not_on_top_of_a_type_error() {
    let request = LoadRequest { preset: Some("tiny".into()), ..sets(&["model.num_attention_heads=7"]) };
    let found = messages(&request);
    assert!(
        found.iter().all(|m| m.starts_with("--set model.num_attention_heads=7: model.num_attention_heads: ")),
        "{found:?}"
    );
    assert_eq!(found.len(), 2, "neither the width nor the key/value heads fit: {found:?}");
    let found = messages(&sets(&["model.hidden_size=big", "model.num_attention_heads=12"]));
    assert_eq!(found.len(), 1, "{found:?}");
}

/// One argument for every rule and every way to break it.
const BROKEN: &[&str] = &[
    "job_name=a/b",
    "job_name=..",
    "model_type=LLAMA2",
    "run_dir=",
    "launch.ranks=0",
    "corpus.valid_fraction=0.6",
    "corpus.inputs=['']",
    "pipeline.stages=['format','dedup','clean']",
    "pipeline.stages=['format','clean','clean']",
    "pipeline.stages=['clean']",
    "pipeline.stages=['format','clear']",
    "pipeline.clean=['a','a']",
    "pipeline.strategy=[{quality=['a','a']}]",
    "pipeline.strategy=[{sauce='x'}]",
    "pipeline.dedup.bands=0",
    "pipeline.dedup.rows=0",
    "pipeline.dedup.ngram=0",
    "pipeline.dedup.threshold=0",
    "pipeline.dedup.threshold=1.1",
    "pipeline.dedup.keep=oldest",
    "tokenizer.vocab_size=256",
    "model.vocab_size=1000",
    "data.seq_len=0",
    "data.seq_len=1",
    "data.micro_bsz=0",
    "data.micro_num=0",
    "data.valid_micro_num=0",
    "data.total_steps=0",
    "data.micro_bsz=100000000",
    "model.hidden_size=0",
    "model.num_layers=0",
    "model.num_attention_heads=0",
    "model.num_kv_attention_heads=0",
    "model.num_kv_attention_heads=3",
    "model.hidden_size=250",
    "model.hidden_size=200",
    "model.vocab_multiple=0",
    "model.multiple_of=0",
    "model.mlp_ratio=0",
    "model.layer_norm_epsilon=0",
    "model.rope_base=1",
    "model.dtype=torch.float16",
    "model.kernels=cuda",
    "model.init_type=zeros",
    "model.embedding_init_std=-1",
    "parallel.tensor=2",
    "parallel.pipeline=2",
    "parallel.weight=2",
    "parallel.zero1.stage=4",
    "parallel.sequence_2D.enable=true",
    "parallel.weight.forward_overlap_per=block",
    "parallel.weight.launch_allgather_before=w2",
    "launch.communicator=tcp",
    "launch.timeout=0",
    "launch.recorded_calls=0",
    "parallel.zero1=2",
    "parallel.tensor=0",
    "hybrid_zero_optimizer.reduce_bucket_size=3",
    "hybrid_zero_optimizer.clip_grad_norm=-1",
    "hybrid_zero_optimizer.reduction=ring",
    "loss.label_smoothing=1",
    "optimizer.kind=",
    "adam.lr=0",
    "adam.adam_beta1=1",
    "adam.adam_beta2=-0.1",
    "adam.adam_eps=0",
    "adam.weight_decay=-0.1",
    "lr_scheduler.kind=",
    "lr_scheduler.warmup_ratio=1.5",
    "lr_scheduler.decay_ratio=-1",
    "lr_scheduler.eta_min=1",
    "lr_scheduler.init_steps=100",
    "beta2_scheduler.init_beta2=1",
    "beta2_scheduler.c=-1",
    "ckpt.load_ckpt_content=['weights']",
    "ckpt.load_ckpt_content=[]",
    "ckpt.save_ckpt_folder=boto3:s3://b",
    "monitor.log_every=0",
    "monitor.sinks=['jsonl','jsonl']",
    "monitor.peak_tflops=-1",
    "monitor.prompts=['']",
    "monitor.sample_tokens=0",
    "adam.lr=inf",
    "pipeline.filter.x=3",
    "pipeline.dedup.settings.x=3",
    "monitor.sink.jsonl.x=nan",
];

#[test]
fn every_rule_can_be_broken() {
    for argument in BROKEN {
        let found = messages(&sets(&[argument]));
        assert!(found.iter().all(|m| m.starts_with(&format!("--set {argument}: "))), "{argument}: {found:?}");
        let key = argument.split('=').next().expect("a key");
        assert!(found.iter().any(|m| m.contains(key)), "{argument}: {found:?}");
    }
}

#[test]
fn tables_of_plugins_pass_through_and_can_be_located() {
    let files = Files::new();
    let text = "[pipeline.filter.gopher_quality]\nmin_words = 10\nnested.a = 1\n[monitor.sink.\"odd.name\"]\nx = 1\n\
                [pipeline.dedup.settings.simhash]\nbits = 3\n";
    let path = files.write("a.toml", text);
    let request = LoadRequest { files: vec![path.clone()], ..sets(&["pipeline.filter.gopher_quality.max_words=99"]) };
    let resolved = load(&request).expect("valid");
    let table = resolved.config.pipeline.filter["gopher_quality"].as_table().expect("a table");
    assert_eq!((table["min_words"].as_integer(), table["max_words"].as_integer()), (Some(10), Some(99)));
    assert_eq!(table["nested"]["a"].as_integer(), Some(1));
    assert_eq!(resolved.config.monitor.sink["odd.name"]["x"].as_integer(), Some(1));
    assert_eq!(resolved.config.pipeline.dedup.settings["simhash"]["bits"].as_integer(), Some(3));
    let section = "pipeline.filter.gopher_quality";
    let complaint = |key: &str| PluginError::Config { plugin: "gopher_quality", key: key.into(), reason: "no".into() };
    let located = |key: &str| resolved.locate(section, &complaint(key)).to_string();
    assert_eq!(located("min_words"), format!("{}:2:1: {section}.min_words: no", path.display()));
    assert_eq!(located("max_words"), format!("--set {section}.max_words=99: {section}.max_words: no"));
    assert_eq!(located("."), format!("{}:2:1: {section}: no", path.display()));
}

#[test]
fn strategies_are_read_in_order_and_survive_the_dump() {
    let files = Files::new();
    let text = "[[pipeline.strategy]]\nsource = 'cc-*'\nquality = ['perplexity']\nfilter.perplexity.en.high = 800.0\n\
                [[pipeline.strategy]]\ntype = 'book'\nclean = []\n";
    let resolved = load(&LoadRequest { files: vec![files.write("a.toml", text)], ..sets(&[]) }).expect("valid");
    let pipeline = &resolved.config.pipeline;
    assert_eq!((pipeline.strategy[0].source.as_str(), pipeline.strategy[1].kind.as_str()), ("cc-*", "book"));
    assert_eq!(pipeline.strategy[0].filter["perplexity"]["en"]["high"].as_float(), Some(800.0));
    assert_eq!(
        (pipeline.strategy[1].filters("clean"), pipeline.strategy[1].filters("safe")),
        (Some([].as_slice()), None)
    );
    assert_eq!(pipeline.all_filters("quality").collect::<Vec<_>>(), ["quality_classifier", "perplexity"]);
    let dumped = files.write("dumped.toml", resolved.to_toml());
    assert_eq!(load(&LoadRequest { files: vec![dumped], ..sets(&[]) }).expect("valid").config, resolved.config);
}

#[test]
fn an_unknown_preset_lists_the_known_ones() {
    let found = messages(&LoadRequest { preset: Some("tinny".into()), ..LoadRequest::default() });
    assert!(found[0].contains("did you mean `tiny`?") && found[0].contains("internlm2-20b"), "{found:?}");
}

#[test]
fn the_dump_loads_to_the_same_configuration_and_names_every_origin() {
    let files = Files::new();
    for preset in presets() {
        let extra = ["monitor.prompts=[\"a # b\\n\", \"\\\"\"]", "pipeline.filter.\u{e9}.x=[1, 2]", "job_name=ü = '#'"];
        let request = LoadRequest { preset: Some(preset.name.into()), ..sets(&extra) };
        let resolved = load(&request).expect("valid");
        for (name, text) in [("plain.toml", resolved.to_toml()), ("commented.toml", resolved.to_commented_toml())] {
            let again = LoadRequest { files: vec![files.write(name, &text)], ..LoadRequest::default() };
            assert_eq!(load(&again).expect("a dump is valid").config, resolved.config, "{text}");
        }
        let text = resolved.to_commented_toml();
        let line = |start: &str| text.lines().find(|l| l.starts_with(start)).expect("a key").to_owned();
        assert!(line("seed = ").ends_with("  # default"), "{text}");
        assert!(line("num_layers = ").contains(&format!("# preset {}:", preset.name)), "{text}");
        assert!(line("job_name = ").ends_with("  # --set job_name=ü = '#'"), "{text}");
        assert!(!text.contains("set by the program"), "{text}");
    }
}

#[test]
fn presets_of_internlm2_have_the_exact_dimensions() {
    for (name, ffn, count, batch) in [
        ("internlm2-1_8b", 8192, 1_889_110_016, 4 << 20),
        ("internlm2-7b", 14336, 7_737_708_544, 4 << 20),
        ("internlm2-20b", 16384, 19_861_149_696, 5 << 20),
    ] {
        let config = load(&LoadRequest { preset: Some(name.into()), ..LoadRequest::default() }).expect("valid").config;
        let (model, data) = (&config.model, &config.data);
        assert_eq!((model.ffn_size(), model.head_dim(), model.num_kv_attention_heads), (ffn, 128, 8), "{name}");
        assert_eq!(parameters(&ModelShape::new(model, model.vocab_size)), count, "{name}");
        assert_eq!(data.seq_len * data.micro_bsz * data.micro_num * config.launch.ranks, batch, "{name}");
        assert_eq!((model.rope_base, model.layer_norm_epsilon, config.job_name.as_str()), (1e6, 1e-5, name));
        assert!((config.lr_scheduler.eta_min / config.adam.lr - 0.1).abs() < 1e-12, "{name}");
    }
}

#[test]
fn presets_are_valid_and_named_after_themselves() {
    for preset in presets() {
        let request = LoadRequest { preset: Some(preset.name.into()), ..LoadRequest::default() };
        assert_eq!(load(&request).expect("valid").config.job_name, preset.name);
    }
    let tiny = load(&LoadRequest { preset: Some("tiny".into()), ..LoadRequest::default() }).expect("valid").config;
    assert_eq!((tiny.model.ffn_size(), tiny.launch.ranks), (704, 2));
}

#[test]
fn the_schema_describes_every_key() {
    let schema = schema();
    fn section<'a>(schema: &'a serde_json::Value, root: &'a serde_json::Value) -> &'a serde_json::Value {
        let reference = schema.get("$ref").and_then(|r| r.as_str());
        reference.and_then(|r| root.pointer(r.trim_start_matches('#'))).unwrap_or(schema)
    }
    fn walk(table: &toml::Table, here: &serde_json::Value, root: &serde_json::Value, path: &str) {
        for (key, value) in table {
            let property = here.pointer(&format!("/properties/{key}")).unwrap_or_else(|| panic!("{path}{key}"));
            let described =
                property.get("description").is_some() || section(property, root).get("description").is_some();
            assert!(described, "{path}{key} has no description");
            if let Some(inner) = value.as_table().filter(|t| !t.is_empty()) {
                walk(inner, section(property, root), root, &format!("{path}{key}."));
            }
        }
    }
    let defaults = toml::Table::try_from(Config::default()).expect("TOML");
    walk(&defaults, &schema, &schema, "");
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "([a-z_.\"=\\[\\]{}#0-9 \n-]|data|seq_len|parallel|zero1|filter|pipeline){0,60}") {
        let files = Files::new();
        let request = LoadRequest { files: vec![files.write("a.toml", &text)], sets: vec![text], ..LoadRequest::default() };
        let _ = load(&request);
    }

    #[test]
    fn a_value_survives_every_layer(seq_len in 2usize..100_000, lr in 1e-9f64..1.0) {
        let files = Files::new();
        let file = files.write("a.toml", format!("data.seq_len = {seq_len}\nadam.lr = {lr:e}\nlr_scheduler.eta_min = 0"));
        let pairs = [("DATA__SEQ_LEN", seq_len.to_string()), ("ADAM__LR", lr.to_string()), ("LR_SCHEDULER__ETA_MIN", "0".into())];
        let requests = [
            LoadRequest { files: vec![file], ..LoadRequest::default() },
            LoadRequest { env: pairs.iter().map(|(k, v)| (format!("INTERNEVO_{k}"), v.clone())).collect(), ..LoadRequest::default() },
            LoadRequest {
                sets: pairs.iter().map(|(k, v)| format!("{}={v}", k.replace("__", ".").to_lowercase())).collect(),
                ..LoadRequest::default()
            },
        ];
        for request in requests {
            let config = load(&request).expect("valid").config;
            prop_assert_eq!((config.data.seq_len, config.adam.lr), (seq_len, lr));
        }
    }
}
