//! The binary as users run it: `cargo test -p internevo-cli --test cli`.

mod commands;
mod interruption;
mod train;
mod workshop;
