//! Every import points down: which words may not stand in which folder (ARCHITECTURE.md, rule 1 and the floors).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A folder or file, and what its code may not name.
const FORBIDDEN: [(&str, &[&str]); 8] = [
    ("crates/antlm-nn/src", &["std::fs", "std::io", "token"]),
    (
        "crates/antlm/src/text",
        &[
            "antlm_nn::tape",
            "antlm_nn::params",
            "antlm_nn::kernels",
            "crate::model",
            "crate::objective",
            "crate::recipe",
            "crate::train",
            "crate::eval",
            "crate::hub",
        ],
    ),
    (
        "crates/antlm/src/objective",
        &[
            "antlm_nn::tape",
            "antlm_nn::params",
            "antlm_nn::kernels",
            "std::fs",
            "crate::model",
            "crate::recipe",
            "crate::train",
            "crate::eval",
            "crate::hub",
        ],
    ),
    ("crates/antlm/src/model", &["std::fs", "std::io", "crate::recipe", "crate::train", "crate::eval", "crate::hub"]),
    ("crates/antlm/src/recipe", &["antlm_nn::tape", "antlm_nn::kernels", "crate::eval", "crate::hub"]),
    ("crates/antlm/src/train", &["println!", "eprintln!", "crate::hub", "crate::demo"]),
    ("crates/antlm/src/eval", &["println!", "eprintln!", "crate::hub", "crate::demo"]),
    ("crates/antlm/src/hub", &["println!", "eprintln!", "antlm_nn::kernels", "antlm_nn::tape"]),
];

/// Drivers of cards: the one part of the engine that speaks to something outside the process.
const OUTSIDE: &str = "crates/antlm-nn/src/device/cuda";

/// Fails at the first line that reaches up. Comments and tests may say what they like.
pub fn check(root: &Path) -> Result<()> {
    for (place, words) in FORBIDDEN {
        let mut files = Vec::new();
        crate::sizes::collect(&root.join(place), &mut files)?;
        files.retain(|path| !path.starts_with(root.join(OUTSIDE)));
        files.sort();
        for path in files.iter().filter(|path| !crate::sizes::is_test_file(path.strip_prefix(root).unwrap_or(path))) {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            for (number, line) in text.lines().enumerate().take_while(|(_, line)| *line != "#[cfg(test)]") {
                let code = line.split("//").next().unwrap_or_default();
                if let Some(word) = words.iter().find(|word| code.contains(**word)) {
                    bail!(
                        "{}:{}: {place} may not name `{word}` (ARCHITECTURE.md, the floors)",
                        path.display(),
                        number + 1
                    );
                }
            }
        }
    }
    println!("floors: every import points down");
    Ok(())
}
