//! `cargo xtask bench-parts`: what surrounds training steps, each part by turns with something to hold it against.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use antlm::eval::finetune::data::Task;
use antlm::eval::finetune::frame::Example;
use antlm::eval::finetune::head::{Classifier, Reading, Vector};
use antlm::eval::finetune::presets::Preset;
use antlm::eval::finetune::train::Job;
use antlm::eval::generate::{self, Generator};
use antlm::objective::Objective;
use antlm::recipe::{Precision, Recipe};
use antlm::text::clean::{Cleaning, Corpus};
use antlm::text::corpus::Source;
use antlm::text::dataset::Dataset;
use antlm::text::prepare::{self, Prepared, TokenizerChoice};
use antlm::text::sample::{self, Part as Share};
use antlm::train::dev::DevSet;
use antlm::train::trained::Trained;
use antlm_nn::tape::Pool;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::bench::{median, spread};

/// Preparation, dev evaluation, fine-tuning, generation and start-up: how fast, and beside what
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench-parts
  cargo xtask bench-parts --python venv/bin/python --text corpus.txt --json target/parts.json
Every round runs each part and what it is held against once, the second round in the opposite order, and so on:
  prepare, encode    MB of text a second: all of `antlm prepare`; with a tokenizer that is there. Beside the Python
                     library tokenizers (bench/peers/tokenizers_peer.py; pip install tokenizers numpy)
  dev                tokens a second, three ways of reading; beside the tokens a second of a training step
  fine-tuning        texts a second, a sentence each; their tokens beside those of a training step
  generation         tokens a second with kept keys and values; beside computing everything again for each token
  start-up           `antlm --help`, 50 times; it should stay under 20 ms
`cargo xtask bench` has training steps, `bench-score` pairs of sentences. Let nothing else run meanwhile.")]
pub struct Options {
    /// A Python with tokenizers and numpy; without it preparation is held against nothing
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Plain text, blank lines between documents (default: a million words of `antlm sample-text`)
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// The model
    #[arg(long, value_name = "NAME", default_value = "ltg-bert-small")]
    recipe: String,
    /// How often everything is run, after once to warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Threads of each program (default: all)
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Also write every measurement here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Does something once: how much of it, in the part's unit, and seconds.
type Turn<'a> = Box<dyn FnMut() -> Result<(f64, f64)> + 'a>;

/// Something that is measured.
struct Part<'a> {
    name: &'static str,
    /// What is counted.
    unit: &'static str,
    ours: Turn<'a>,
    /// What it is held against, which counts the same unit.
    other: Option<(&'static str, Turn<'a>)>,
    /// Of every round: amounts a second, ours and the other's.
    rates: Vec<(f64, Option<f64>)>,
}

impl<'a> Part<'a> {
    fn new(
        name: &'static str,
        unit: &'static str,
        ours: Turn<'a>,
        other: Option<(&'static str, Turn<'a>)>,
    ) -> Part<'a> {
        Part { name, unit, ours, other, rates: Vec::new() }
    }

    fn round(&mut self, ours_first: bool) -> Result<()> {
        let rate = |turn: &mut Turn<'a>| turn().map(|(amount, seconds)| amount / seconds);
        let first = ours_first.then(|| rate(&mut self.ours)).transpose()?;
        let other = self.other.as_mut().map(|(_, turn)| rate(turn)).transpose()?;
        let ours = first.map_or_else(|| rate(&mut self.ours), Ok)?;
        let beside = other.map_or(String::new(), |other| format!(", beside {other:.1}"));
        eprintln!("{}: {ours:.1} {} a second{beside}", self.name, self.unit);
        self.rates.push((ours, other));
        Ok(())
    }

    /// A row of the table: medians over the rounds; ratios are those of the same round.
    fn row(&self) -> String {
        let ours: Vec<f64> = self.rates.iter().map(|rate| rate.0).collect();
        let others: Vec<f64> = self.rates.iter().filter_map(|rate| rate.1).collect();
        let (name, other, ratio) = match &self.other {
            None => ("", String::new(), String::new()),
            Some((name, _)) => {
                (*name, figures(median(&others)), spread(ours.iter().zip(&others).map(|(ours, other)| ours / other)))
            }
        };
        format!("| {} | {} | {} | {name} | {other} | {ratio} |", self.name, self.unit, figures(median(&ours)))
    }
}

/// Three figures of a rate.
fn figures(rate: f64) -> String {
    format!("{rate:.*}", if rate < 10.0 { 2 } else { usize::from(rate < 100.0) })
}

