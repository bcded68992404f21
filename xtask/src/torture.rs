//! `cargo xtask torture`: runs that are killed, whose files fail or are damaged. Whatever happens, a run ends with the bytes
//! of an undisturbed one, or antlm says what is wrong.
//!
//! Three parts: `kills` (SIGKILL at random moments), `faults` (the k-th write, fsync or rename fails, for every k; see
//! `xtask/faults`) and `mutations` (flipped bits and cut files).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::mutations;

/// Kills runs, lets their files fail and damages them; nothing may be lost or change silently (Linux)
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask torture                                                     the long one
  cargo xtask torture --kills 12 --fault-stride 25 --mutations 1000       the one of .ci/run
A part with 0 is left out. The seed is printed; the same seed disturbs in the same order, though at what moment a signal
arrives no seed decides.")]
pub struct Options {
    /// Kill at least so many times
    #[arg(long, value_name = "N", default_value_t = 200)]
    kills: u32,
    /// Let every N-th file operation fail, one after another
    #[arg(long, value_name = "N", default_value_t = 1)]
    fault_stride: u64,
    /// Damage files so many times
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    mutations: u64,
    /// What decides moments, places and bits
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Small runs that have, between them, every objective, switches, several epochs, milestones, averaged weights and steps
/// that are skipped.
const RECIPES: [(&str, &str); 3] = [
    (
        "ltg",
        "base = \"ltg-bert-tiny\"\nschedule = \"2 clm + 1 mlm + 1 mntp\"\n[optimizer]\nema_decay = 0.9\n\
         [checkpoints]\nevery = 8\nmilestones = [500, 1000, 4000]\n\
         [health]\nspikes = \"skip\"\nspike_z = 1.5\nwindow = 8\n",
    ),
    ("llama", "base = \"babyllama-tiny\"\nschedule = \"1 mntp + 2 clm\"\n[checkpoints]\nevery = 5\n"),
    ("often", "base = \"ltg-bert-tiny\"\nschedule = \"1 mlm + 1 clm\"\n[checkpoints]\nevery = 1\n"),
];
const SIZES: &str = "version = 1\nseq_len = 32\nmodel.layers = 1\nmodel.hidden = 16\nmodel.heads = 2\n\
                     model.intermediate = 32\nmodel.vocab_size = 300\nbatch.segments = 8\nbatch.micro_tokens = 100\n\
                     dev.max_segments = 8\n";

/// Numbers that look random, from a seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below n.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// A folder with text and recipes, and the program.
pub struct Toy {
    folder: PathBuf,
    antlm: PathBuf,
}

impl Toy {
    fn new(root: &Path, antlm: PathBuf) -> Result<Toy> {
        let folder = root.join("target/torture");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let toy = Toy { folder, antlm };
        toy.succeeds(&["sample-text", "--words", "2500", "--seed", "3", "--out", &toy.path("text.txt")])?;
        for (name, recipe) in RECIPES {
            fs::write(toy.path(&format!("{name}.toml")), format!("{SIZES}{recipe}"))?;
        }
        Ok(toy)
    }

