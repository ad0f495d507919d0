//! One rank of a training job: its part of the model, its optimizer and its strategy, and what a step does with micro-batches.
//! The same for every layout. Not here: where batches come from, schedules, logging, checkpoints (the trainer).

use std::sync::Arc;

use burn::tensor::Device;
use internevo_core::{batch::PackedBatch, config::Config, layout::ParallelLayout, plugin::Registry};
use internevo_parallel::{
    MicroBatches, ParallelError, ProcessGroups, ShardedOptimizer, StepOutcome, StrategyChoice, WeightGatherer,
    ZeroConfig,
    comm::{Buffer, Communicator, ReduceOp},
    optimizer::OptimizerChoice,
    strategy::{StrategyContext, catching},
    weight::{Ahead, AheadOptions},
    zero::ShardGradient,
};

use crate::{
    decoder::{Decoder, Execution},
    error::ModelError,
    eval::{EvalSums, evaluate_on},
    init::initial_local,
    spec::{ModelSpec, state_plan},
};

/// What a step's micro-batches add up to, over all ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// Negative log-likelihood, nats.
    pub nll: f64,
    /// Labelled tokens.
    pub tokens: f64,
    /// Of these, predicted right.
    pub correct: f64,
}

impl LossSums {
    /// Mean loss, nats per token; 0 without a labelled token.
    pub fn loss(&self) -> f64 {
        self.nll / self.tokens.max(1.0)
    }

    /// Share predicted right.
    pub fn accuracy(&self) -> f64 {
        self.correct / self.tokens.max(1.0)
    }
}

/// One rank.
pub struct Engine {
    groups: ProcessGroups,
    decoder: Decoder,
    optimizer: ShardedOptimizer,
    execution: Execution,
    order: MicroBatches,
    label_smoothing: f64,
}

impl Engine {
    /// A rank of `layout` with freshly drawn weights, the same on every layout. Collective over `world`.
    ///
    /// # Errors
    /// Dimensions, plugins or settings that make no sense, or a failed world.
    pub fn new(
        spec: &ModelSpec,
        config: &Config,
        layout: &ParallelLayout,
        world: Arc<dyn Communicator>,
    ) -> Result<Self, EngineError> {
        let rank = world.rank();
        let groups = ProcessGroups::new(layout, world)?;
        let choice = StrategyChoice::from_config(&Registry::collect()?, config)?;
        let cx = StrategyContext { groups: &groups, config, vocab: spec.vocab, hidden: spec.hidden };
        let strategy = choice.build(&cx)?;
        let plan = state_plan(spec, &*strategy, layout, config.hybrid_zero_optimizer.reduce_bucket_size);
        let table = Arc::new(plan.table(rank)?);
        let initial = initial_local(spec, config.seed, &table);
        let decoder = Decoder::from_local(spec, &table, &initial, &Device::flex().autodiff())?;
        let recompute = config.model.checkpoint;
        let gatherer = plan.weight_group(&groups).map(|group| {
            let ahead = Ahead::new(&table, &AheadOptions::new(&config.parallel.weight, recompute));
            Arc::new(WeightGatherer::new(group, table.clone(), ahead))
        });
        if let Some(gatherer) = &gatherer {
            decoder.share_with(gatherer);
        }
        let optimizer = OptimizerChoice::from_config(&Registry::collect()?, config)?;
        let optimizer =
            ShardedOptimizer::new(plan, initial, groups.clone(), &optimizer, ZeroConfig::from_config(config)?)?;
        let sink = Some(optimizer.sink().clone());
        Ok(Self {
            execution: Execution { kernels: spec.kernels, strategy, gatherer, sink, recompute },
            order: MicroBatches::new(layout, config.data.micro_num),
            label_smoothing: config.loss.label_smoothing,
            groups,
            decoder,
            optimizer,
        })
    }

    /// This rank's groups.
    pub fn groups(&self) -> &ProcessGroups {
        &self.groups
    }

    /// Parameters and their optimizer.
    pub fn optimizer(&self) -> &ShardedOptimizer {
        &self.optimizer
    }

    /// For loading a checkpoint; [`Engine::refresh`] afterwards.
    pub fn optimizer_mut(&mut self) -> &mut ShardedOptimizer {
        &mut self.optimizer
    }

    /// Which of a step's micro-batches are this rank's.
    pub fn order(&self) -> MicroBatches {
        self.order
    }

    /// Takes the optimizer's parameters into the decoder.
    pub fn refresh(&mut self) {
        let optimizer = &self.optimizer;
        self.decoder.load_local(optimizer.table(), optimizer.params(), self.execution.gatherer.as_deref());
    }

