//! The strategy `isp`.

use std::sync::Arc;

use internevo_core::plugin::{NoSettings, Plugin, PluginError};
use internevo_kernels::{
    CrossEntropy, KernelSet, QkvLayout, attention, attention::Runs, burn::tensor::Tensor, embedding,
    linear_cross_entropy,
};

use super::{Placement, heads::HeadExchange, ring::Ring};
use crate::{
    comm::Communicator,
    register_strategy,
    strategy::{LossOptions, Region, Role, Strategy, StrategyContext, StrategyPlugin},
};

/// The `isp` plugin.
pub struct IspPlugin;

impl Plugin for IspPlugin {
    const NAME: &'static str = "isp";
    const ABOUT: &'static str = "Sequence parallelism with gathered weights: tokens divided everywhere, heads exchanged or a ring around attention.";
    type Config = NoSettings;
}

impl StrategyPlugin for IspPlugin {
    fn build(_: NoSettings, cx: &StrategyContext<'_>) -> Result<Arc<dyn Strategy>, PluginError> {
        let (heads, contexts) = (cx.groups.head.clone(), cx.groups.context.clone());
        let placement =
            Placement { heads: heads.size(), head: heads.rank(), contexts: contexts.size(), context: contexts.rank() };
        Ok(Arc::new(Isp { placement, heads, contexts }))
    }
}

register_strategy!(IspPlugin);

struct Isp {
    placement: Placement,
    heads: Arc<dyn Communicator>,
    contexts: Arc<dyn Communicator>,
}

impl Strategy for Isp {
    fn split(&self, _: Role) -> Option<usize> {
        None
    }

    fn residual(&self, tokens: usize) -> Runs {
        self.placement.own(tokens)
    }

    fn region(&self, tokens: usize) -> Runs {
        self.placement.own(tokens)
    }

    fn splits_tokens(&self) -> bool {
        true
    }

    fn splits_loss(&self) -> bool {
        true
    }

    fn heads(&self, layout: QkvLayout) -> QkvLayout {
        layout
    }

    fn embed(&self, set: KernelSet, weight: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
        let own: Vec<u32> = self.placement.own(tokens.len()).tokens().map(|t| tokens[t]).collect();
        embedding(set, weight, &own)
    }

    fn enter(&self, x: Tensor<2>) -> Region {
        Region { x, recall: None }
    }

    fn leave(&self, partial: Tensor<2>) -> Tensor<2> {
        partial
    }

    fn attend(&self, set: KernelSet, qkv: Tensor<2>, layout: QkvLayout, cu_seqlens: &[u32]) -> Tensor<2> {
        let exchange = (self.heads.size() > 1).then(|| HeadExchange::new(self.heads.clone(), layout));
        let (qkv, divided) = match &exchange {
            Some(exchange) => (exchange.scatter(qkv), exchange.divided()),
            None => (qkv, layout),
        };
        let output = match self.contexts.size() {
            1 => attention(set, qkv, divided, cu_seqlens),
            _ => {
                let ring = Ring { group: self.contexts.clone(), placement: self.placement };
                ring.attend(qkv, divided, cu_seqlens)
            }
        };
        match &exchange {
            Some(exchange) => exchange.gather(output),
            None => output,
        }
    }

    fn loss(&self, set: KernelSet, hidden: Tensor<2>, weight: Tensor<2>, options: LossOptions<'_>) -> CrossEntropy {
        let own = self.placement.own(options.labels.len());
        let labels: Vec<i32> = own.tokens().map(|t| options.labels[t]).collect();
        linear_cross_entropy(set, hidden, weight, &labels, options.label_smoothing, options.scale)
    }
}