/// Measures everything and prints the table.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let antlm = crate::build_antlm(root, &[])?;
    rayon::ThreadPoolBuilder::new().use_current_thread().num_threads(options.threads).build_global()?;
    let work = root.join("target/bench-parts");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    let text = match &options.text {
        Some(text) => text.clone(),
        None => {
            let path = work.join("sample.txt");
            sample::write(1_000_000, 1, Share::Train, &mut std::io::BufWriter::new(fs::File::create(&path)?))?;
            path
        }
    };
    let recipe = Recipe::load(&options.recipe, &["batch.segments=8".into(), "dev.max_segments=16".into()])?;
    let began = Instant::now();
    let prepared = prepare(&recipe, &text, Cleaning::None, None, &work.join("first"))?;
    // The run prepares the text once more, perhaps more slowly, and learns a little.
    let trained = trained(&antlm, options, &text, &work, 3 + 3 * began.elapsed().as_secs())?;
    let starts = {
        let mut parts = preparation(root, options, &recipe, &text, &prepared, &work)?;
        parts.push(dev(&trained, &prepared)?);
        parts.push(fine_tuning(&trained, &text)?);
        parts.push(generation(&trained)?);
        for part in &mut parts {
            part.round(true)?;
            part.rates.clear();
        }
        for round in 0..options.rounds {
            for part in &mut parts {
                part.round(round % 2 == 0)?;
            }
        }
        let starts = (0..50).map(|_| start(&antlm)).collect::<Result<Vec<f64>>>()?;
        println!("| part | unit | antlm, a second | beside | a second | antlm/beside (min-max) |");
        println!("|---|---|---|---|---|---|");
        parts.iter().for_each(|part| println!("{}", part.row()));
        if let Some(path) = &options.json {
            let parts = parts.iter().map(|part| {
                let other = part.other.as_ref().map(|other| other.0);
                json!({ "part": part.name, "unit": part.unit, "beside": other, "rates": part.rates })
            });
            let all = json!({ "parts": parts.collect::<Vec<_>>(), "start_milliseconds": starts });
            fs::write(path, format!("{all:#}\n")).with_context(|| path.display().to_string())?;
        }
        starts
    };
    let (low, high) = starts.iter().fold((f64::MAX, 0.0_f64), |(l, h), &t| (l.min(t), h.max(t)));
    println!("\nstart-up, antlm --help: {:.1} ms ({low:.1}-{high:.1})", median(&starts));
    let (words, bytes) = (prepared.summary.train.words, fs::metadata(&text)?.len());
    println!("{}; {} threads; {} MB, {words} words", options.recipe, rayon::current_num_threads(), bytes / 1_000_000);
    Ok(())
}

/// All of `antlm prepare`, into a folder that is not there.
fn prepare(
    recipe: &Recipe,
    text: &Path,
    cleaning: Cleaning,
    tokenizer: Option<&Path>,
    folder: &Path,
) -> Result<Prepared> {
    let vocab_size = recipe.model.vocab_size;
    let tokenizer = match tokenizer {
        Some(path) => TokenizerChoice::File(path.to_owned()),
        None => TokenizerChoice::Train { vocab_size, min_frequency: 2 },
    };
    let sources = vec![Source { cleaning, ..Source::new("text", [text]) }];
    let family = recipe.model.kind;
    let options = prepare::Options { sources, dev: Vec::new(), family, tokenizer, seq_len: recipe.seq_len };
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(prepare::prepare(&options, folder, &mut |_| {}, &|| false)?)
}

/// A model that has learnt for some seconds: what it says does not matter, its size does.
fn trained(antlm: &Path, options: &Options, text: &Path, work: &Path, seconds: u64) -> Result<Trained> {
    let run = work.join("run");
    let mut command = Command::new(antlm);
    command.args(["train", &options.recipe, &format!("--stop-after={seconds}s"), "--quiet", "--set=batch.segments=8"]);
    command.args(["--set=dev.max_segments=1", "--text"]).arg(text).arg("--out").arg(&run);
    let status = command.status().with_context(|| antlm.display().to_string())?;
    if !matches!(status.code(), Some(0 | 142)) {
        bail!("antlm train {}: {status}", options.recipe);
    }
    Ok(Trained::open(&run)?)
}

