//! The importer on a file in the form of InternEvo's own examples, and on what Python's grammar has in store.

use proptest::prelude::*;

use super::*;
use crate::config::{LoadRequest, Resolved, load};

/// The statements and idioms of configs/7B_internlm2.py and configs/7B_isp_sft.py.
const SOURCE: &str = r##"
import os
JOB_NAME = "7b_train"
model_type = "INTERNLM2_PUBLIC"
DO_ALERT = False

SEQ_LEN = 2048
HIDDEN_SIZE = 4096
NUM_ATTENTION_HEAD = 32
NUM_KV_ATTENTION_HEAD = 8
MLP_RATIO = 3.5
VOCAB_SIZE = 92_544
SAVE_CKPT_FOLDER = f"local:llm_ckpts/{JOB_NAME}/{SEQ_LEN}"  # a comment = with an equals sign
BUCKET = os.environ["BUCKET"]
CHECKPOINT_EVERY = 50
ckpt = dict(
    enable_save_ckpt=not_defined_here,
    save_ckpt_folder=SAVE_CKPT_FOLDER,
    load_ckpt_info=dict(path="local:llm_ckpts/49", content=("model",), ckpt_type="internevo"),
    # load_ckpt_info=dict(path="local:other"),
    checkpoint_every=CHECKPOINT_EVERY,
    async_upload=True,
    oss_snapshot_freq=int(CHECKPOINT_EVERY / 2),
)
TRAIN_FOLDER = None
data = {
    "seq_len": SEQ_LEN,
    "micro_num": 2 ** 2,
    "micro_bsz": 7 // 3,
    "total_steps": 50_000 if not_this else 3,
    "valid_every": -(-100 // 3),
    "train_folder": TRAIN_FOLDER,
}
data = dict(data, total_steps=10 * 50 + 0x10 % 5)
grad_scaler = dict(fp16=dict(initial_scale=2**16))
hybrid_zero_optimizer = dict(reduce_bucket_size=512 * 1024 * 1024, overlap_sync_grad=True)
adam = dict(lr=1e-4, adam_beta1=.9, adam_beta2=0.95, adam_beta2_c=0, adam_eps=1e-8, weight_decay=0.01)
lr_scheduler = dict(total_steps=data["total_steps"], init_steps=0, warmup_ratio=0.01, eta_min=1e-5, last_epoch=-1)
beta2_scheduler = dict(init_beta2=adam["adam_beta2"], c=adam["adam_beta2_c"])
use_fp32_norm = False
model = dict(
    checkpoint=False, num_attention_heads=NUM_ATTENTION_HEAD, hidden_size=HIDDEN_SIZE, num_layers=32,
    num_kv_attention_heads=NUM_KV_ATTENTION_HEAD, mlp_ratio=MLP_RATIO, multiple_of=256, vocab_size=VOCAB_SIZE,
    dtype="torch.bfloat16",
)
"""
zero1 parallel (dict):
    1. size: int = "anything" (
"""
parallel = dict(
    zero1=8,
    tensor=dict(size=1, mode="mtp"),
    pipeline=dict(size=1, interleaved_overlap=True),
)
if DO_ALERT:
    monitor = dict(log_every=0)
"##;

fn loaded(imported: &ImportedPy) -> Resolved {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), &imported.toml).expect("write");
    let request = LoadRequest {
        files: vec![file.path().to_owned()],
        sets: vec!["launch.ranks=8".into()],
        ..LoadRequest::default()
    };
    load(&request).unwrap_or_else(|e| panic!("{e}\n{}", imported.toml))
}

#[test]
fn an_internevo_file_becomes_a_configuration_that_loads() {
    let config = loaded(&import_py(SOURCE).expect("readable")).config;
    assert_eq!((config.job_name.as_str(), config.model_type.as_str()), ("7b_train", "INTERNLM2_PUBLIC"));
    assert_eq!((config.model.ffn_size(), config.model.head_dim(), config.model.vocab_size), (14336, 128, 92544));
    let data = &config.data;
    assert_eq!((data.seq_len, data.micro_num, data.micro_bsz, data.total_steps), (2048, 4, 2, 501));
    assert_eq!((data.valid_every, data.train_folder.as_str()), (34, ""));
    assert_eq!(
        (config.ckpt.save_ckpt_folder.as_str(), config.ckpt.checkpoint_every),
        ("local:llm_ckpts/7b_train/2048", 50)
    );
    assert_eq!(
        (config.ckpt.load_ckpt_folder.as_str(), config.ckpt.load_ckpt_content),
        ("local:llm_ckpts/49", vec!["model".into()])
    );
    assert_eq!(
        (config.lr_scheduler.total_steps, config.adam.adam_beta1, config.beta2_scheduler.init_beta2),
        (501, 0.9, 0.95)
    );
    assert_eq!((config.parallel.zero1.size, config.hybrid_zero_optimizer.reduce_bucket_size), (8, 1 << 29));
}

