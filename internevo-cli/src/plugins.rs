//! The one link list: crates whose plugins this binary offers. A crate that nobody names is not linked, and its
//! `register_*!` lines are then not seen. Downstream binaries add theirs beside `internevo_cli::main()`.

use internevo_core as _;
use internevo_data as _;
use internevo_parallel as _;
