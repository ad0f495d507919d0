//! The binary as users run it: `cargo test -p internevo-cli --test cli`.

mod commands;
mod interruption;
mod look;
#[cfg(feature = "mpi")]
mod mpi;
mod parity;
mod train;
mod workshop;
