//! `antlm demo`: four tiny models side by side, and what their objectives have taught them.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use antlm::demo::{self, Report, Row, Settings};
use antlm::objective::Backend;
use antlm::text::sample::pairs;
use antlm::train::events::{Event, Listener};
use anyhow::Result;
use serde_json::json;

use crate::args::Demo;
use crate::output::{grouped, table};
use crate::progress::{Preparing, Progress};

pub fn run(args: &Demo, out: &mut impl Write) -> Result<()> {
    super::use_threads(args.threads)?;
    let signals = crate::signals::install()?;
    let cancel = || signals.stop();
    let began = Instant::now();
    let settings = Settings::new(args.seed);
    let quiet = args.quiet || args.json;
    if !quiet {
        eprintln!(
            "The demonstration writes {} words of simple English and trains four tiny models on them, in {}.",
            grouped(settings.words),
            args.out.display()
        );
        eprintln!("It takes two to three minutes on two cores. Ctrl-C stops it; the same command goes on with it.");
    }
    let mut watch = Watch { preparing: Preparing::new(quiet), training: None, asking: std::io::stderr().is_terminal() };
    let mut progress = |p: demo::Progress<'_>| if quiet { Ok(()) } else { watch.show(p) };
    let report = demo::run(&args.out, &settings, &mut progress, &cancel)?;
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        return Ok(writeln!(
            out,
            "{}",
            json!({ "models": report.models, "seconds": (seconds * 10.0).round() / 10.0 })
        )?);
    }
    writeln!(out)?;
    show(&report, out)?;
    explain(&report, args, &settings, out)?;
    writeln!(out, "\nThis took {seconds:.0} seconds.")?;
    Ok(())
}

/// What is on stderr while the work goes on.
struct Watch {
    preparing: Preparing,
    training: Option<Progress>,
    /// How many pairs are done changes too often for anything but a terminal.
    asking: bool,
}

impl Watch {
    fn show(&mut self, progress: demo::Progress<'_>) -> antlm::Result<()> {
        match progress {
            demo::Progress::Preparing(progress) => self.preparing.show(progress),
            demo::Progress::Training(number, event) => {
                if matches!(event, Event::Start { .. } | Event::Resume { .. }) {
                    self.preparing.clear();
                    eprintln!("\nmodel {} of {}", number + 1, demo::MODELS.len());
                    self.training = Some(Progress::new());
                }
                let Some(training) = &mut self.training else { return Ok(()) };
                match event {
                    // The table at the end says it.
                    Event::Dev { .. } | Event::Checkpoint { .. } => training.pause(),
                    event => training.event(event)?,
                }
            }
            demo::Progress::Asking(name, backend, done, of) => {
                self.training = None;
                if self.asking {
                    eprint!("\rminimal pairs: {name}, {backend}, {done} of {of} ");
                    if done == of {
                        eprint!("\r{:60}\r", "");
                    }
                } else if done == of {
                    eprintln!("minimal pairs: {name}, {backend}, {of}");
                }
            }
        }
        Ok(())
    }
}

/// The table: a row for each way of reading each model.
fn show(report: &Report, out: &mut impl Write) -> Result<()> {
    let phenomena: Vec<(&str, &str)> = pairs::phenomena().zip(pairs::headings()).collect();
    let mut heading = vec!["model".to_owned(), "schedule".into(), "read by".into()];
    heading.extend(phenomena.iter().map(|(_, heading)| format!(">{heading}")));
    heading.extend([">MEAN".into(), ">dev loss".into()]);
    let mut rows = Vec::new();
    for row in &report.models {
        for (backend, found) in &row.pairs {
            let mut cells =
                vec![row.name.clone(), row.schedule.clone().unwrap_or_else(|| "-".into()), backend.to_string()];
            let keys = phenomena.iter().map(|(uid, _)| *uid).chain(["mean"]);
            cells.extend(keys.map(|key| found.get(key).map_or("-".into(), |percent| format!("{percent:.0}"))));
            cells.push(row.dev_loss.get(backend).map_or("-".into(), |loss| format!("{loss:.2}")));
            rows.push(cells);
        }
    }
    writeln!(
        out,
        "Minimal pairs: per cent of the pairs whose right sentence is the more probable one; chance is 50.\n"
    )?;
    let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
    table(out, &heading, &rows)?;
    Ok(())
}

