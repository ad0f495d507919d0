//! `cargo xtask check`: what a reviewer would ask for before reading: format, lints, documentation, licences.

use std::process::{Command, Stdio};

use crate::command::{cargo, step};

pub fn run() -> anyhow::Result<()> {
    step("format", cargo().args(["fmt", "--all", "--check"]))?;
    step("lints", cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let mut doc = cargo();
    doc.args(["doc", "--locked", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    step("documentation", &mut doc)?;
    let deny = Command::new("cargo-deny").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if deny.is_ok_and(|status| status.success()) {
        return step(
            "licences, bans, sources",
            cargo().args(["deny", "--all-features", "check", "licenses", "bans", "sources"]),
        );
    }
    println!("── licences: skipped, cargo-deny is not installed (`cargo install cargo-deny`)");
    Ok(())
}
