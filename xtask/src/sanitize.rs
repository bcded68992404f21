//! `cargo xtask sanitize`: the tests around our unsafe blocks (products of matrices, packed operands, mapped files) under
//! AddressSanitizer. Needs a nightly toolchain.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs all tests of the engine, and those of shards and segments.
pub fn run(root: &Path) -> Result<()> {
    let host = crate::licences::host()?;
    let runs: [&[&str]; 2] = [
        &["--package=antlm-nn", "--lib", "--tests"],
        &["--package=antlm", "--lib", "--", "text::shards", "text::dataset"],
    ];
    for args in runs {
        // A target folder of its own, as everything is built in another way.
        let status = Command::new("rustup")
            .args(["run", "nightly", "cargo", "test", "--locked", "--target", &host, "--target-dir=target/sanitize"])
            .args(args)
            .env("RUSTFLAGS", "-Zsanitizer=address")
            .current_dir(root)
            .status()
            .context("cannot start rustup")?;
        if !status.success() {
            bail!("the tests fail under AddressSanitizer");
        }
    }
    Ok(())
}
