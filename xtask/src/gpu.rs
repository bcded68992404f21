//! `cargo xtask gpu`: everything that is to be seen on an NVIDIA card, in one go: tests of kernels and steps, runs beside
//! those of the CPU, the memory checker, step times beside PyTorch's. A table and files are left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{gpu_runs, gpu_speed};

/// Tests and measures on an NVIDIA card: kernels, steps, goldens, runs beside the CPU's, compute-sanitizer, step times
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask gpu --python venv/bin/python          on the machine that has the card
  cargo xtask gpu --emulated                        the same on an emulated card, without step times: is this program right?
Where the card's machine cannot build, pack here and carry the folder:
  cargo xtask gpu --pack gpu-pack
  gpu-pack/xtask gpu --packed gpu-pack --python python3 --out seen
The card's machine needs NVIDIA's driver, NVRTC and cuBLASLt; PyTorch for the comparison; compute-sanitizer if it is there.
In --out: summary.md, summary.json and what every part said. The exit code says whether every part passed.")]
pub struct Options {
    /// Build what is needed into this folder, and do nothing else
    #[arg(long, value_name = "DIR", conflicts_with_all = ["packed", "emulated"])]
    pack: Option<PathBuf>,
    /// Take the programs from a folder that --pack made
    #[arg(long, value_name = "DIR", conflicts_with = "emulated")]
    packed: Option<PathBuf>,
    /// An emulated card instead of one of this machine
    #[arg(long)]
    emulated: bool,
    /// A Python with PyTorch for CUDA
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// How often each program's steps are timed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where reports go
    #[arg(long, value_name = "DIR", default_value = "target/gpu")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Every kernel, and products, against the CPU's operations
    Kernels,
    /// Whole steps and goldens
    Steps,
    /// Runs of the program: determinism, resuming, moving, agreement with the CPU
    Runs,
    /// compute-sanitizer's memcheck
    Sanitizer,
    /// Step times
    Speed,
}

/// The programs, and the folder that has `tests/golden`.
struct Programs {
    antlm: PathBuf,
    kernels: PathBuf,
    steps: PathBuf,
    peer: PathBuf,
    goldens: PathBuf,
}

/// One line of the table.
pub struct Check {
    pub part: &'static str,
    pub name: String,
    /// What was seen, or what is wrong.
    pub found: std::result::Result<String, String>,
    pub seconds: f64,
}

/// All of it is to end within eight minutes, so that it fits where a card is lent for ten.
#[derive(Clone, Copy)]
pub struct Clock {
    ends: Instant,
}

impl Clock {
    fn start(seconds: u64) -> Clock {
        Clock { ends: Instant::now() + Duration::from_secs(seconds) }
    }

    /// For a program: three minutes at the most.
    fn left(self) -> Result<Duration> {
        let left = self.ends.saturating_duration_since(Instant::now());
        ensure!(left > Duration::from_secs(1), "not begun: the time for all of it is over");
        Ok(left.min(Duration::from_secs(180)))
    }

    /// A program that is stopped where it takes longer than is left (by coreutils' `timeout`, exit code 124).
    pub fn command(self, program: &Path) -> Result<Command> {
        let mut command = Command::new("timeout");
        command.arg("--kill-after=5").arg(format!("{:.1}", self.left()?.as_secs_f64())).arg(program);
        Ok(command)
    }
}

/// Does all of it.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    if let Some(folder) = &options.pack {
        return pack(root, folder);
    }
    fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let out = options.out.canonicalize().with_context(|| options.out.display().to_string())?;
    let programs = match &options.packed {
        Some(folder) => packed(&folder.canonicalize().with_context(|| folder.display().to_string())?),
        None => built(root, options.emulated)?,
    };
    let clock = Clock::start(470);
    opens(&programs.antlm, clock)?;
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let (began, mut checks, mut speed) = (Instant::now(), Vec::new(), String::new());
    let mut note = |check: Check| {
        let (mark, text) = match &check.found {
            Ok(text) => ("ok", text),
            Err(text) => ("FAILED", text),
        };
        println!("{:>7.1} s  {mark:<6}  {}: {}: {}", check.seconds, check.part, check.name, first_line(text));
        checks.push(check);
    };
    // CI runs these tests on the emulated card by themselves.
    if wanted(Part::Kernels) && !options.emulated {
        note(tests(&programs, &programs.kernels, "kernels", &["--skip", "emulator::"], clock, &out));
    }
    if wanted(Part::Steps) && !options.emulated {
        note(tests(&programs, &programs.steps, "steps", &["--skip", "emulated_card"], clock, &out));
    }
    if wanted(Part::Runs) {
        gpu_runs::run(&programs.antlm, &out.join("runs"), options.emulated, clock, &mut note)?;
    }
    if wanted(Part::Sanitizer) && !options.emulated {
        note(sanitizer(&programs, clock, &out));
    }
    if wanted(Part::Speed) {
        let python = options.python.as_deref();
        let cells = if options.emulated { &gpu_speed::TRIAL } else { &gpu_speed::CELLS };
        match gpu_speed::run(&programs.antlm, &programs.peer, python, cells, options.rounds, clock, &mut note) {
            Ok(table) => speed = table,
            Err(error) => note(Check::of("speed", "step times", Instant::now(), Err(error))),
        }
    }
    let card = if options.emulated { "an emulated card".into() } else { card() };
    summary(&out, &card, &checks, &speed, began.elapsed())?;
    println!("{}", out.join("summary.md").display());
    match checks.iter().filter(|check| check.found.is_err()).count() {
        0 if !checks.is_empty() => Ok(()),
        0 => bail!("nothing was checked"),
        failed => bail!("{failed} of {} failed", checks.len()),
    }
}

