//! What a release is: the program with all features that releases have, as an archive in `target/release-dist`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::licences;

/// The features of antlm-cli that are on in releases.
pub const FEATURES: &[&str] = &["parquet", "cuda"];
/// What goes with the program.
const FILES: &[&str] = &["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];
/// Shells, and what their completion scripts are called.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "antlm.bash"),
    ("zsh", "_antlm"),
    ("fish", "antlm.fish"),
    ("elvish", "antlm.elv"),
    ("powershell", "_antlm.ps1"),
];

/// Fails when antlm-cli lacks a feature that releases have, or a file that goes with them is not there.
pub fn check(root: &Path) -> Result<()> {
    missing(&licences::metadata(root)?, FEATURES)?;
    if let Some(file) = FILES.iter().find(|file| !root.join(file).is_file()) {
        bail!("{file} goes with releases and is not there");
    }
    println!("release: its features ({}) exist", FEATURES.join(", "));
    Ok(())
}

fn missing(metadata: &Value, features: &[&str]) -> Result<()> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let cli = packages.iter().find(|package| package["name"] == "antlm-cli").context("no package antlm-cli")?;
    match features.iter().find(|name| cli["features"][name].is_null()) {
        Some(name) => bail!("antlm-cli has no feature {name:?}, which xtask/src/release.rs names"),
        None => Ok(()),
    }
}

/// Builds the program for this machine's kind and packs it: `target/release-dist/antlm-VERSION-TARGET.tar.gz`.
pub fn run(root: &Path) -> Result<()> {
    check(root)?;
    let program = crate::build_antlm(root, FEATURES)?;
    let name = format!("antlm-{}-{}", env!("CARGO_PKG_VERSION"), licences::host()?);
    let place = root.join("target/release-dist");
    let folder = place.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    for part in ["docs", "completions"] {
        fs::create_dir_all(folder.join(part)).with_context(|| folder.display().to_string())?;
    }
    let copy = |from: &Path, to: &Path| fs::copy(from, to).with_context(|| from.display().to_string());
    copy(&program, &folder.join(program.file_name().context("the program has a name")?))?;
    for file in FILES {
        copy(&root.join(file), &folder.join(file))?;
    }
    for entry in fs::read_dir(root.join("docs")).context("docs")? {
        let page = entry?;
        copy(&page.path(), &folder.join("docs").join(page.file_name()))?;
    }
    for (shell, file) in COMPLETIONS {
        let script = Command::new(&program).args(["completions", shell]).output().context("antlm completions")?;
        if !script.status.success() {
            bail!("antlm completions {shell} failed");
        }
        fs::write(folder.join("completions").join(file), script.stdout).context("completions")?;
    }
    let archive = format!("{name}.tar.gz");
    let packed = Command::new("tar").args(["-czf", &archive, &name]).current_dir(&place).status();
    if !packed.context("cannot start tar")?.success() {
        bail!("tar failed");
    }
    println!("{}", place.join(archive).display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_is_not_there_is_named() {
        let metadata =
            serde_json::json!({"packages": [{"name": "antlm-cli", "features": {"parquet": ["antlm/parquet"]}}]});
        assert!(missing(&metadata, &["parquet"]).is_ok());
        assert!(missing(&metadata, &["parquet", "cuda"]).unwrap_err().to_string().contains("\"cuda\""));
    }
}
