//! Whole parameters from the shards of all ranks that hold one copy of the state, and back: what a checkpoint writes and what
//! an optimizer that needs whole matrices works on. One all-to-all a batch of parameters; who sends what is arithmetic.

use std::{ops::Range, sync::Arc};

use super::{Run, Slab, StatePlan};
use crate::{
    ParallelError,
    comm::{Buffer, CommError, Communicator, Counts, ReduceOp},
};

/// A parameter that one rank of the group is to have whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Index of the parameter.
    pub param: usize,
    /// The rank, within the group, that gets it.
    pub owner: usize,
}

/// A rank's elements of one parameter.
#[derive(Clone, Debug)]
struct Holding {
    slab: Slab,
    flat: Range<usize>,
    at: Range<usize>,
    primary: bool,
}

/// Which holdings take part: those that count, or copies of them too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Primary,
    Copies,
}

/// Moves parameters between shards and owners. One per rank; calls are collective over the group.
pub struct Exchange {
    group: Arc<dyn Communicator>,
    /// `[rank of the group][parameter]`: what is there of it.
    holdings: Vec<Vec<Vec<Holding>>>,
    shapes: Vec<Vec<usize>>,
}

impl Exchange {
    /// The exchange among `group`, whose ranks together hold one copy of the state of `plan` ([`GroupKind::State`]).
    ///
    /// [`GroupKind::State`]: internevo_core::layout::GroupKind::State
    ///
    /// # Errors
    /// [`ParallelError::DuplicateParameter`].
    pub fn new(plan: &StatePlan, group: Arc<dyn Communicator>) -> Result<Self, ParallelError> {
        let mut holdings = Vec::with_capacity(group.size());
        for rank in group.world_ranks() {
            let (table, pieces) = plan.pieces(*rank)?;
            let mut own = vec![Vec::new(); plan.specs().len()];
            for piece in pieces {
                let param = &table.params()[piece.param];
                let (slab, primary) = (param.slab.clone(), param.primary);
                own[piece.param].push(Holding { slab, flat: piece.flat, at: piece.at, primary });
            }
            holdings.push(own);
        }
        Ok(Self { group, holdings, shapes: plan.specs().iter().map(|s| s.shape.clone()).collect() })
    }

    /// Ranks of the group.
    pub fn ranks(&self) -> usize {
        self.group.size()
    }

    /// This rank within the group.
    pub fn rank(&self) -> usize {
        self.group.rank()
    }

    /// Shape of a parameter.
    pub fn shape(&self, param: usize) -> &[usize] {
        &self.shapes[param]
    }

    /// Brings parameters together: returns those that this rank owns, whole and row-major, in the order of `assignments`.
    /// `shard` holds this rank's values, as [`StatePlan::pieces`] lays them out. Collective, with equal assignments.
    ///
    /// # Errors
    /// A failed world.
    pub fn gather(&self, assignments: &[Assignment], shard: &[f32]) -> Result<Vec<(usize, Vec<f32>)>, CommError> {
        let mine = self.rank();
        let mut send = Vec::new();
        for owner in 0..self.ranks() {
            for param in owned(assignments, owner) {
                for holding in self.held(mine, param, Reach::Primary) {
                    send.extend_from_slice(&shard[holding.at.clone()]);
                }
            }
        }
        let received = self.trade(assignments, send, Reach::Primary, true)?;
        let mut whole: Vec<(usize, Vec<f32>)> =
            owned(assignments, mine).map(|p| (p, vec![0.0; self.shapes[p].iter().product()])).collect();
        self.walk(&whole.iter().map(|(p, _)| *p).collect::<Vec<_>>(), Reach::Primary, |index, run, place| {
            whole[index].1[run.global..run.global + run.len].copy_from_slice(&received[place..place + run.len]);
        });
        Ok(whole)
    }

    /// The reverse of [`Exchange::gather`]: spreads whole parameters from their owners over `shard`. Elements of this rank that
    /// do not count (copies of a parameter that another rank holds too) stay as they are.
    ///
    /// # Errors
    /// A failed world.
    pub fn scatter(
        &self,
        assignments: &[Assignment],
        whole: &[(usize, Vec<f32>)],
        shard: &mut [f32],
    ) -> Result<(), CommError> {
        self.spread(assignments, whole, shard, Reach::Primary)
    }