/// Whether the program can use the card at all; otherwise everything would fail for the same reason.
fn opens(antlm: &Path, clock: Clock) -> Result<()> {
    let step = ["bench", "ltg-bert-tiny", "--objective", "clm", "--batch", "1", "--seq", "16", "--steps", "1"];
    let mut command = clock.command(antlm)?;
    let output = command.args(step).args(["--device", gpu_runs::CARD]).stdin(Stdio::null()).output();
    let output = output.with_context(|| antlm.display().to_string())?;
    ensure!(output.status.code() != Some(124), "{}: the card does not answer", gpu_runs::CARD);
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

impl Check {
    /// A check that began then.
    pub fn of(part: &'static str, name: impl Into<String>, began: Instant, found: Result<String>) -> Check {
        let found = found.map_err(|error| format!("{error:#}"));
        Check { part, name: name.into(), found, seconds: began.elapsed().as_secs_f64() }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What cargo builds: the program for cards, and the tests that can have both kinds of card.
fn built(root: &Path, emulated: bool) -> Result<Programs> {
    let features = if emulated { "cuda-emulation" } else { "cuda" };
    let antlm = crate::build_antlm(root, &[features])?;
    let (peer, goldens) = (root.join("bench/peers/torch_peer.py"), root.join("crates/antlm"));
    if emulated {
        return Ok(Programs { antlm, kernels: PathBuf::new(), steps: PathBuf::new(), peer, goldens });
    }
    let test = |package: &str| {
        let package = format!("--package={package}");
        crate::artifact(root, &["test", "--no-run", &package, "--features=cuda,cuda-emulation", "--test=cuda"])
    };
    let (kernels, steps) = (test("antlm-nn")?, test("antlm")?);
    Ok(Programs { antlm, kernels, steps, peer, goldens })
}

fn packed(folder: &Path) -> Programs {
    let [antlm, kernels, steps, peer] = ["antlm", "kernels", "steps", "torch_peer.py"].map(|name| folder.join(name));
    Programs { antlm, kernels, steps, peer, goldens: folder.to_owned() }
}

/// Builds and gathers what another machine needs.
fn pack(root: &Path, folder: &Path) -> Result<()> {
    let programs = built(root, false)?;
    let to = packed(folder);
    let goldens = "tests/golden";
    fs::create_dir_all(folder.join(goldens)).with_context(|| folder.display().to_string())?;
    let this = crate::build(root, &["--package=xtask"])?;
    let mut files = vec![(this, folder.join("xtask")), (programs.antlm, to.antlm), (programs.kernels, to.kernels)];
    files.extend([(programs.steps, to.steps), (programs.peer, to.peer)]);
    for entry in fs::read_dir(programs.goldens.join(goldens))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let name = path.file_name().context("a golden file without a name")?;
            files.push((path.clone(), folder.join(goldens).join(name)));
        }
    }
    let mut bytes = 0;
    for (from, to) in &files {
        fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
        if from.extension().is_none() {
            // Symbols are most of a program here. Without the tool it is carried with them.
            let _ = Command::new("strip").arg(to).stderr(Stdio::null()).status();
        }
        bytes += fs::metadata(to)?.len();
    }
    println!("{}: {} files, {:.1} MB", folder.display(), files.len(), bytes as f64 / 1e6);
    Ok(())
}

/// Runs a test program on the card.
fn tests(programs: &Programs, program: &Path, part: &'static str, more: &[&str], clock: Clock, out: &Path) -> Check {
    let began = Instant::now();
    let found = clock.command(program).and_then(|mut command| {
        command.args(more);
        on_card(&mut command, programs);
        passed(&mut command, &out.join(format!("{part}.txt")))
    });
    Check::of(part, "tests on the card", began, found)
}

fn on_card(command: &mut Command, programs: &Programs) {
    command.env("ANTLM_CARD", "1").env("CARGO_MANIFEST_DIR", &programs.goldens);
}

/// The line in which a test program says how many passed.
fn passed(command: &mut Command, log: &Path) -> Result<String> {
    let said = finish(command, log)?;
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("test result: ")).collect();
    match lines[..] {
        [line] if !line.contains(" 0 passed") => Ok(line.trim_start_matches("test result: ").into()),
        _ => bail!("no test ran; see {}", log.display()),
    }
}

