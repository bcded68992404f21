//! Every dependency's licence is one that we accept; works offline. Advisories need a database from the network, so
//! they are looked up only where cargo-deny and its database are there already.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// SPDX names of the licences that we accept; deny.toml has the same list.
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Fails with the names of the packages whose licence is missing or not accepted.
pub fn check(root: &Path) -> Result<()> {
    let metadata = metadata(root)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let mut wrong = Vec::new();
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        if !accepted(licence) {
            wrong.push(format!("{} {}: {licence}", text(&package["name"]), text(&package["version"])));
        }
    }
    if !wrong.is_empty() {
        bail!("licences that we do not accept:\n  {}", wrong.join("\n  "));
    }
    println!("licences: {} packages, all accepted", packages.len());
    advisories(root)
}

/// What cargo knows of all packages. Those of other platforms are in Cargo.lock, too, but perhaps not on this disk:
/// then they are fetched, and without a network left out.
pub fn metadata(root: &Path) -> Result<Value> {
    let host = host()?;
    let attempts: [&[&str]; 3] = [&["--offline"], &[], &["--offline", "--filter-platform", &host]];
    let mut message = String::new();
    for (number, arguments) in attempts.iter().enumerate() {
        let mut command = Command::new(env!("CARGO"));
        let output =
            command.args(["metadata", "--format-version=1", "--locked"]).args(*arguments).current_dir(root).output()?;
        if output.status.success() {
            if number == 2 {
                println!("licences: without a network only the packages for {host} are looked at");
            }
            return serde_json::from_slice(&output.stdout).context("cargo metadata is JSON");
        }
        message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    }
    bail!("cargo metadata failed: {message}")
}

/// This machine's target triple.
pub fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names its host")?.to_owned())
}

fn advisories(root: &Path) -> Result<()> {
    let deny = |args: &[&str]| Command::new(env!("CARGO")).arg("deny").args(args).current_dir(root).output();
    if !deny(&["--version"]).is_ok_and(|o| o.status.success()) {
        println!("advisories: skipped, cargo-deny is not installed");
        return Ok(());
    }
    let output = deny(&["--offline", "check", "--disable-fetch", "advisories"])?;
    let message = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        println!("advisories: none");
    } else if message.contains("failed to load advisory database") || message.contains("advisory database path") {
        println!("advisories: skipped, no database here (cargo deny fetch)");
    } else {
        bail!("cargo deny: {}", message.trim());
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// An SPDX expression: `OR` binds weaker than `AND`; `/` is the old spelling of `OR`. What does not parse is refused.
fn accepted(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest) == Some(true) && rest.is_empty()
}

fn any(words: &mut &[&str]) -> Option<bool> {
    let mut result = all(words)?;
    while take(words, "OR") {
        result |= all(words)?;
    }
    Some(result)
}

fn all(words: &mut &[&str]) -> Option<bool> {
    let mut result = one(words)?;
    while take(words, "AND") {
        result &= one(words)?;
    }
    Some(result)
}

fn one(words: &mut &[&str]) -> Option<bool> {
    if take(words, "(") {
        let result = any(words)?;
        return take(words, ")").then_some(result);
    }
    let mut name = next(words)?;
    if take(words, "WITH") {
        name = format!("{name} WITH {}", next(words)?);
    }
    Some(ACCEPTED.contains(&name.as_str()))
}

fn next(words: &mut &[&str]) -> Option<String> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some((*first).to_owned())
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let found = words.first() == Some(&word);
    if found {
        *words = &words[1..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR GPL-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
            "MIT AND (BSD-3-Clause OR LGPL-2.1)",
        ] {
            assert!(accepted(good), "{good}");
        }
        for bad in [
            "",
            "none",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND GPL-3.0",
            "GPL-2.0 OR LGPL-2.1",
            "MIT WITH surprise",
            "(MIT",
            "MIT)",
            "MIT OR",
            "MIT Apache-2.0",
        ] {
            assert!(!accepted(bad), "{bad}");
        }
    }

    #[test]
    fn deny_toml_has_the_same_list() {
        let deny = include_str!("../../deny.toml");
        for name in ACCEPTED {
            assert!(deny.contains(&format!("\"{name}\",")), "{name}");
        }
    }
}
