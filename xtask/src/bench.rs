//! `cargo xtask bench`: step times of antlm, PyTorch and burn, by turns on the same machine, as a Markdown table.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::bench_floor::{self, Peer};
use antlm::objective::Objective;
use antlm_nn::kernels::matmul::Precision;
use antlm_nn::kernels::work::Products;

/// Step times of antlm beside PyTorch's, by turns
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench
  cargo xtask bench --python venv/bin/python --compile --rounds 5 --json target/bench.json
  cargo xtask bench --python venv/bin/python --compile --bf16
In every round each program runs once a cell (8 x 128 tokens), the second round in the opposite order, and so on.
Then come the products of that step alone, each by the quicker of antlm's library and PyTorch's: the floor.
Let nothing else run meanwhile. bench/peers/README.md says how to make the Python.")]
pub struct Options {
    /// A Python with PyTorch; without it antlm runs alone
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// The peer's script
    #[arg(long, value_name = "FILE", default_value = "bench/peers/torch_peer.py")]
    peer: PathBuf,
    /// Also the peer with torch.compile
    #[arg(long, requires = "python")]
    compile: bool,
    /// Operands of products in bf16, here and there
    #[arg(long)]
    bf16: bool,
    /// Recipes that the peer knows by the same names
    #[arg(long, value_delimiter = ',', default_value = "ltg-bert-small,babyllama-58m")]
    models: Vec<String>,
    /// clm, mlm
    #[arg(long, value_delimiter = ',', default_value = "clm,mlm")]
    objectives: Vec<String>,
    /// How often everything is run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Steps timed in one run, after two that warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Threads of each program (default: what each takes by itself)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Also a plain transformer of the same size in burn, always in f32 (bench/peers/burn; builds it first: minutes)
    #[arg(long)]
    burn: bool,
    /// Also write every run's line and the machine here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    fn precision(&self) -> Precision {
        if self.bf16 { Precision::Bf16 } else { Precision::F32 }
    }
}

/// One of the programs that are compared.
struct Program {
    name: &'static str,
    /// The program, and what comes before the model.
    start: Vec<String>,
    /// What comes between model and objective.
    objective: &'static [&'static str],
    /// What comes at the end.
    end: Vec<&'static str>,
}

/// The runs of one model and objective: `[program][round]`.
struct Cell {
    model: String,
    objective: String,
    runs: Vec<Vec<Value>>,
    products: Products,
    /// By round: seconds of the floor, and operations a second of a large product.
    floors: Vec<(f64, f64)>,
}