#[test]
fn everything_left_out_is_named_with_its_line() {
    let skipped = import_py(SOURCE).expect("readable").skipped;
    let line = |text: &str| SOURCE.lines().position(|l| l.contains(text)).expect("a line") + 1;
    let expected = [
        (line("import os"), "import"),
        (line("enable_save_ckpt"), "ckpt.enable_save_ckpt"),
        (line("ckpt_type="), "ckpt.load_ckpt_info.ckpt_type"),
        (line("async_upload"), "ckpt.async_upload"),
        (line("oss_snapshot_freq"), "ckpt.oss_snapshot_freq"),
        (line("grad_scaler"), "grad_scaler"),
        (line("adam_beta2_c=0"), "adam.adam_beta2_c"),
        (line("last_epoch"), "lr_scheduler.last_epoch"),
        (line("use_fp32_norm"), "use_fp32_norm"),
        (line("torch.bfloat16"), "model.dtype"),
        (line("interleaved_overlap"), "parallel.pipeline.interleaved_overlap"),
        (line("if DO_ALERT"), "if"),
        (line("log_every=0"), "monitor"),
    ];
    assert_eq!(skipped.len(), expected.len(), "{skipped:#?}");
    for (line, key) in expected {
        assert!(skipped.iter().any(|s| s.starts_with(&format!("line {line}: {key}: "))), "{line} {key}: {skipped:#?}");
    }
}

#[test]
fn what_internevo_assumes_is_written_out() {
    let source = "model_type = 'INTERNLM2'\nmodel = dict(hidden_size=4096, num_attention_heads=32, mlp_ratio=8 / 3)\n\
        data = dict(micro_num=3)\nckpt = dict(load_ckpt_info=dict(path='new', content='model'), load_ckpt_folder='old')";
    let config = loaded(&import_py(source).expect("readable")).config;
    assert_eq!((config.model.ffn_size(), config.model.num_kv_attention_heads), (11008, 32));
    assert_eq!((config.data.valid_micro_num, config.ckpt.load_ckpt_folder.as_str()), (3, "new"));
}

fn value_of(expression: &str) -> Value {
    let tokens = lexer::statements(expression).expect("tokens").remove(0).tokens;
    let names = BTreeMap::from([("a".to_owned(), Value::Int(7)), ("s".to_owned(), Value::Str("x".into()))]);
    expression::evaluate(&tokens, &names).unwrap_or_else(Value::Unknown)
}

#[test]
fn arithmetic_is_pythons() {
    // By Python's rules: floor division and modulo round towards minus infinity, `**` binds to the right.
    for (expression, value) in [
        ("-2 ** 2", -4),
        ("2 ** 3 ** 2", 512),
        ("-7 // 2", -4),
        ("7 // -2", -4),
        ("-7 // -2", 3),
        ("-7 % 3", 2),
        ("7 % -3", -2),
        ("-7 % -3", -1),
        ("2 + 3 * (4 - 1)", 11),
        ("int(-7 / 2)", -3),
        ("1 if a else 2", 1),
        ("[1, 2, 3][-1]", 3),
        ("1_000", 1000),
        ("0o17", 15),
    ] {
        assert_eq!(value_of(expression), Value::Int(value), "{expression}");
    }
    for (expression, value) in [("1 / 4", 0.25), ("2 ** -1", 0.5), ("-7.5 // 2", -4.0), ("1e3", 1000.0), ("5.", 5.0)] {
        assert_eq!(value_of(expression), Value::Float(value), "{expression}");
    }
    for (expression, value) in [
        ("'a' \"b\" f'{a}{{}}{s}'", "ab7{}x"),
        (r"r'\n' '\n\'\q'", "\\n\n'\\q"),
        ("'''x\ny'''", "x\ny"),
        ("str(1.0) + s", "1.0x"),
    ] {
        assert_eq!(value_of(expression), Value::Str(value.into()), "{expression}");
    }
    assert_eq!(value_of("(1,)"), Value::List(vec![Value::Int(1)]));
    assert_eq!(value_of("(1)"), Value::Int(1));
    for unknown in
        ["2 ** 64", "1 / 0", "1 // 0", "f'{a:03d}'", "a.b", "open('x')", "lambda: 1", "1 < 2", "[x for x in a]"]
    {
        assert!(matches!(value_of(unknown), Value::Unknown(_)), "{unknown}");
    }
}

#[test]
fn an_unclosed_bracket_or_string_is_an_error_with_its_line() {
    let line = |source: &str| import_py(source).expect_err("unclosed").line;
    assert_eq!(
        [line("a = 1\nb = dict(\nc = 2\n"), line("a = 1\n\nb = 'x\n"), line("a = '''\n\n"), line(")\n")],
        [2, 3, 1, 1]
    );
    assert_eq!([line("a = 'x\\"), line("a = 1\nb = 3x")], [1, 2]);
}

#[test]
fn deep_nesting_is_refused_rather_than_overflowing_the_stack() {
    for source in ["(".repeat(100_000) + &")".repeat(100_000), "-".repeat(100_000) + "1"] {
        let imported = import_py(&format!("seed = {source}")).expect("tokens");
        assert!(imported.skipped[0].contains("nested too deeply"));
    }
}

proptest! {
    #[test]
    fn no_source_makes_the_importer_panic(source in "(data|dict|seed|=|\\(|\\)|\\[|\\]|\\{|\\}|,|:|\"|'|\\*\\*|/|//|%|-|\\\\|f\"|#| |\n|[0-9a-f.é_]){0,40}") {
        if let Ok(imported) = import_py(&source) {
            prop_assert!(imported.toml.parse::<Table>().is_ok());
        }
    }

    #[test]
    fn integer_division_and_remainder_hold_pythons_identity(a in -1000i64..1000, b in -50i64..50) {
        prop_assume!(b != 0);
        let (a, b) = (Value::Int(a), Value::Int(b));
        let (quotient, remainder) = (a.binary("//", &b), a.binary("%", &b));
        prop_assert_eq!(quotient.binary("*", &b).binary("+", &remainder), a);
        let (Value::Int(b), Value::Int(r)) = (b, remainder) else { panic!("integers") };
        prop_assert!(r == 0 || (r < 0) == (b < 0) && r.abs() < b.abs());
    }
}
