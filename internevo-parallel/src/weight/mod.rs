//! Sharded weights (`isp`'s weight parallelism, ZeRO-3): each rank of a group keeps a share of every matrix, gathers the whole
//! before use, in the forward and again in the backward pass, and forgets it right after. Gradients of whole weights are
//! reduce-scattered as soon as they exist ([`GradientSink::deposit_whole`]).
//!
//! What is needed next is asked for ahead (`ahead.rs`), so that it travels while the rank computes. Not here: which share a rank
//! keeps (`state/`).

mod ahead;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use ahead::{Ahead, AheadOptions};
use internevo_kernels::{
    Recall,
    autograd::{HostTensor, enter_beside, nothing},
    burn::tensor::Tensor,
};

use crate::{
    comm::{Buffer, CommError, Communicator, Pending},
    state::LocalTable,
    strategy::failed,
    zero::GradientSink,
};

/// Why a weight is gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// For the forward pass. The tape does not keep the weight.
    Forward,
    /// For the gradient of its input.
    Backward,
    /// For a block that is computed again in the backward pass. The block's own tape keeps the weight.
    Again,
}

/// Gathers the sharded weights of one rank.
pub struct WeightGatherer {
    group: Arc<dyn Communicator>,
    table: Arc<LocalTable>,
    ahead: Ahead,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shares: HashMap<usize, HostTensor>,
    on_their_way: HashMap<usize, Pending>,
}

impl WeightGatherer {
    /// A gatherer over `group`, whose ranks share the weights of `table`.
    pub fn new(group: Arc<dyn Communicator>, table: Arc<LocalTable>, ahead: Ahead) -> Self {
        Self { group, table, ahead, state: Mutex::default() }
    }

    /// Whether parameter `param` is sharded.
    pub fn shards(&self, param: usize) -> bool {
        self.table.params()[param].sharded
    }

    /// Sets this rank's share of a weight. What was asked for ahead and not used is forgotten.
    pub fn set(&self, param: usize, share: HostTensor) {
        let mut state = self.lock();
        state.on_their_way.remove(&param);
        state.shares.insert(param, share);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic ends the step; the next one sets every share anew.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole weight, for a use together with `beside`. Its gradient goes to `sink`; without one it is a constant.
    /// `share` is the leaf that stands for it on the tape. Returns also how the backward gets the weight again, unless the tape shall keep it. Collective.
    ///
    /// Unwinds with the [`CommError`] when ranks cannot communicate.
    pub fn weight(
        self: &Arc<Self>,
        param: usize,
        share: &Tensor<2>,
        beside: Option<&Tensor<2>>,
        pass: Pass,
        sink: Option<&Arc<GradientSink>>,
    ) -> (Tensor<2>, Option<Recall>) {
        let whole = self.gather(param, pass).into_tensor::<2>();
        let (Some(sink), Some((function, _))) = (sink.cloned(), enter_beside(share, beside)) else {
            return (whole, None);
        };
        let tracked = function.finish(whole, move |gradient: Tensor<2>, _| {
            sink.deposit_whole(param, gradient.into_data().try_into_vec().expect("weights are f32"));
            [Some(nothing::<2>().into_dispatch()), None]
        });
        let gatherer = self.clone();
        let recall = move || gatherer.gather(param, Pass::Backward);
        (tracked, (pass == Pass::Forward).then(|| Arc::new(recall) as Recall))
    }

    /// The whole weight, to be used without a tape. Collective.
    ///
    /// Unwinds with the [`CommError`] when ranks cannot communicate.
    pub fn gather(&self, param: usize, pass: Pass) -> HostTensor {
        let slab = &self.table.params()[param].slab;
        let mut whole = match self.request(param, pass).and_then(Pending::wait) {
            Ok(whole) => whole.into_f32(),
            Err(error) => failed(error),
        };
        whole.truncate(slab.elements());
        let shape = slab.local_shape();
        HostTensor::from_vec(whole, [shape[0], shape[1]])
    }

    /// Asks for a weight, if that has not been done, and for those after it.
    fn request(&self, param: usize, pass: Pass) -> Result<Pending, CommError> {
        let state = &mut *self.lock();
        let pending = match state.on_their_way.remove(&param) {
            Some(pending) => pending,
            None => self.post(&state.shares, param)?,
        };
        for next in self.ahead.after(param, pass) {
            if !state.on_their_way.contains_key(next) {
                let pending = self.post(&state.shares, *next)?;
                state.on_their_way.insert(*next, pending);
            }
        }
        Ok(pending)
    }

    fn post(&self, shares: &HashMap<usize, HostTensor>, param: usize) -> Result<Pending, CommError> {
        let share = shares.get(&param).expect("every share was set");
        self.group.all_gather(Buffer::F32(share.to_vec()))
    }
}
