//! Flash attention on a cubecl device (Dao, 2023): scores exist tile by tile on the chip, forward and backward. Knows nothing of
//! burn; [`op`] does.
//!
//! | file | |
//! |---|---|
//! | `tiles` | which tiles of the score matrix a launch visits, from segments and mask |
//! | `places` | where heads lie in buffers |
//! | `sides` | what the two launches of a backward read and write |
//! | `delta` | the prepass of the backward |
//! | `portable` | kernels for any device |
//! | `mma` | kernels for tensor cores through `mma.sync` |
//! | `wgmma` | the forward for Hopper's, through `wgmma` and TMA |
//! | `lanes`, `fragment` | what `mma` and `wgmma` share: a warp's registers, and the softmax in them |
//!
//! The portable kernels are tested by running them. Of the others everything but the PTX instructions is: tests emulate those on
//! any device, each done when it is begun. With the instructions, and `wgmma`'s barriers between them, they have been compiled
//! (NVRTC, ptxas) and not yet run on a GPU.
//!
//! The backward takes no atomics: dQ is summed by the cubes that own queries, dK and dV by those that own keys, and the scores
//! are computed in both. That is 7 products of tiles instead of 5, and results that repeat to the bit.

mod delta;
mod fragment;
mod lanes;
mod mma;
#[cfg(feature = "gpu")]
pub(crate) mod op;
mod places;
mod portable;
mod sides;
mod tiles;
mod wgmma;

pub use places::DeviceHeads;

use super::{AttentionMask, QkvLayout, Segments};
use crate::cube::{Buffer, Client, F32};
use places::check;
use sides::launches;

/// A score that is hidden. The running maximum never falls to it: the exponential of the difference is zero.
const HIDDEN: f32 = -1e30;
const LOWEST_MAXIMUM: f32 = -0.5e30;

/// What is computed, apart from the numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention<'a> {
    /// Heads and their width.
    pub layout: QkvLayout,
    /// Rows of queries and keys that belong together.
    pub segments: &'a Segments,
    /// Which keys of its segment a query sees.
    pub mask: AttentionMask,
    /// Factor of the scores, above 0; usually [`QkvLayout::scale`].
    pub scale: f32,
}

/// What a forward leaves for its backward, and what comes back: all but `d_lse` are needed.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// `[T_q, H, D]`, as [`forward`] gave it.
    pub output: &'a Buffer,
    /// `[T_q, H]`, f32, as [`forward`] gave it.
    pub lse: &'a Buffer,
    /// Gradient of the output, of its type and shape.
    pub d_output: &'a Buffer,
    /// Gradient of the log-sum-exp, f32.
    pub d_lse: Option<&'a Buffer>,
}

/// Per query and head, f32: what turns scores back into probabilities and their gradients into gradients of scores.
struct Statistics {
    lse: Buffer,
    delta: Buffer,
}

/// Which kernels compute an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Any device and type: tiles in shared memory, sums in f32.
    Portable,
    /// f16 and bf16 in tensor cores by `mma.sync`: CUDA devices of compute capability 8.0 and later, heads of a multiple of 16
    /// values up to 256 that begin at multiples of 16 bytes.
    Mma,
    /// As [`Self::Mma`] with a forward by `wgmma` and TMA: CUDA devices of compute capability 9.0, heads of 64, 128, 192 or 256
    /// values, a token's heads beside each other in its row.
    Wgmma,
}

impl Route {
    /// The fastest that `client` and these operands allow.
    pub fn fastest(client: &Client, operands: &DeviceHeads<'_>, attention: &Attention<'_>) -> Self {
        let served = |route: &Self| route.serves(client, operands, attention);
        [Self::Wgmma, Self::Mma].into_iter().find(served).unwrap_or(Self::Portable)
    }

    /// Whether this route computes these operands on `client`.
    pub fn serves(self, client: &Client, operands: &DeviceHeads<'_>, attention: &Attention<'_>) -> bool {
        let elem = operands[0].data.elem;
        match self {
            Self::Portable => true,
            Self::Mma => mma::instructions(client, elem).is_some() && mma::serves(attention.layout, operands),
            Self::Wgmma => wgmma::instructions(client, elem).is_some() && wgmma::serves(attention, operands),
        }
    }
}