    /// As [`Exchange::scatter`], and to copies too: for results that every rank needs which holds the element.
    ///
    /// # Errors
    /// A failed world.
    pub fn scatter_to_copies(
        &self,
        assignments: &[Assignment],
        whole: &[(usize, Vec<f32>)],
        shard: &mut [f32],
    ) -> Result<(), CommError> {
        self.spread(assignments, whole, shard, Reach::Copies)
    }

    /// Combines the ranks' vectors, which are equally long. Collective.
    ///
    /// # Errors
    /// A failed world.
    pub fn all_reduce(&self, values: Vec<f64>, op: ReduceOp) -> Result<Vec<f64>, CommError> {
        if self.ranks() == 1 {
            return Ok(values);
        }
        Ok(self.group.all_reduce(Buffer::F64(values), op)?.wait()?.into_f64())
    }

    fn spread(
        &self,
        assignments: &[Assignment],
        whole: &[(usize, Vec<f32>)],
        shard: &mut [f32],
        reach: Reach,
    ) -> Result<(), CommError> {
        let mine = self.rank();
        let params: Vec<usize> = whole.iter().map(|(p, _)| *p).collect();
        assert!(owned(assignments, mine).eq(params.iter().copied()), "what this rank owns, in order");
        let mut send = vec![0.0; self.volume(&params, 0..self.ranks(), reach)];
        self.walk(&params, reach, |index, run, place| {
            send[place..place + run.len].copy_from_slice(&whole[index].1[run.global..run.global + run.len]);
        });
        let received = self.trade(assignments, send, reach, false)?;
        let mut place = 0;
        for owner in 0..self.ranks() {
            for param in owned(assignments, owner) {
                for holding in self.held(mine, param, reach) {
                    let len = holding.at.len();
                    shard[holding.at.clone()].copy_from_slice(&received[place..place + len]);
                    place += len;
                }
            }
        }
        Ok(())
    }

    /// The all-to-all, towards the owners or away from them.
    fn trade(
        &self,
        assignments: &[Assignment],
        send: Vec<f32>,
        reach: Reach,
        to_owners: bool,
    ) -> Result<Vec<f32>, CommError> {
        let mine = self.rank();
        let own: Vec<usize> = owned(assignments, mine).collect();
        let as_holder = |owner| self.volume(&owned(assignments, owner).collect::<Vec<_>>(), mine..mine + 1, reach);
        let held: Vec<usize> = (0..self.ranks()).map(as_holder).collect();
        let as_owner = (0..self.ranks()).map(|holder| self.volume(&own, holder..holder + 1, reach)).collect();
        let counts =
            if to_owners { Counts { send: held, receive: as_owner } } else { Counts { send: as_owner, receive: held } };
        Ok(self.group.all_to_all_v(Buffer::F32(send), &counts)?.wait()?.into_f32())
    }

    /// What `rank` holds of `param`.
    fn held(&self, rank: usize, param: usize, reach: Reach) -> impl Iterator<Item = &Holding> {
        self.holdings[rank][param].iter().filter(move |h| h.primary || reach == Reach::Copies)
    }

    /// Elements of `params` on the ranks `holders`.
    fn volume(&self, params: &[usize], holders: Range<usize>, reach: Reach) -> usize {
        let of = |holder: usize| params.iter().flat_map(move |p| self.held(holder, *p, reach)).map(|h| h.at.len());
        holders.map(|h| of(h).sum::<usize>()).sum()
    }

    /// Visits the elements of an owner's `params` in the order of its messages: holder by holder, parameter by parameter.
    /// Tells the index in `params`, the run in the whole parameter and the place in the message.
    fn walk(&self, params: &[usize], reach: Reach, mut visit: impl FnMut(usize, Run, usize)) {
        let mut place = 0;
        for holder in 0..self.ranks() {
            for (index, param) in params.iter().enumerate() {
                for holding in self.held(holder, *param, reach) {
                    for run in holding.slab.runs(&holding.flat) {
                        let len = run.len;
                        visit(index, run, place);
                        place += len;
                    }
                }
            }
        }
    }
}

fn owned(assignments: &[Assignment], owner: usize) -> impl Iterator<Item = usize> + '_ {
    assignments.iter().filter(move |a| a.owner == owner).map(|a| a.param)
}
