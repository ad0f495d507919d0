//! The strategies `mtp`, `msp` and `fsp`.

use std::{ops::Range, sync::Arc};

use internevo_core::plugin::{NoSettings, Plugin, PluginError};
use internevo_kernels::{CrossEntropy, KernelSet, QkvLayout, attention, attention::Runs, burn::tensor::Tensor};

use super::{
    collectives::{copy_to_ranks, gather_rows, gather_rows_again, reduce_from_ranks, scatter_rows},
    vocab::Vocab,
};
use crate::{
    comm::Communicator,
    register_strategy,
    state::share_of,
    strategy::{LossOptions, Region, Role, Strategy, StrategyContext, StrategyPlugin},
};

/// Which tokens a rank's residual stream holds, and what its tape keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// All tokens.
    Mtp,
    /// A share; the gathered input of a region is kept.
    Msp,
    /// A share; the gathered input is gathered again.
    Fsp,
}

/// One of the three modes on one rank.
struct Megatron {
    mode: Mode,
    group: Arc<dyn Communicator>,
    vocab: Vocab,
}

impl Megatron {
    fn new(mode: Mode, cx: &StrategyContext<'_>) -> Self {
        let group = cx.groups.tensor.clone();
        let model = &cx.config.model;
        let vocab = Vocab {
            rows: cx.vocab,
            hidden: cx.hidden,
            by_columns: model.embed_split_hidden,
            keeps_logits_divided: model.parallel_output,
            group: group.clone(),
        };
        Self { mode, group, vocab }
    }

    fn own_tokens(&self, tokens: usize) -> Range<usize> {
        match self.mode {
            Mode::Mtp => 0..tokens,
            _ => share_of(tokens, self.group.rank(), self.group.size()),
        }
    }
}

impl Strategy for Megatron {
    fn split(&self, role: Role) -> Option<usize> {
        match role {
            Role::Embedding => Some(usize::from(self.vocab.by_columns)),
            Role::Column | Role::Head => Some(0),
            Role::Row => Some(1),
            Role::Norm => None,
        }
    }

    fn residual(&self, tokens: usize) -> Runs {
        Runs::from(self.own_tokens(tokens))
    }

    fn region(&self, tokens: usize) -> Runs {
        Runs::from(0..tokens)
    }

    fn splits_tokens(&self) -> bool {
        self.mode != Mode::Mtp
    }

    fn splits_loss(&self) -> bool {
        false
    }

    fn heads(&self, layout: QkvLayout) -> QkvLayout {
        QkvLayout { kv_heads: layout.kv_heads / self.group.size(), ..layout }
    }

    fn embed(&self, set: KernelSet, weight: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
        if self.vocab.by_columns {
            return self.vocab.embed_columns(set, weight, tokens, self.splits_tokens());
        }
        self.leave(self.vocab.embed_rows(weight, tokens))
    }

    fn enter(&self, x: Tensor<2>) -> Region {
        match self.mode {
            Mode::Mtp => Region { x: copy_to_ranks(x, &self.group), recall: None },
            Mode::Msp => Region { x: gather_rows(x, &self.group), recall: None },
            Mode::Fsp => {
                let (x, recall) = gather_rows_again(x, &self.group);
                Region { x, recall: Some(recall) }
            }
        }
    }

    fn leave(&self, partial: Tensor<2>) -> Tensor<2> {
        match self.mode {
            Mode::Mtp => reduce_from_ranks(partial, &self.group),
            Mode::Msp | Mode::Fsp => scatter_rows(partial, &self.group),
        }
    }

    fn attend(&self, set: KernelSet, qkv: Tensor<2>, layout: QkvLayout, cu_seqlens: &[u32]) -> Tensor<2> {
        attention(set, qkv, layout, cu_seqlens)
    }

    fn loss(&self, set: KernelSet, hidden: Tensor<2>, weight: Tensor<2>, options: LossOptions<'_>) -> CrossEntropy {
        self.vocab.loss(set, self.enter(hidden).x, weight, options)
    }
}

macro_rules! mode {
    ($plugin:ident, $mode:ident, $name:literal, $about:literal) => {
        #[doc = concat!("The `", $name, "` plugin.")]
        pub struct $plugin;

        impl Plugin for $plugin {
            const NAME: &'static str = $name;
            const ABOUT: &'static str = $about;
            type Config = NoSettings;
        }

        impl StrategyPlugin for $plugin {
            fn build(_: NoSettings, cx: &StrategyContext<'_>) -> Result<Arc<dyn Strategy>, PluginError> {
                Ok(Arc::new(Megatron::new(Mode::$mode, cx)))
            }
        }

        register_strategy!($plugin);
    };
}

mode!(MtpPlugin, Mtp, "mtp", "Megatron tensor parallelism: matrices divided, activations on every rank, all-reduce.");
mode!(
    MspPlugin,
    Msp,
    "msp",
    "Megatron with sequence parallelism: tokens divided between the regions, all-gather in and reduce-scatter out."
);
mode!(
    FspPlugin,
    Fsp,
    "fsp",
    "As msp, but the tape keeps a rank's own tokens only and gathers again in the backward pass."
);