/// Runs everything and prints the table.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let programs = programs(root, options)?;
    if let Some(threads) = options.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build_global()?;
    }
    let script = root.join("bench/peers/torch_products.py");
    let peer = options.python.clone().map(|python| Peer { python, script });
    let mut cells = Vec::new();
    for model in &options.models {
        for objective in &options.objectives {
            let (model, objective) = (model.clone(), objective.clone());
            let taught = serde_json::from_value::<Objective>(json!(objective)).context("--objectives")?;
            let shape = antlm::bench::Options {
                objective: taught,
                batch: 8,
                seq: 128,
                steps: 0,
                precision: options.precision().into(),
            };
            let products = bench_floor::of_step(&model, shape)?;
            cells.push(Cell { model, objective, runs: vec![Vec::new(); programs.len()], products, floors: Vec::new() });
        }
    }
    for round in 0..options.rounds {
        for cell in &mut cells {
            for turn in 0..programs.len() {
                let index = if round % 2 == 0 { turn } else { programs.len() - 1 - turn };
                let line = one(&programs[index], cell, options)?;
                let (seconds, name) = (number(&line, "seconds_median")?, programs[index].name);
                eprintln!("round {}: {} {}, {name}: {seconds:.3} s a step", round + 1, cell.model, cell.objective);
                cell.runs[index].push(line);
            }
            let (seconds, peak) = bench_floor::seconds(&cell.products, options.precision(), peer.as_ref())?;
            eprintln!("round {}: {} {}, its products: {seconds:.3} s", round + 1, cell.model, cell.objective);
            cell.floors.push((seconds, peak));
        }
    }
    let machine = machine(&programs, &cells, options);
    print!("{}", table(&programs, &cells)?);
    if programs.len() > 1 {
        print!("\n{}", ahead(&programs, &cells)?);
    }
    for (cell, program) in without_loss(&programs, &cells) {
        println!("\n{cell}: the loss of {program} is no number; its time counts as the others' do.");
    }
    println!("\n{machine}");
    if let Some(path) = &options.json {
        let runs: Vec<&Value> = cells.iter().flat_map(|cell| cell.runs.iter().flatten()).collect();
        let floors = cells.iter().map(|cell| {
            json!({ "model": cell.model, "objective": cell.objective, "operations": bench_floor::operations(&cell.products),
                    "floors": cell.floors })
        });
        let floors: Vec<Value> = floors.collect();
        let text = serde_json::to_string_pretty(&json!({ "machine": machine, "runs": runs, "floors": floors }))?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn programs(root: &Path, options: &Options) -> Result<Vec<Program>> {
    let antlm = crate::build_antlm(root, &[])?.display().to_string();
    let start = vec![antlm, "bench".into()];
    let end = ["--json"].into_iter().chain(options.bf16.then_some("--precision=bf16")).collect();
    let mut programs = vec![Program { name: "antlm", start, objective: &["--objective"], end }];
    if let Some(python) = &options.python {
        // Cargo runs us where the user stands; the default script lies in the repository.
        let peer = if options.peer.exists() { options.peer.clone() } else { root.join(&options.peer) };
        let start = vec![python.display().to_string(), peer.display().to_string()];
        let bf16 = options.bf16.then_some("--bf16");
        let end = |compile: Option<&'static str>| bf16.into_iter().chain(compile).collect();
        programs.push(Program { name: "torch", start: start.clone(), objective: &[], end: end(None) });
        if options.compile {
            let end = end(Some("--compile"));
            programs.push(Program { name: "torch.compile", start, objective: &[], end });
        }
    }
    if options.burn {
        let args = ["--manifest-path=bench/peers/burn/Cargo.toml", "--target-dir=target/burn-peer"];
        let start = vec![crate::build(root, &args)?.display().to_string()];
        programs.push(Program { name: "burn", start, objective: &[], end: Default::default() });
    }
    Ok(programs)
}

/// Runs a program once; its line of JSON.
fn one(program: &Program, cell: &Cell, options: &Options) -> Result<Value> {
    let mut command = Command::new(&program.start[0]);
    command.args(&program.start[1..]).arg(&cell.model).args(program.objective).arg(&cell.objective);
    command.args(["--batch=8", "--seq=128", &format!("--steps={}", options.steps)]).args(&program.end);
    if let Some(threads) = options.threads {
        command.arg(format!("--threads={threads}"));
    }
    let output = command.stderr(Stdio::inherit()).output().with_context(|| program.start[0].clone())?;
    if !output.status.success() {
        bail!("{} {} {} failed: {}", program.name, cell.model, cell.objective, output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().with_context(|| format!("{} printed nothing", program.name))?;
    serde_json::from_str(line).with_context(|| format!("{}: {line}", program.name))
}

/// A row a cell: medians over the rounds; the ratios are those of runs of the same round.
fn table(programs: &[Program], cells: &[Cell]) -> Result<String> {
    let (peers, mut text) = (&programs[1..], String::new());
    let mut heads = vec!["cell".to_owned()];
    heads.extend(programs.iter().map(|program| format!("{}, s a step", program.name)));
    heads.extend(peers.iter().map(|peer| format!("{}/antlm (min-max)", peer.name)));
    heads.extend(["floor, s", "antlm/floor (min-max)", "antlm, GFLOP/s", "of peak"].map(String::from));
    heads.extend(programs.iter().map(|program| format!("{}, peak MB", program.name)));
    text += &format!("| {} |\n|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    for cell in cells {
        let column =
            |index: usize, key| cell.runs[index].iter().map(|run| number(run, key)).collect::<Result<Vec<_>>>();
        let mut row = vec![format!("{} {}", cell.model, cell.objective)];
        for index in 0..programs.len() {
            row.push(format!("{:.3}", median(&column(index, "seconds_median")?)));
        }
        let ours = column(0, "seconds_median")?;
        for index in 1..programs.len() {
            let theirs = column(index, "seconds_median")?;
            row.push(spread(theirs.iter().zip(&ours).map(|(theirs, ours)| theirs / ours)));
        }
        let floors = || cell.floors.iter().zip(&ours);
        row.push(format!("{:.3}", median(&floors().map(|(floor, _)| floor.0).collect::<Vec<_>>())));
        row.push(spread(floors().map(|(floor, ours)| ours / floor.0)));
        let operations = bench_floor::operations(&cell.products) as f64;
        row.push(format!("{:.0}", operations / median(&ours) / 1e9));
        let share = |((_, peak), ours): (&(f64, f64), &f64)| operations / ours / peak;
        row.push(format!("{:.0} %", 100.0 * median(&floors().map(share).collect::<Vec<_>>())));
        for index in 0..programs.len() {
            row.push(format!("{:.0}", median(&column(index, "peak_bytes")?) / 1e6));
        }
        text += &format!("| {} |\n", row.join(" | "));
    }
    Ok(text)
}

/// A row a cell: each peer, of PyTorch the quicker of its ways in a round, against antlm and against the floor. The latter
/// is how far ahead of that peer a program would be that did nothing but products.
fn ahead(programs: &[Program], cells: &[Cell]) -> Result<String> {
    let of = |kind: &'static str| {
        let peers = (1..programs.len()).filter(|&index| programs[index].name.starts_with(kind));
        (kind, peers.collect::<Vec<_>>())
    };
    let kinds: Vec<_> = ["torch", "burn"].map(of).into_iter().filter(|(_, peers)| !peers.is_empty()).collect();
    let head = |kind| format!(" quickest {kind}/antlm (min-max) | {kind}/floor (min-max) |");
    let heads: String = kinds.iter().map(|(kind, _)| head(kind)).collect();
    let mut text = format!("| cell |{heads}\n|---|{}\n", "---|".repeat(2 * kinds.len()));
    for cell in cells {
        text += &format!("| {} {} |", cell.model, cell.objective);
        for (_, peers) in &kinds {
            let (mut ahead, mut beyond) = (Vec::new(), Vec::new());
            for (round, floor) in cell.floors.iter().enumerate() {
                let seconds = |index: usize| number(&cell.runs[index][round], "seconds_median");
                let theirs = peers.iter().map(|&peer| seconds(peer)).collect::<Result<Vec<_>>>()?;
                let theirs = theirs.into_iter().fold(f64::MAX, f64::min);
                ahead.push(theirs / seconds(0)?);
                beyond.push(theirs / floor.0);
            }
            text += &format!(" {} | {} |", spread(ahead.into_iter()), spread(beyond.into_iter()));
        }
        text += "\n";
    }
    Ok(text)
}

/// Cells and programs that computed something else than a loss.
fn without_loss(programs: &[Program], cells: &[Cell]) -> Vec<(String, &'static str)> {
    let name = |cell: &Cell| format!("{} {}", cell.model, cell.objective);
    let all = cells.iter().flat_map(|cell| cell.runs.iter().zip(programs).map(move |of| (cell, of)));
    let broken = all.filter(|(_, (runs, _))| runs.iter().any(|run| run["last_loss"].is_null()));
    broken.map(|(cell, (_, program))| (name(cell), program.name)).collect()
}

/// The median of some ratios, and between what they lie.
pub fn spread(ratios: impl Iterator<Item = f64>) -> String {
    let ratios: Vec<f64> = ratios.collect();
    let (low, high) = ratios.iter().fold((f64::MAX, f64::MIN), |(l, h), &x| (l.min(x), h.max(x)));
    format!("{:.2} ({low:.2}-{high:.2})", median(&ratios))
}

/// What all of it ran on, in one line.
fn machine(programs: &[Program], cells: &[Cell], options: &Options) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = options.threads.map_or("as many as each program takes".into(), |n| n.to_string());
    let versions: Vec<&str> =
        (0..programs.len()).filter_map(|index| cells.first()?.runs[index].first()?["peer"].as_str()).collect();
    let (rounds, steps) = (options.rounds, options.steps);
    let numbers = if options.bf16 { "bf16" } else { "f32" };
    format!(
        "{model}, {cores} cores; threads: {threads}; {numbers}; {}; {rounds} rounds of {steps} steps",
        versions.join(", ")
    )
}

fn number(line: &Value, key: &str) -> Result<f64> {
    line[key].as_f64().with_context(|| format!("no number {key:?} in {line}"))
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use antlm_nn::kernels::work::Product;

    use super::*;

    #[test]
    fn ratios_are_of_runs_of_the_same_round() {
        let program = |name| Program { name, start: Vec::new(), objective: &[], end: Vec::new() };
        let line = |seconds: f64| json!({ "seconds_median": seconds, "peak_bytes": 5e8, "last_loss": 9.0 });
        // The machine was twice as slow in the second round, for both.
        let runs = vec![vec![line(1.0), line(2.0), line(1.0)], vec![line(2.0), line(4.0), line(1.5)]];
        let product = Product { rows: 1000, cols: 1000, inner: 500, ..bench_floor::large(Precision::F32) };
        let floors = vec![(0.5, 2e9), (1.0, 1e9), (0.8, 2e9)];
        let cell = Cell { model: "m".into(), objective: "clm".into(), runs, products: [(product, 1)].into(), floors };
        let mut cells = [cell];
        let text = table(&[program("antlm"), program("torch")], &cells).unwrap();
        assert_eq!(
            text.lines().last(),
            Some("| m clm | 1.000 | 2.000 | 2.00 (1.50-2.00) | 0.800 | 2.00 (1.25-2.00) | 1 | 50 % | 500 | 500 |")
        );
        assert!(number(&line(1.0), "tokens").is_err());
        let named = [program("antlm"), program("torch")];
        assert_eq!(without_loss(&named, &cells), []);
        cells[0].runs[1][2]["last_loss"] = Value::Null;
        assert_eq!(without_loss(&named, &cells), [("m clm".to_owned(), "torch")]);

        let runs = [[1.0, 2.0, 1.0], [2.0, 4.0, 1.5], [1.5, 6.0, 3.0], [4.0, 8.0, 2.0]];
        let runs = runs.map(|runs| runs.map(line).to_vec()).to_vec();
        let floors = vec![(0.5, 2e9), (1.0, 1e9), (0.5, 2e9)];
        let cell = Cell { model: "m".into(), objective: "clm".into(), runs, products: [(product, 1)].into(), floors };
        let programs = ["antlm", "torch", "torch.compile", "burn"].map(program);
        let text = ahead(&programs, &[cell]).unwrap();
        // The quicker of the two: 1.5, 4.0, 1.5.
        assert!(
            text.ends_with("| m clm | 1.50 (1.50-2.00) | 3.00 (3.00-4.00) | 4.00 (2.00-4.00) | 8.00 (4.00-8.00) |\n"),
            "{text}"
        );
    }
}
