//! InternEvo's keys that have no effect in this version, each with the reason or the key to use instead.
//!
//! A section stands for everything below it.

/// What to say about `key`, if it is one of InternEvo's that is not supported here.
pub(super) fn unsupported(key: &str) -> Option<String> {
    let (_, reason) = UNSUPPORTED.iter().find(|(name, _)| *name == key)?;
    Some(match reason {
        Reason::Renamed(to) => format!("is written `{to}` here"),
        Reason::Missing(what) => {
            format!("is an InternEvo key that this version does not support: {what}")
        }
    })
}

enum Reason {
    /// The same thing under another key.
    Renamed(&'static str),
    /// What the key does, and why it has no effect here.
    Missing(&'static str),
}
use Reason::{Missing, Renamed};

const MOE: Reason = Missing("mixture of experts");
const BLOCK_FORM: Reason = Missing("the InternLM2 block (pre-RMSNorm, no bias) is the only one");
const LOSS_SCALE: Reason = Missing("loss scaling belongs to float16, and training runs in float32");
const GPU: Reason = Missing("it is a GPU setting, and this version trains on the CPU");
const REMOTE: Reason = Missing("checkpoints are written to local folders only");
const ALERT: Reason = Missing("alerts to chat services and the slow-node diagnosis");
const TENSORBOARD: Reason =
    Missing("TensorBoard files are in `tb/` of the run directory when `monitor.sinks` names `tensorboard`");

/// Keys of configs/*.py, internlm/initialize/launch.py and the development branch.
const UNSUPPORTED: &[(&str, Reason)] = &[
    ("JOB_NAME", Renamed("job_name")),
    ("SEED", Renamed("seed")),
    ("use_fp32_norm", Missing("everything is float32 already")),
    ("metric_dtype", Missing("metrics are float64")),
    ("enable_tb", TENSORBOARD),
    ("tensorboard_folder", TENSORBOARD),
    ("resume_tb_folder", TENSORBOARD),
    ("cudnn_deterministic", GPU),
    ("cudnn_benchmark", GPU),
    ("grad_scaler", LOSS_SCALE),
    ("moe", MOE),
    ("generation", Missing("sampling is a matter of `internevo generate` and `monitor.prompts`")),
    ("fp8", GPU),
    ("use_fp8", GPU),
    ("ckpt.load_ckpt_info", Renamed("ckpt.load_ckpt_folder` and `ckpt.load_ckpt_content")),
    ("ckpt.load_model_only_folder", Renamed("ckpt.load_ckpt_folder` with `ckpt.load_ckpt_content = [\"model\"]")),
    ("ckpt.oss_snapshot_freq", Missing("snapshots between checkpoints")),
    ("ckpt.snapshot_ckpt_folder", Missing("snapshots between checkpoints")),
    ("ckpt.async_upload", REMOTE),
    ("ckpt.async_upload_tmp_folder", REMOTE),
    ("ckpt.universal_ckpt", Missing("every checkpoint can be loaded on any layout already")),
    ("ckpt.need_metadata", Missing("every checkpoint carries its state table")),
    ("data.type", Missing("the form of `data.train_folder` is recognised from its files")),
    ("data.packed_length", Missing("it is `data.seq_len` * `data.micro_bsz`")),
    ("data.gradient_accumulation", Renamed("data.micro_num")),
    ("data.use_packed_dataset", Missing("data is always packed")),
    ("data.use_shm", Missing("datasets are memory-mapped")),
    ("data.skip_batches", Missing("skipping batches")),
    ("data.rampup_batch_size", Missing("batch size ramp-up")),
    ("data.min_length_dict", Missing("a minimum length per data type; `data.min_length` holds for all")),
    ("data.num_worker", Missing("loading needs no worker processes")),
    ("data.diag_outlier_ratio", ALERT),
    ("data.empty_cache_and_diag_interval", ALERT),
    ("data.tokenizer_path", Renamed("tokenizer.file")),
    ("data.vocab_file", Renamed("tokenizer.file")),
    ("hybrid_zero_optimizer.overlap_sync_param", Missing("parameters are gathered before the next step begins")),
    ("hybrid_zero_optimizer.use_split_tensor_optim", Missing("the optimizer always works on flat shards")),
    ("hybrid_zero_optimizer.all_gather_size", Missing("parameters are gathered in one piece")),
    ("loss.moe_loss_coeff", MOE),
    ("loss.op_type", Missing("there is one cross-entropy; `model.kernels` chooses its implementation")),
    ("adam.adam_beta2_c", Renamed("beta2_scheduler.c")),
    ("lr_scheduler.last_epoch", Missing("a resumed run knows its step")),
    ("beta2_scheduler.cur_iter", Missing("a resumed run knows its step")),
    ("model.embed_grad_scale", Missing("scaling of the embedding gradient")),
    ("model.apply_post_layer_norm", BLOCK_FORM),
    ("model.no_bias", BLOCK_FORM),
    ("model.norm_type", BLOCK_FORM),
    ("model.residual_in_fp32", Missing("everything is float32 already")),
    (
        "model.use_flash_attn",
        Missing("attention over packed segments is the only one; `model.kernels` chooses its implementation"),
    ),
    ("model.num_chunks", Missing("interleaved pipeline stages")),
    ("model.adapt_hf", Missing("rotary embeddings are always HF's rotate-half")),
    ("model.qk_interleaved", Missing("rotary embeddings are always HF's rotate-half")),
    ("model.use_dynamic_ntk_rope", Missing("dynamic NTK scaling of rotary embeddings")),
    ("model.rope_scaling", Missing("scaling of rotary embeddings")),
    (
        "model.max_position_embeddings",
        Missing("rotary embeddings have no maximum; `data.seq_len` is the training length"),
    ),
    ("model.norm_head", Missing("normalised rows of the head")),
    ("model.num_experts", MOE),
    ("model.moe_use_residual", MOE),
    ("model.moe_type", MOE),
    ("parallel.pipeline.interleaved_overlap", Missing("interleaved pipeline stages")),
    ("parallel.pipeline.mode", Missing("pipeline schedules")),
    ("parallel.pipeline.batch_p2p_comm", Missing("pipeline schedules")),
    ("parallel.tensor.tp_overlap", Missing("overlap of activation gathers with matrix products")),
    ("parallel.weight.memory_pool", Missing("gathered weights are freed as soon as they have been used")),
    ("parallel.expert", MOE),
    ("parallel.expert_weight", MOE),
    ("parallel.expert_zero1", MOE),
    ("parallel.sequence_2D.window_size", Missing("the ring passes one block at a time")),
    (
        "parallel.sequence_2D.device_placement_strategy.interleaved",
        Missing("context groups are split by zig-zag, which balances causal attention"),
    ),
    ("parallel.sequence_parallel", Renamed("parallel.tensor.mode")),
    ("monitor.alert", ALERT),
    ("monitor.tensorboard", TENSORBOARD),
    ("monitor.light_monitor_address", ALERT),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, known::KnownKeys};

    #[test]
    fn no_key_is_listed_twice_or_exists() {
        let known = KnownKeys::new();
        let mut names: Vec<_> = UNSUPPORTED.iter().map(|(name, _)| *name).collect();
        for name in &names {
            let mut at = Some(toml::Value::Table(known.defaults().clone()));
            for part in name.split('.') {
                at = at.and_then(|v| v.get(part).cloned());
            }
            assert_eq!(at, None, "`{name}` is supported");
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_key_to_use_instead_exists() {
        let text = toml::to_string(&Config::default()).expect("TOML");
        for (name, reason) in UNSUPPORTED {
            let Renamed(to) = reason else { continue };
            for key in to.split('`').filter(|part| !part.contains(' ')) {
                let leaf = key.rsplit('.').next().expect("a name");
                assert!(text.contains(&format!("{leaf} = ")), "{name} -> {key}");
            }
        }
    }
}