/// The output `[T_q, H, D]`, of the queries' type, and the log-sum-exp of each row of scaled scores, `[T_q, H]`, f32, natural
/// logarithm. A query that sees no key gets 0 and `-∞`.
///
/// # Panics
/// If a view reaches beyond its buffer, types differ, the scale is not above 0, or there are 2^30 rows or more.
pub fn forward(client: &Client, operands: &DeviceHeads<'_>, attention: &Attention<'_>) -> (Buffer, Buffer) {
    forward_by(Route::fastest(client, operands, attention), client, operands, attention)
}

/// [`forward`] by a route of the caller's choice.
///
/// # Panics
/// As [`forward`], or if the route does not serve this device or these operands.
pub fn forward_by(
    route: Route,
    client: &Client,
    operands: &DeviceHeads<'_>,
    attention: &Attention<'_>,
) -> (Buffer, Buffer) {
    attention.check(operands);
    match route {
        Route::Portable => portable::forward(client, operands, attention, None),
        Route::Mma => {
            let instructions = mma::demand(client, attention.layout, operands);
            mma::forward(client, operands, attention, instructions, None)
        }
        Route::Wgmma => {
            let instructions = wgmma::demand(client, attention, operands);
            wgmma::forward(client, operands, attention, instructions, None)
        }
    }
}

/// Writes the gradients of queries, keys and values into `gradients`: views of one buffer or of several, which must not
/// overlap. Rows outside all segments stay as they are.
///
/// # Panics
/// As [`forward`], or if the outcome is not that of this attention.
pub fn backward(
    client: &Client,
    operands: &DeviceHeads<'_>,
    outcome: &Outcome<'_>,
    attention: &Attention<'_>,
    gradients: &DeviceHeads<'_>,
) {
    backward_by(Route::fastest(client, operands, attention), client, operands, outcome, attention, gradients);
}

/// [`backward`] by a route of the caller's choice; it need not be that of the forward.
///
/// # Panics
/// As [`backward`], or if the route does not serve this device or these operands.
pub fn backward_by(
    route: Route,
    client: &Client,
    operands: &DeviceHeads<'_>,
    outcome: &Outcome<'_>,
    attention: &Attention<'_>,
    gradients: &DeviceHeads<'_>,
) {
    let statistics = attention.statistics(client, operands, outcome, gradients);
    for launch in launches(attention.layout, operands, outcome, &statistics, gradients) {
        match route {
            Route::Portable => portable::backward(client, &launch, attention, None),
            Route::Mma | Route::Wgmma => {
                let instructions = mma::demand(client, attention.layout, operands);
                mma::backward(client, &launch, attention, instructions, None);
            }
        }
    }
}

impl<'a> Attention<'a> {
    /// With the usual scale, `1 / sqrt(head_dim)`.
    pub fn new(layout: QkvLayout, segments: &'a Segments, mask: AttentionMask) -> Self {
        Self { layout, segments, mask, scale: layout.scale() as f32 }
    }

    fn check(&self, operands: &DeviceHeads<'_>) {
        assert!(self.scale > 0.0, "attention: a scale of {}", self.scale);
        check(operands, self.layout, self.segments, operands[0].data.elem);
    }

    /// Checks a backward and runs its prepass.
    fn statistics(
        &self,
        client: &Client,
        operands: &DeviceHeads<'_>,
        outcome: &Outcome<'_>,
        gradients: &DeviceHeads<'_>,
    ) -> Statistics {
        self.check(operands);
        let elem = operands[0].data.elem;
        check(gradients, self.layout, self.segments, elem);
        let (len, rows) =
            (self.segments.queries() * self.layout.output_width(), self.segments.queries() * self.layout.heads());
        for buffer in [outcome.output, outcome.d_output] {
            assert_eq!((buffer.len, buffer.elem), (len, elem), "attention: output or its gradient");
        }
        for buffer in [Some(outcome.lse), outcome.d_lse].into_iter().flatten() {
            assert_eq!((buffer.len, buffer.elem), (rows, F32), "attention: log-sum-exp or its gradient");
        }
        let delta = delta::delta(client, outcome.output, outcome.d_output, outcome.d_lse, self);
        Statistics { lse: outcome.lse.clone(), delta }
    }
}

#[cfg(all(test, feature = "gpu"))]
mod tests;