fn preparation<'a>(
    root: &Path,
    options: &Options,
    recipe: &'a Recipe,
    text: &'a Path,
    prepared: &'a Prepared,
    work: &Path,
) -> Result<Vec<Part<'a>>> {
    let megabytes = fs::metadata(text)?.len() as f64 / 1e6;
    let tokens = prepared.summary.train.tokens + prepared.summary.dev.map_or(0, |dev| dev.tokens);
    let ours = |cleaning: Cleaning, tokenizer: Option<PathBuf>, folder: PathBuf| -> Turn<'a> {
        Box::new(move || {
            let start = Instant::now();
            prepare(recipe, text, cleaning, tokenizer.as_deref(), &folder)?;
            Ok((megabytes, start.elapsed().as_secs_f64()))
        })
    };
    // The parts take turns with one program, which keeps nothing between them but the tokenizer's file.
    let peer = match &options.python {
        Some(python) => Some(Peer::start(root, python, text, work, recipe.model.vocab_size)?),
        None => None,
    };
    let peer = std::rc::Rc::new(std::cell::RefCell::new(peer));
    let other = |what: &'static str| -> Option<(&'static str, Turn<'a>)> {
        peer.borrow().as_ref()?;
        let peer = std::rc::Rc::clone(&peer);
        let turn: Turn<'a> = Box::new(move || {
            let (seconds, theirs) = peer.borrow_mut().as_mut().context("a peer")?.turn(what)?;
            // Ties between pairs are broken otherwise there, and the hundredth of the documents that is the dev set
            // teaches nothing here: neither is felt in some megabytes of text.
            if theirs.abs_diff(tokens) * 100 > tokens {
                bail!("the peer made {theirs} tokens of the text, antlm {tokens}: not the same work; give more text");
            }
            Ok((megabytes, seconds))
        });
        Some(("tokenizers", turn))
    };
    let corpus = Corpus::of_file(text).unwrap_or(Corpus::SimpleWiki);
    let tokenizer = prepared.dir.join(prepare::TOKENIZER_FILE);
    let (new, again, clean) = (work.join("trained"), work.join("encoded"), work.join("cleaned"));
    Ok(vec![
        Part::new("prepare", "MB", ours(Cleaning::None, None, new), other("train")),
        Part::new("prepare, cleaned", "MB", ours(Cleaning::Corpus(corpus), None, clean), None),
        Part::new("encode", "MB", ours(Cleaning::None, Some(tokenizer), again), other("encode")),
    ])
}

/// A training step of 8 x 128 tokens, read from the left, with the tokenizer's vocabulary.
fn step<'a>(trained: &Trained) -> Result<Turn<'a>> {
    let options =
        antlm::bench::Options { objective: Objective::Clm, batch: 8, seq: 128, steps: 0, precision: Precision::F32 };
    let mut steps = antlm::bench::Steps::new(&trained.recipe, options)?;
    Ok(Box::new(move || {
        let start = Instant::now();
        steps.step()?;
        Ok((1024.0, start.elapsed().as_secs_f64()))
    }))
}

fn dev<'a>(trained: &'a Trained, prepared: &'a Prepared) -> Result<Part<'a>> {
    let mut recipe = trained.recipe.clone();
    recipe.dev.max_segments = 16;
    let text: &Dataset = prepared.dev.as_ref().context("the text is too short for a dev set")?;
    let most = text.len().min(recipe.dev.max_segments);
    let chosen = (0..most).map(|i| (u64::from(i) * u64::from(text.len()) / u64::from(most)) as u32);
    let tokens: usize = chosen.map(|i| text.tokens(i).len() + 2).sum();
    let set = DevSet::new(&recipe, text, &prepared.train);
    let mut pool = Pool::default();
    let ours: Turn<'a> = Box::new(move || {
        let start = Instant::now();
        let mut measuring = set.measure();
        while !measuring.is_done() {
            measuring.next_batch(&trained.model, (&trained.params).into(), &mut pool)?;
        }
        let readings = measuring.losses().len();
        Ok(((readings * tokens) as f64, start.elapsed().as_secs_f64()))
    });
    Ok(Part::new("dev", "tokens", ours, Some(("training step", step(trained)?))))
}

