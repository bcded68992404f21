//! `cargo xtask check-kernels`: every CUDA kernel compiles for the cards that antlm means, and spills no registers.
//! Needs Python, for the package index has NVRTC; no card and no CUDA.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

/// Compiles the CUDA kernels for sm_80, sm_90 and sm_120 with NVRTC; lists registers, shared memory and spills
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask check-kernels                                           makes an environment in target/check-kernels
  cargo xtask check-kernels --nvrtc nvidia-cuda-nvrtc==13.0.88
Shared memory is what a kernel has of its own, without what a launch gives it.")]
pub struct Options {
    /// The package that has NVRTC
    #[arg(long, value_name = "PACKAGE", default_value = "nvidia-cuda-nvrtc-cu12==12.9.86")]
    nvrtc: String,
    /// Where that package cannot be installed, say so and be content
    #[arg(long)]
    where_possible: bool,
}

/// Bytes of registers that a kernel may spill, stored and loaded together; all others: none. These spill a little for
/// sm_120 alone, where the compiler would rather have fewer registers and more warps; how much changes with little things.
const SPILLS: [(&str, u64); 4] = [
    ("attention_backward_queries_64", 64),
    ("attention_backward_queries_128", 64),
    ("attention_backward_keys_128", 64),
    ("attention_bf16_backward_keys", 160),
];

/// What the compiler says of one kernel.
#[derive(Debug, Default, PartialEq)]
struct Kernel {
    name: String,
    registers: u64,
    shared: u64,
    /// Bytes stored and loaded.
    spilled: u64,
}

/// Compiles all of them; fails at an error, a warning or a spill.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let python = match environment(&root.join("target/check-kernels"), &options.nvrtc) {
        Err(error) if options.where_possible => {
            println!("no kernel was compiled for a card: {error:#}");
            return Ok(());
        }
        other => other?,
    };
    let folder = root.join("crates/antlm-nn/cuda");
    let mut sources = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        sources.push(entry?.path());
    }
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    sources.push(root.join("crates/antlm-nn/tests/cuda/probes.cu"));
    sources.sort();
    let script = root.join("xtask/src/check_kernels.py");
    let output =
        Command::new(&python).arg(script).arg(&folder).args(&sources).output().context("cannot start Python")?;
    if !output.status.success() {
        bail!("check_kernels.py failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    println!("{:<34} {:<7} {:>9} {:>8} {:>8}", "kernel", "card", "registers", "shared", "spilled");
    let (mut wrong, mut names) = (Vec::new(), BTreeSet::new());
    for line in String::from_utf8(output.stdout)?.lines() {
        let said: serde_json::Value = serde_json::from_str(line)?;
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        let (source, arch, log) = (text("source"), text("arch"), text("log"));
        if said["rc"] != 0 || log.contains("warning") {
            wrong.push(format!("{source} for {arch}:\n{log}"));
        }
        for kernel in kernels(&log) {
            let Kernel { name, registers, shared, spilled } = &kernel;
            println!("{name:<34} {arch:<7} {registers:>9} {shared:>8} {spilled:>8}");
            let may = SPILLS.iter().find(|(of, _)| of == name).map_or(0, |(_, bytes)| *bytes);
            if *spilled > may {
                wrong.push(format!("{name} for {arch} spills {spilled} bytes of registers, and may {may}"));
            }
            names.insert(kernel.name);
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    if names.is_empty() {
        bail!("the compiler names no kernel");
    }
    println!("{} kernels, those of the tests among them, compiled by {}", names.len(), options.nvrtc);
    Ok(())
}

/// A virtual environment with NVRTC.
fn environment(work: &Path, package: &str) -> Result<PathBuf> {
    let venv = work.join(package.replace("==", "-"));
    let python = venv.join("bin/python");
    let done = venv.join("installed");
    if done.exists() {
        return Ok(python);
    }
    fs::create_dir_all(work).with_context(|| work.display().to_string())?;
    for (program, args) in [
        (Path::new("python3"), vec!["-m", "venv", venv.to_str().context("a path that is text")?]),
        (&python, vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]),
    ] {
        let status = Command::new(program).args(&args).status().context("cannot start python3")?;
        if !status.success() {
            bail!("{} {} failed", program.display(), args.join(" "));
        }
    }
    fs::write(&done, "").with_context(|| done.display().to_string())?;
    Ok(python)
}

/// Reads the log of `ptxas -v`.
fn kernels(log: &str) -> Vec<Kernel> {
    let mut kernels: Vec<Kernel> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default().to_owned();
            kernels.push(Kernel { name, ..Kernel::default() });
        } else if let Some(kernel) = kernels.last_mut() {
            kernel.spilled += before(line, "bytes spill stores") + before(line, "bytes spill loads");
            kernel.registers += before(line, "registers");
            kernel.shared += before(line, "bytes smem");
        }
    }
    kernels
}

/// The number before these words; 0 without them.
fn before(line: &str, words: &str) -> u64 {
    let number = line.split_once(words).and_then(|(before, _)| before.split_whitespace().next_back());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_read() {
        let log = "ptxas info    : 8 bytes gmem\n\
                   ptxas info    : Compiling entry function 'a' for 'sm_80'\n\
                   ptxas info    : Function properties for a\n\
                   ptxas         .     16 bytes stack frame, 20 bytes spill stores, 4 bytes spill loads\n\
                   ptxas info    : Used 42 registers, used 1 barriers, 16 bytes smem, 392 bytes cmem[0]\n\
                   ptxas info    : Compiling entry function 'b' for 'sm_80'\n\
                   ptxas info    : Used 7 registers, used 0 barriers\n";
        let a = Kernel { name: "a".into(), registers: 42, shared: 16, spilled: 24 };
        let b = Kernel { name: "b".into(), registers: 7, shared: 0, spilled: 0 };
        assert_eq!(kernels(log), [a, b]);
    }
}