    /// Absolute, as the faults need it.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.antlm);
        command.args(args).current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// The status and what was said on stderr.
    fn run(&self, command: &mut Command) -> Result<(ExitStatus, String)> {
        let output = command.output().with_context(|| self.antlm.display().to_string())?;
        Ok((output.status, String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    pub fn succeeds(&self, args: &[&str]) -> Result<()> {
        let (status, said) = self.run(&mut self.command(args))?;
        if !status.success() {
            bail!("antlm {}: {status}: {said}", args.join(" "));
        }
        Ok(())
    }

    fn start(&self, recipe: &str, run: &str, threads: u64) -> Vec<String> {
        let (recipe, text) = (self.path(&format!("{recipe}.toml")), self.path("text.txt"));
        let (out, threads) = (self.path(run), threads.to_string());
        let args = ["train", &recipe, "--text", &text, "--out", &out, "--quiet", "--threads", &threads];
        args.map(str::to_owned).to_vec()
    }

    fn resume(&self, run: &str, threads: u64) -> Vec<String> {
        ["train", "--resume", &self.path(run), "--quiet", "--threads", &threads.to_string()].map(str::to_owned).to_vec()
    }

    /// A run that nothing disturbs.
    pub fn whole(&self, recipe: &str, run: &str) -> Result<()> {
        let args = self.start(recipe, run, 2);
        self.succeeds(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts a run, or goes on with it where there is one.
    fn go_on(&self, recipe: &str, run: &str, threads: u64) -> Vec<String> {
        if Path::new(&self.path(run)).join("recipe.toml").exists() {
            return self.resume(run, threads);
        }
        // Nothing was trained yet: what was left is no run, and its owner would remove it.
        let _ = fs::remove_dir_all(self.path(run));
        self.start(recipe, run, threads)
    }

    fn left(&self, run: &str) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        left(Path::new(&self.path(run)))
    }

    fn same(&self, whole: &str, run: &str) -> Result<()> {
        let (expected, found) = (self.left(whole)?, self.left(run)?);
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| {
            files.keys().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        };
        if !expected.keys().eq(found.keys()) {
            bail!("{run} has {}, but {whole} {}", names(&found), names(&expected));
        }
        match expected.iter().find(|(path, bytes)| found[*path] != **bytes) {
            Some((path, _)) => bail!("{run}: {} differs from that of {whole}", path.display()),
            None => Ok(()),
        }
    }
}

/// What a run leaves, without clock, machine and lock.
pub fn left(run: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    collect(run, run, &mut files)?;
    for name in ["timing.jsonl", "environment.json", ".lock"] {
        files.remove(Path::new(name));
    }
    Ok(files)
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else {
            files.insert(path.strip_prefix(root)?.to_owned(), fs::read(&path)?);
        }
    }
    Ok(())
}

/// Runs all parts.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let toy = Toy::new(root, crate::build_antlm(root, &[])?)?;
    println!("seed {}", options.seed);
    let began = Instant::now();
    for (recipe, _) in RECIPES {
        toy.whole(recipe, &format!("whole-{recipe}"))?;
    }
    let each = began.elapsed() / RECIPES.len() as u32;
    if options.kills > 0 {
        kills(&toy, options, each)?;
    }
    if options.fault_stride > 0 {
        let faults = build_faults(root)?;
        for (call, hows) in [
            ("write", &["error", "full", "short", "cut", "after"][..]),
            ("fsync", &["error", "cut", "after"]),
            ("rename", &["error", "cut", "after"]),
        ] {
            for how in hows {
                fault(&toy, &faults, call, how, options)?;
            }
        }
    }
    if options.mutations > 0 {
        // A run of its own: the faults remove the prepared text of the others.
        toy.whole("ltg", "mutated")?;
        mutations::run(&toy, options.mutations, &mut Random(options.seed))?;
    }
    println!("nothing was lost ({:.0} s)", began.elapsed().as_secs_f64());
    Ok(())
}

/// SIGKILL at random moments, with a random number of threads at every start, until there were enough.
fn kills(toy: &Toy, options: &Options, each: Duration) -> Result<()> {
    let mut random = Random(options.seed);
    let (mut killed, mut runs) = (0, 0);
    while killed < options.kills {
        let recipe = RECIPES[runs % RECIPES.len()].0;
        let run = "killed";
        let _ = fs::remove_dir_all(toy.path(run));
        for _ in 0..12 {
            let args = toy.go_on(recipe, run, 1 + random.below(3));
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let mut child = toy.command(&args).spawn()?;
            std::thread::sleep(Duration::from_micros(random.below(each.as_micros() as u64 * 3 / 4)));
            child.kill()?;
            let output = child.wait_with_output()?;
            if output.status.success() {
                break;
            }
            if output.status.signal() != Some(9) {
                bail!("antlm {}: {}: {}", args.join(" "), output.status, String::from_utf8_lossy(&output.stderr));
            }
            killed += 1;
        }
        let args = toy.go_on(recipe, run, 2);
        toy.succeeds(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
        toy.same(&format!("whole-{recipe}"), run)?;
        runs += 1;
    }
    println!("kills: {killed} over {runs} runs; every one ended with the bytes of an undisturbed run");
    Ok(())
}

fn build_faults(root: &Path) -> Result<PathBuf> {
    crate::cargo(root, &["build", "--release", "-p", "faults"])?;
    Ok(root.join("target/release/libfaults.so"))
}

/// One kind of fault, at every k that there is.
fn fault(toy: &Toy, faults: &Path, call: &str, how: &str, options: &Options) -> Result<()> {
    // From the smallest k, with a start that the seed decides where not all are tried.
    let mut at = 1 + Random(options.seed ^ how.len() as u64).below(options.fault_stride);
    let (mut tried, mut ended) = (0, 0);
    let (recipe, run) = ("llama", "faulty");
    loop {
        let (mark, prepared) = (toy.path("mark"), toy.path("prepared"));
        let _ = fs::remove_file(&mark);
        for folder in [&toy.path(run), &prepared] {
            let _ = fs::remove_dir_all(folder);
        }
        let args = toy.start(recipe, run, 2);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = toy.command(&args);
        command.env("LD_PRELOAD", faults).env("FAULT_CALL", call).env("FAULT_HOW", how).env("FAULT_MARK", &mark);
        command.env("FAULT_AT", at.to_string()).env("FAULT_BELOW", &toy.folder);
        let (status, said) = toy.run(&mut command)?;
        if !Path::new(&mark).exists() {
            if !status.success() {
                bail!("{call} {at} {how}: failed without a fault: {status}: {said}");
            }
            break;
        }
        let what = format!("{call} {at} {how}");
        // An error has to be said, with a code that means one; a short write is none.
        match (how, status.code(), status.signal()) {
            ("cut" | "after", None, Some(9)) | ("short", Some(0), None) => {}
            ("error" | "full", Some(0), None) => {}
            ("error" | "full", Some(1..=4), None) if said.contains("antlm: ") => ended += 1,
            _ => bail!("{what}: {status}: {said}"),
        }
        let args = toy.go_on(recipe, run, 1);
        toy.succeeds(&args.iter().map(String::as_str).collect::<Vec<_>>()).context(what.clone())?;
        toy.same(&format!("whole-{recipe}"), run).context(what)?;
        tried += 1;
        at += options.fault_stride;
    }
    if tried == 0 && options.fault_stride == 1 {
        bail!("no {call} was made to fail: is {} there?", faults.display());
    }
    println!("faults: {call} {how}: {tried} tried, {ended} ended the run with an error; all went on to the same bytes");
    Ok(())
}