    /// Labelled tokens of a step on all ranks, from this rank's micro-batches: the denominator of its loss. Collective.
    ///
    /// # Errors
    /// A failed world.
    pub fn global_labels(&self, batches: &[PackedBatch]) -> Result<u64, ParallelError> {
        let own: usize = batches.iter().map(PackedBatch::label_count).sum();
        let sum = self.groups.data.all_reduce(Buffer::I64(vec![own as i64]), ReduceOp::Sum)?.wait()?.into_i64();
        Ok(sum[0] as u64)
    }

    /// Forward and backward of this rank's micro-batches of a step; `labels` is what [`Engine::global_labels`] gave. Returns the
    /// sums over all ranks, added in the global order of the micro-batches. Collective.
    ///
    /// # Errors
    /// A failed world.
    ///
    /// # Panics
    /// If a token or label is outside the vocabulary or a segment is too long, as [`Decoder::loss`].
    pub fn forward_backward(&mut self, batches: &[PackedBatch], labels: u64) -> Result<LossSums, ParallelError> {
        let scale = 1.0 / labels.max(1) as f64;
        let mut own = Vec::with_capacity(3 * batches.len());
        for (index, batch) in batches.iter().enumerate() {
            let sink = self.optimizer.sink();
            sink.begin(index + 1 == batches.len());
            let sums = catching(|| {
                let loss = self.decoder.loss_on(&self.execution, batch, self.label_smoothing, scale);
                loss.loss_sum.backward();
                [loss.nll_sum, loss.labelled as f64, loss.correct as f64]
            })?;
            sink.end()?;
            own.extend(sums);
        }
        self.add_up(own)
    }

    /// This rank's sums per micro-batch to those of the step: the same bits wherever the micro-batches' own are the same.
    fn add_up(&self, mut own: Vec<f64>) -> Result<LossSums, ParallelError> {
        if self.execution.strategy.splits_loss() {
            own = self.groups.tensor.all_reduce(Buffer::F64(own), ReduceOp::Sum)?.wait()?.into_f64();
        }
        let per_rank = own.len() / 3;
        let all = self.groups.data.all_gather(Buffer::F64(own))?.wait()?.into_f64();
        let mut places: Vec<(usize, usize)> = (0..self.groups.data.size() * per_rank)
            .map(|i| (self.order.index(i / per_rank.max(1), i % per_rank.max(1)), i))
            .collect();
        places.sort_unstable();
        let mut sums = LossSums::default();
        for (_, place) in places {
            let triple = &all[3 * place..3 * place + 3];
            sums.nll += triple[0];
            sums.tokens += triple[1];
            sums.correct += triple[2];
        }
        Ok(sums)
    }

    /// Ends a step: sums the gradients over ranks, clips, updates. Collective.
    ///
    /// # Errors
    /// No micro-batch since the last step, or a failed world.
    pub fn update(&mut self, lr: f64, beta2: f64) -> Result<StepOutcome, ParallelError> {
        let gradient = self.optimizer.reduce()?;
        self.update_with(gradient, lr, beta2)
    }

    /// [`Engine::update`] with the gradient of [`ShardedOptimizer::reduce`], for those who want to see it first.
    ///
    /// # Errors
    /// A failed world.
    pub fn update_with(&mut self, gradient: ShardGradient, lr: f64, beta2: f64) -> Result<StepOutcome, ParallelError> {
        let outcome = self.optimizer.update(gradient, lr, beta2)?;
        if !outcome.skipped {
            self.refresh();
        }
        Ok(outcome)
    }

    /// The sums of one micro-batch without a tape, over the ranks of the tensor group. Collective over them, and over all ranks that
    /// share weights: one that has nothing to evaluate brings any micro-batch and forgets the result.
    ///
    /// # Errors
    /// A failed world.
    pub fn evaluate(&self, batch: &PackedBatch) -> Result<EvalSums, ParallelError> {
        let on = Execution { sink: None, ..self.execution.clone() };
        let sums = catching(|| evaluate_on(&self.decoder, &on, [batch], None))?;
        if !on.strategy.splits_loss() {
            return Ok(sums);
        }
        let own = Buffer::F64(vec![sums.nll, sums.tokens, sums.correct]);
        let all = self.groups.tensor.all_reduce(own, ReduceOp::Sum)?.wait()?.into_f64();
        Ok(EvalSums { nll: all[0], tokens: all[1], correct: all[2], ..sums })
    }
}

/// Why a rank could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Ranks, state or checkpoint.
    #[error(transparent)]
    Parallel(#[from] ParallelError),
    /// A strategy or optimizer.
    #[error(transparent)]
    Plugin(#[from] internevo_core::plugin::PluginError),
}
