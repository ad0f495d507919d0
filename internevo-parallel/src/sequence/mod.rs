//! Sequence parallelism (`isp`): the ranks of a tensor group share the tokens of a micro-batch; each applies whole matrices,
//! whose weights `weight/` gathers, to its own tokens. Only attention needs the others' tokens:
//!
//! - within a **head group** an all-to-all exchanges tokens for heads before attention and back after it (DeepSpeed-Ulysses,
//!   arXiv 2309.14509); key/value heads that are fewer than the ranks are copied;
//! - within a **context group** keys and values go around a ring (ring attention, arXiv 2310.01889), from zig-zag places, so
//!   that every rank has equally much below the diagonal.
//!
//! `parallel.sequence_2D` chooses the grid; without it the whole tensor group is one head group. Documents of a packed
//! micro-batch never see each other in any of them.

mod heads;
mod isp;
mod placement;
mod ring;

pub use isp::IspPlugin;
pub use placement::Placement;
