//! The `internevo` binary. Everything is in the library, so that a downstream binary with its own plugins is as short:
//! `use my_filters as _; fn main() -> ExitCode { internevo_cli::main() }`.

use std::process::ExitCode;

/// glibc's allocator gives every large buffer back to the kernel after each tensor operation; mimalloc keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    internevo_cli::main()
}
