//! What can go wrong on the way to a GPU's peers.

use cudarc::driver::DriverError;

use super::MissingLibrary;
use crate::comm::{CommError, FailureCause};

/// A failure of the NCCL backend on this rank.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NcclError {
    /// There is no usable NCCL.
    #[error(transparent)]
    Missing(#[from] MissingLibrary),
    /// There is no CUDA driver.
    #[error("no CUDA driver: neither libcuda.so nor libcuda.so.1 can be loaded; it comes with NVIDIA's kernel driver")]
    NoDriver,
    /// The CUDA driver refused.
    #[error("CUDA: {what}: {}", driver_text(*source))]
    Driver {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: DriverError,
    },
    /// NCCL refused.
    #[error("{function}: {text} (ncclResult_t {code}); run with NCCL_DEBUG=WARN for its reasons")]
    Call {
        /// The function.
        function: &'static str,
        /// Its result.
        code: u32,
        /// NCCL's words for it.
        text: String,
    },
    /// Arguments that NCCL would read or write out of bounds with.
    #[error("{call}: {reason}")]
    Argument {
        /// The call.
        call: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl NcclError {
    /// As a failure of `rank`, which was in `call`.
    pub(super) fn on_rank(self, rank: usize, call: &str) -> CommError {
        let cause = match self {
            Self::Argument { call, reason } => FailureCause::Invalid { rank, call: call.into(), reason },
            other => FailureCause::Transport { rank, what: other.to_string(), waiting: Some(call.to_owned()) },
        };
        CommError::new(cause, Vec::new())
    }
}

/// Names a failed request to the driver.
pub(super) fn driver(what: &'static str) -> impl Fn(DriverError) -> NcclError {
    move |source| NcclError::Driver { what, source }
}

/// The code's name; the driver's own words would need a driver that works.
fn driver_text(error: DriverError) -> String {
    format!("{:?}", error.0)
}