/// What to look at, with the numbers of this very table, and what to try next.
fn explain(report: &Report, args: &Demo, settings: &Settings, out: &mut impl Write) -> Result<()> {
    let find = |name: &str| report.models.iter().find(|row| row.name == name);
    let mean = |row: &Row, backend: Backend| row.pairs.get(&backend).and_then(|found| found.get("mean")).copied();
    let percent = |name, backend| match find(name).and_then(|row| mean(row, backend)) {
        Some(percent) => format!("{percent:.0}"),
        None => "-".to_owned(),
    };
    let loss = |x: Option<f64>| x.map_or("-".into(), |loss| format!("{loss:.2}"));
    let last = |name, backend| loss(find(name).and_then(|row| row.dev_loss.get(&backend).copied()));
    let before = |name| loss(find(name).and_then(|row| row.masked_before));
    let (causal, mlm, mntp) = (Backend::Causal, Backend::Mlm, Backend::Mntp);
    // What the last causal block did to what the masks had taught, by the dev loss.
    let lost = |name, backend| {
        let row = find(name)?;
        Some(row.dev_loss.get(&backend)? - row.masked_before?)
    };
    let (published, same_place) = (lost("antlm", mlm), lost("antlm-mntp", mntp));
    let verdict = match published {
        Some(lost) if lost > 0.3 => "the last causal block wipes out much of what the masks had taught",
        _ => "the last causal block can wipe out what the masks had taught, which here it hardly did",
    };
    let comparison = match (published, same_place) {
        (Some(published), Some(same)) if same < published => "less is lost",
        _ => "less should be lost, which here is not so",
    };
    let pairs_of = |name| find(name).and_then(|row| mean(row, mlm));
    let beside = match (pairs_of("antlm"), pairs_of("mlm")) {
        (Some(both), Some(alone)) if both > alone => {
            "\n  Its pairs suffer less than its loss: what the causal blocks taught about this language serves both ways of reading."
        }
        _ => "",
    };
    let dir = args.out.display();
    // Under `cargo run` the program is on no path yet.
    let antlm = if std::env::var_os("CARGO").is_some() { "cargo run --release --" } else { "antlm" };
    writeln!(
        out,
        "
What to look at
- The trigram model sees two words of context: {} %. What a model has above that, it has learnt from words further away.
- One objective alone, for as many epochs: {} % for causal (clm), {} % for masked language modelling (mlm). Masks ask
  about one token in seven, so on little text they teach slowly.
- AntLM as published does both by turns, and reads from the left ({} %) and from both sides ({} %). But its two
  objectives want the answer at different places, and {verdict}:
  the mlm dev loss was {} when the masked block ended, and is {} now.{beside}
- With masked next-token prediction (mntp) both want it at the same place, and {comparison}: {} before the last block,
  {} now; {} % from the left, {} % from both sides.
- Losses of different ways of reading cannot be compared with each other: the questions differ.
- These are models of one seed ({}) on a made-up language of some 370 words: they show how it works, and prove nothing
  about English.

What to try next
  {antlm} demo --seed {} --out {dir}-2                         is the picture the same?
  {antlm} info {dir}/antlm                                   how each switch of the objective wipes out the other
  echo 'The girls near the box sleep.' | {antlm} score {dir}/antlm-mntp --json   word by word
  {antlm} generate {dir}/antlm-mntp --prompt 'The girls'       let it write
  {antlm} fill {dir}/antlm-mntp 'The girls near the boy hurt [MASK].'   ask it about both sides of a gap
  {antlm} eval {dir}/antlm-mntp --data {dir}/pairs             judge it anew, as you would on BLiMP
  {antlm} init --text YOUR-TEXTS                               a recipe for text of your own; then `{antlm} train recipe.toml --out runs/mine`",
        percent(demo::TRIGRAM, causal),
        percent("clm", causal),
        percent("mlm", mlm),
        percent("antlm", causal),
        percent("antlm", mlm),
        before("antlm"),
        last("antlm", mlm),
        before("antlm-mntp"),
        last("antlm-mntp", mntp),
        percent("antlm-mntp", causal),
        percent("antlm-mntp", mntp),
        settings.seed,
        settings.seed.wrapping_add(1),
    )?;
    Ok(())
}