/// Runs a program; its output is kept, and given back.
fn finish(command: &mut Command, log: &Path) -> Result<String> {
    let file = fs::File::create(log).with_context(|| log.display().to_string())?;
    let name = command.get_program().display().to_string();
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let status = command.status().with_context(|| name.clone())?;
    ensure!(status.code() != Some(124), "it took too long; see {}", log.display());
    let said = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    if !status.success() {
        let failed: Vec<&str> = said.lines().filter(|line| line.ends_with("FAILED")).collect();
        bail!("{status}; {}; see {}", failed.join(", "), log.display());
    }
    Ok(said)
}

/// The memory checker over operations of every kind, where NVIDIA's tool is there.
fn sanitizer(programs: &Programs, clock: Clock, out: &Path) -> Check {
    let began = Instant::now();
    let tool = ["compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer"]
        .into_iter()
        .find(|tool| Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success()));
    let found = match tool {
        None => Ok("not here: compute-sanitizer is neither on the path nor in /usr/local/cuda".to_owned()),
        Some(tool) => clock.command(Path::new(tool)).and_then(|mut command| {
            command.args(["--tool=memcheck", "--leak-check=no", "--error-exitcode=9"]).arg(&programs.kernels);
            command.args(["--skip", "emulator::", "--test-threads=1"]);
            on_card(&mut command, programs);
            passed(&mut command, &out.join("sanitizer.txt"))
        }),
    };
    Check::of("sanitizer", "memcheck of every kernel", began, found)
}

/// The card's name and the driver's version, as NVIDIA's tool says them.
fn card() -> String {
    let asked = ["--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader", "--id=0"];
    let output = Command::new("nvidia-smi").args(asked).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "a card that nvidia-smi says nothing of".into(),
    }
}

/// Writes `summary.md` and `summary.json`.
fn summary(out: &Path, card: &str, checks: &[Check], speed: &str, took: Duration) -> Result<()> {
    let mut text = format!(
        "{card}; {:.0} s\n\n| part | check | passed | s | what was seen |\n|---|---|---|---|---|\n",
        took.as_secs_f64()
    );
    for check in checks {
        let (mark, found) = match &check.found {
            Ok(found) => ("yes", found),
            Err(found) => ("**no**", found),
        };
        let found = first_line(found).replace('|', "\\|");
        text += &format!("| {} | {} | {mark} | {:.1} | {found} |\n", check.part, check.name, check.seconds);
    }
    text += &format!("\n{speed}");
    let lines: Vec<Value> = checks
        .iter()
        .map(|check| {
            let (passed, found) = match &check.found {
                Ok(found) => (true, found),
                Err(found) => (false, found),
            };
            json!({ "part": check.part, "check": check.name, "passed": passed, "seconds": check.seconds, "found": found })
        })
        .collect();
    let all = json!({ "card": card, "seconds": took.as_secs_f64(), "checks": lines, "speed": speed });
    for (name, text) in [("summary.md", text), ("summary.json", format!("{all:#}\n"))] {
        fs::write(out.join(name), text).with_context(|| out.join(name).display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests_of_it {
    use super::*;

    #[test]
    fn what_failed_is_said_and_kept() {
        let folder = std::env::temp_dir().join(format!("antlm-gpu-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join("log.txt");
        let shell = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]);
            command
        };
        let good = "echo 'test result: ok. 3 passed; 0 failed'";
        assert_eq!(passed(&mut shell(good), &log).unwrap(), "ok. 3 passed; 0 failed");
        assert!(passed(&mut shell("echo 'test result: ok. 0 passed; 0 failed'"), &log).is_err());
        let bad = passed(&mut shell("echo 'test norm::x ... FAILED'; exit 101"), &log).unwrap_err().to_string();
        assert!(bad.contains("norm::x") && bad.contains("log.txt"), "{bad}");
        let checks = [
            Check { part: "steps", name: "a".into(), found: Ok("fine|so".into()), seconds: 1.0 },
            Check { part: "runs", name: "b".into(), found: Err("off by 2\nmore".into()), seconds: 2.0 },
        ];
        summary(&folder, "a card", &checks, "", Duration::from_secs(3)).unwrap();
        let text = fs::read_to_string(folder.join("summary.md")).unwrap();
        assert!(text.contains("| steps | a | yes | 1.0 | fine\\|so |") && text.contains("| **no** | 2.0 | off by 2 |"));
        let all: Value = serde_json::from_str(&fs::read_to_string(folder.join("summary.json")).unwrap()).unwrap();
        assert_eq!(all["checks"][1]["passed"], false);
        fs::remove_dir_all(&folder).unwrap();
    }
}