/// An epoch over sentences of the text, whose classes mean nothing.
fn fine_tuning<'a>(trained: &'a Trained, text: &Path) -> Result<Part<'a>> {
    let reading = Reading { causal: false, vector: Vector::First };
    let classifier = Classifier::new(&trained.model, Preset::Y2024, Task::Sst2.classes(), reading);
    let mut settings = Preset::Y2024.settings(Task::Sst2);
    settings.epochs = 1;
    let lines = BufReader::new(fs::File::open(text)?).lines();
    let lines = lines.filter(|line| line.as_ref().is_ok_and(|line| !line.trim().is_empty()));
    let mut train = Vec::new();
    for (line, label) in lines.take(8 * settings.batch as usize).zip([0, 1].into_iter().cycle()) {
        let mut ids = vec![antlm::text::special::CLS];
        ids.extend(trained.tokenizer.encode(&line?)?);
        ids.truncate(settings.length as usize);
        train.push(Example { ids, label });
    }
    let length = train.iter().map(|example| example.ids.len()).sum::<usize>() as f64 / train.len() as f64;
    let mut pool = Pool::default();
    let ours: Turn<'a> = Box::new(move || {
        let metric = Preset::Y2024.metric(Task::Sst2);
        let (choose, params) = (&train[..1], &trained.params);
        let job = Job {
            classifier: &classifier,
            trained: params,
            train: &train,
            choose,
            metric,
            settings: &settings,
            seed: 1,
        };
        let start = Instant::now();
        job.run(&mut pool, &mut |_| Ok(()))?;
        Ok((train.len() as f64, start.elapsed().as_secs_f64()))
    });
    let mut step = step(trained)?;
    let other: Turn<'a> = Box::new(move || step().map(|(tokens, seconds)| (tokens / length, seconds)));
    Ok(Part::new("fine-tuning", "texts", ours, Some(("training step", other))))
}

fn generation<'a>(trained: &Trained) -> Result<Part<'a>> {
    let turn = |cache: bool| -> Result<Turn<'a>> {
        let mut generator = Generator::new(Trained::open(&trained.run)?);
        let options = generate::Options { max_tokens: 100, cache, ..generate::Options::default() };
        Ok(Box::new(move || {
            let start = Instant::now();
            let prompt = generator.read("The")?;
            // The closing mark may end a text early; another begins then, the same ones every time.
            let (mut tokens, mut sample) = (0, 0);
            while tokens < options.max_tokens {
                tokens += 1 + generator.generate(&prompt, sample, &options, &mut |_| Ok(()))?.ids.len();
                sample += 1;
            }
            Ok((tokens as f64, start.elapsed().as_secs_f64()))
        }))
    };
    Ok(Part::new("generation", "tokens", turn(true)?, Some(("no cache", turn(false)?))))
}

/// Milliseconds of `antlm --help`.
fn start(antlm: &Path) -> Result<f64> {
    let start = Instant::now();
    let output = Command::new(antlm).arg("--help").output().with_context(|| antlm.display().to_string())?;
    if !output.status.success() {
        bail!("antlm --help: {}", output.status);
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// `bench/peers/tokenizers_peer.py`, waiting for its turn.
struct Peer {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Peer {
    fn start(root: &Path, python: &Path, text: &Path, work: &Path, vocab: usize) -> Result<Peer> {
        let mut command = Command::new(python);
        command.arg(root.join("bench/peers/tokenizers_peer.py")).arg(text).arg(work).arg(format!("--vocab={vocab}"));
        command.env("RAYON_NUM_THREADS", rayon::current_num_threads().to_string());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| python.display().to_string())?;
        let out = BufReader::new(child.stdout.take().context("the peer has no output")?);
        Ok(Peer { child, out })
    }

    /// Seconds of `train` or `encode`, and how many tokens it made.
    fn turn(&mut self, what: &str) -> Result<(f64, u64)> {
        writeln!(self.child.stdin.as_mut().context("the peer has no input")?, "{what}")?;
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        let line: Value = serde_json::from_str(&line).context("the peer ended")?;
        let seconds = line["seconds"].as_f64().context("no seconds in the peer's line")?;
        Ok((seconds, line["tokens"].as_u64().context("no tokens in the peer's line")?))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round_and_the_order_is_swapped() {
        let order = std::cell::RefCell::new(String::new());
        let turn = |who: char, seconds: f64| -> Turn<'_> {
            let order = &order;
            Box::new(move || {
                order.borrow_mut().push(who);
                Ok((6.0, seconds))
            })
        };
        let mut part = Part::new("p", "MB", turn('a', 2.0), Some(("peer", turn('b', 3.0))));
        part.round(true).unwrap();
        part.round(false).unwrap();
        // The machine was slower in the third round, for both.
        part.rates.push((1.0, Some(0.5)));
        assert_eq!(part.row(), "| p | MB | 3.00 | peer | 2.00 | 1.50 (1.50-2.00) |");
        let alone = Part { other: None, rates: vec![(123.4, None)], ..part };
        assert_eq!(alone.row(), "| p | MB | 123 |  |  |  |");
        drop(alone);
        assert_eq!(*order.borrow(), "abba");
    }
}
