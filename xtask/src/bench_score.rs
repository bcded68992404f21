//! `cargo xtask bench-score`: pair scoring in antlm and in PyTorch, by turns on the same machine.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use antlm::eval::pack::Request;
use antlm::eval::score::{Scorer, framed};
use antlm::objective::Backend;
use antlm::train::trained::Trained;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::bench::median;
use crate::check_export::pairs;

/// Pair scoring in antlm beside PyTorch's, by turns
#[derive(Args)]
#[command(after_help = "\
Example:
  cargo xtask bench-score --run runs/small --model ltg-bert-small --pairs blimp_filtered/ --python venv/bin/python
The same sentences, as tokens of the run's tokenizer. Every round scores all of them once in each program; the second
round in the opposite order, and so on. The peer (bench/peers/torch_score.py) has the model's shapes and random weights.
Let nothing else run meanwhile.")]
pub struct Options {
    /// The run that is read
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// The same model's name in the peer
    #[arg(long, value_name = "NAME")]
    model: String,
    /// A .jsonl file with sentence_good and sentence_bad, or a folder of such files
    #[arg(long, value_name = "PATH")]
    pairs: PathBuf,
    /// A Python with PyTorch
    #[arg(long, value_name = "PATH")]
    python: PathBuf,
    /// Pairs read from the left
    #[arg(long, value_name = "N", default_value_t = 2000)]
    causal: usize,
    /// Pairs read with masks
    #[arg(long, value_name = "N", default_value_t = 500)]
    masked: usize,
    /// How often everything is run, after once to warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Rows in a pass of antlm's
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// Tokens in a pass of the peer's
    #[arg(long, value_name = "N", default_value_t = 4096)]
    peer_rows: usize,
    /// Also the peer with torch.compile
    #[arg(long)]
    compile: bool,
    /// Threads of each program (default: what each takes by itself)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// The peer, waiting for its turn.
struct Peer {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Peer {
    fn start(
        root: &Path,
        options: &Options,
        backend: Backend,
        sentences: &Path,
        vocab: usize,
        compile: bool,
    ) -> Result<Peer> {
        let mut command = Command::new(&options.python);
        command
            .arg(root.join("bench/peers/torch_score.py"))
            .args([&options.model, &backend.to_string()])
            .arg(sentences);
        command.args([format!("--rows={}", options.peer_rows), format!("--vocab={vocab}")]);
        if compile {
            command.arg("--compile");
        }
        if let Some(threads) = options.threads {
            command.arg(format!("--threads={threads}"));
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the peer")?;
        let out = BufReader::new(child.stdout.take().context("the peer has no output")?);
        Ok(Peer { child, out })
    }

    /// Seconds for all sentences.
    fn turn(&mut self) -> Result<f64> {
        writeln!(self.child.stdin.as_mut().context("the peer has no input")?, "go")?;
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        let json: Value = serde_json::from_str(&line).context("the peer ended")?;
        json["seconds"].as_f64().context("no seconds in the peer's line")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs everything and prints the table.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let work = root.join("target/bench-score");
    fs::create_dir_all(&work)?;
    if let Some(threads) = options.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global()?;
    } else {
        rayon::ThreadPoolBuilder::new().use_current_thread().build_global()?;
    }
    let trained = Trained::open(&options.run)?;
    let vocab = trained.tokenizer.vocab_size();
    let mut scorer = Scorer::new(trained);
    if let Some(rows) = options.rows {
        scorer = scorer.with_rows(rows);
    }
    println!("| backend | pairs | program | median s | fastest | slowest | times antlm |");
    println!("|---|---|---|---|---|---|---|");
    for (backend, count) in [(Backend::Causal, options.causal), (Backend::Mlm, options.masked)] {
        let (_, pairs) = pairs(&options.pairs, count, &work)?;
        let tokenizer = &scorer.model().tokenizer;
        let ids: Vec<Vec<u32>> =
            pairs.iter().flatten().map(|sentence| framed(tokenizer, sentence)).collect::<antlm::Result<_>>()?;
        let file = work.join("sentences.json");
        fs::write(&file, serde_json::to_string(&ids)?)?;
        let requests: Vec<Request> = ids.into_iter().map(Request::all).collect();
        let mut peers = vec![("torch", Peer::start(root, options, backend, &file, vocab, false)?)];
        if options.compile {
            peers.push(("torch.compile", Peer::start(root, options, backend, &file, vocab, true)?));
        }
        let mut ours = || -> Result<f64> {
            let start = Instant::now();
            scorer.log_probabilities(&requests, backend, &mut |_, _| Ok(()))?;
            Ok(start.elapsed().as_secs_f64())
        };
        // Once to warm up.
        ours()?;
        peers.iter_mut().try_for_each(|(_, peer)| peer.turn().map(drop))?;
        let mut times = vec![Vec::new(); 1 + peers.len()];
        for round in 0..options.rounds {
            for turn in 0..times.len() {
                let program = if round % 2 == 0 { turn } else { times.len() - 1 - turn };
                let seconds = if program == 0 { ours()? } else { peers[program - 1].1.turn()? };
                times[program].push(seconds);
            }
        }
        let reference = median(&times[0]);
        if reference <= 0.0 {
            bail!("no time passed");
        }
        for (name, times) in std::iter::once("antlm").chain(peers.iter().map(|(name, _)| *name)).zip(&times) {
            let (low, high) = times.iter().fold((f64::MAX, 0.0f64), |(l, h), &t| (l.min(t), h.max(t)));
            let m = median(times);
            println!("| {backend} | {} | {name} | {m:.2} | {low:.2} | {high:.2} | {:.2} |", pairs.len(), m / reference);
        }
    }
    Ok(())
}
