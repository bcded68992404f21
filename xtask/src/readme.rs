//! README.md's commands are the ones that `.ci/run` runs: they stand between markers, and it reads them from there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Fails when README.md lacks a block of commands between the markers, or `.ci/run` does not read them.
pub fn check(root: &Path) -> Result<()> {
    let readme = fs::read_to_string(root.join("README.md")).context("README.md")?;
    let ci = fs::read_to_string(root.join(".ci/run")).context(".ci/run")?;
    for name in ["main", "test"] {
        if commands(&readme, name).is_empty() {
            bail!("README.md: no commands between <!-- {name}:begin --> and <!-- {name}:end -->");
        }
        if !ci.contains(&format!("readme {name}")) {
            bail!(".ci/run does not run README.md's block {name:?}");
        }
    }
    println!("README.md: its two commands are run by .ci/run");
    Ok(())
}

/// The lines of code between two markers, without the fences.
fn commands(readme: &str, name: &str) -> Vec<String> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let inside = readme.lines().skip_while(|line| *line != begin).skip(1).take_while(|line| *line != end);
    inside.filter(|line| !line.starts_with("```") && !line.trim().is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_lines_between_the_markers() {
        let readme = "# x\n<!-- main:begin -->\n```sh\na \\\n  b\n```\n<!-- main:end -->\n```sh\nc\n```\n";
        assert_eq!(commands(readme, "main"), ["a \\", "  b"]);
        assert!(commands(readme, "test").is_empty());
    }
}
