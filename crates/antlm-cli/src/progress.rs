//! The progress of a run on stderr: one line that is drawn again on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use antlm::eval::finetune::train::Moment;
use antlm::eval::finetune::tune;
use antlm::text::{self, prepare::Phase};
use antlm::train::events::{Event, Listener};
use antlm::train::health::Why;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::grouped;

/// Elsewhere than on a terminal, lines come at least this long apart.
const PAUSE: Duration = Duration::from_secs(15);

/// Draws or prints what happens.
pub struct Progress {
    /// Only on a terminal.
    bar: Option<ProgressBar>,
    run: Totals,
    speed: Speed,
    last_line: Option<Instant>,
}

/// With --quiet: a damaged checkpoint that was passed over, a save that was left out and the like are told all the same.
pub struct Warnings;

impl Listener for Warnings {
    fn event(&mut self, event: &Event) -> antlm::Result<()> {
        if let Event::Warning { text, .. } = event {
            eprintln_quietly(&format!("warning: {text}"));
        }
        Ok(())
    }
}

/// What the whole run comes to.
#[derive(Default)]
struct Totals {
    steps: u64,
    words: u64,
    /// Steps done before this process began.
    first_step: u64,
}

impl Progress {
    pub fn new() -> Progress {
        Progress {
            bar: std::io::stderr().is_terminal().then(terminal_bar),
            run: Totals::default(),
            speed: Speed::new(Instant::now()),
            last_line: None,
        }
    }

    /// What was done until now was no training.
    pub fn pause(&mut self) {
        self.speed.pause(Instant::now());
    }

    /// A line that stays.
    fn say(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln_quietly(text),
        }
    }

    fn start(&mut self, totals: Totals) {
        if let Some(bar) = &self.bar {
            bar.set_length(totals.steps);
            bar.set_position(totals.first_step);
        }
        self.run = totals;
        self.speed = Speed::new(Instant::now());
    }

    /// The line of a step: where the run is, what it learns, how fast, how long still.
    fn line(&mut self, event: &Event, now: Instant) -> String {
        let Event::Step { step, objective, loss, rows, words_seen, .. } = event else { return String::new() };
        self.speed.add(*rows, now);
        let done = step.saturating_sub(self.run.first_step);
        let left = self.speed.left(done, self.run.steps.saturating_sub(*step), now);
        format!(
            "step {} of {}  {objective}  loss {loss:.3}  {} tokens/s  {} of {} words  {} left",
            grouped(*step),
            grouped(self.run.steps),
            grouped(self.speed.tokens_per_second() as u64),
            grouped(*words_seen),
            grouped(self.run.words),
            duration(left),
        )
    }

    fn step(&mut self, step: u64, text: String, now: Instant) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(step);
                bar.set_message(text);
            }
            None if self.last_line.is_none_or(|last| now - last >= PAUSE) || step == self.run.steps => {
                self.last_line = Some(now);
                eprintln_quietly(&text);
            }
            None => {}
        }
    }
}

impl Listener for Progress {
    fn event(&mut self, event: &Event) -> antlm::Result<()> {
        match event {
            Event::Start { recipe, schedule, parameters, steps, words, .. } => {
                let totals = Totals { steps: *steps, words: *words, first_step: 0 };
                self.start(totals);
                self.say(&format!("{recipe}: {schedule}; {} parameters", grouped(*parameters)));
            }
            Event::Resume { step, steps, words, path, .. } => {
                self.start(Totals { steps: *steps, words: *words, first_step: *step });
                self.say(&format!("going on after step {} from {}", grouped(*step), path.display()));
            }
            Event::Step { step, .. } => {
                let now = Instant::now();
                let text = self.line(event, now);
                self.step(*step, text, now);
            }
            Event::Skip { step, why, loss, .. } => {
                let loss = loss.map_or("no number".into(), |loss| format!("{loss:.3}"));
                let why = match why {
                    Why::NotFinite => "loss or gradient is no number",
                    Why::Spike => "a spike",
                };
                self.say(&format!("step {}: skipped, {why} (loss {loss})", grouped(*step)));
                self.speed.pause(Instant::now());
            }
            Event::Spike { step, loss, z, .. } => {
                self.say(&format!("step {}: the loss leaps to {loss:.3}, z-score {z:.1}", grouped(*step)));
            }
            Event::Switch { step, block, from, to } => {
                self.say(&format!("step {}: block {} begins, {from} -> {to}", grouped(*step), block + 1));
            }
            Event::Dev { step, backend, loss, unigram, .. } => {
                let mark = if loss > unigram {
                    format!(" (worse than token frequencies, {unigram:.3})")
                } else {
                    String::new()
                };
                self.say(&format!("step {}: dev loss {loss:.4} {backend}{mark}", grouped(*step)));
                self.speed.pause(Instant::now());
            }
            Event::Checkpoint { step, path, kept } => {
                if *kept {
                    self.say(&format!("step {}: saved {}", grouped(*step), path.display()));
                }
                self.speed.pause(Instant::now());
            }
            Event::Milestone { step, name, words_seen } => {
                self.say(&format!("step {}: milestone {name} at {} words", grouped(*step), grouped(*words_seen)));
                self.speed.pause(Instant::now());
            }
            Event::Warning { text, .. } => self.say(&format!("warning: {text}")),
            Event::BlockEnd { .. } | Event::Stop { .. } => {}
            Event::End { step, words_seen } => {
                if let Some(bar) = &self.bar {
                    bar.finish_and_clear();
                }
                self.say(&format!("done: {} steps, {} words", grouped(*step), grouped(*words_seen)));
            }
        }
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // After an error or a signal the last state stays on the screen, above the message.
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }
}

/// The progress of preparing text.
pub struct Preparing {
    quiet: bool,
    bar: Option<ProgressBar>,
    phase: Option<Phase>,
}

impl Preparing {
    pub fn new(quiet: bool) -> Preparing {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(terminal_bar);
        Preparing { quiet, bar, phase: None }
    }

    pub fn show(&mut self, progress: text::prepare::Progress) {
        let name = match progress.phase {
            Phase::Hash => "reading the text",
            Phase::Scan => "choosing dev documents",
            Phase::Count => "counting words",
            Phase::Merge => "training the tokenizer",
            Phase::Encode => "encoding the text",
        };
        if let Some(bar) = &self.bar {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.set_message(name);
        } else if !self.quiet && self.phase != Some(progress.phase) {
            eprintln_quietly(name);
        }
        self.phase = Some(progress.phase);
    }
}

impl Preparing {
    /// Takes the bar off the screen.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The progress of some work whose size is known: how much, and how long still.
pub struct Working {
    label: String,
    quiet: bool,
    bar: Option<ProgressBar>,
    start: Instant,
    last_line: Instant,
}

impl Working {
    pub fn new(label: &str, quiet: bool) -> Working {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(terminal_bar);
        let now = Instant::now();
        Working { label: label.into(), quiet, bar, start: now, last_line: now }
    }

    pub fn show(&mut self, done: u64, of: u64) {
        let now = Instant::now();
        let left = (now - self.start).mul_f64(of.saturating_sub(done) as f64 / done.max(1) as f64);
        let text = || format!("{}: {} %, {} left", self.label, 100 * done / of.max(1), duration(left));
        if let Some(bar) = &self.bar {
            bar.set_length(of);
            bar.set_position(done);
            bar.set_message(text());
        } else if !self.quiet && now - self.last_line >= PAUSE {
            eprintln_quietly(&text());
            self.last_line = now;
        }
    }

    /// What stays on the screen: that it is done, and how long it took.
    pub fn done(&mut self, how: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if !self.quiet {
            eprintln_quietly(&format!("{}: {how} ({})", self.label, duration(self.start.elapsed())));
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }
}

/// The progress of fine-tunings.
pub struct Tuning {
    quiet: bool,
    bar: Option<ProgressBar>,
    start: Instant,
    last_line: Option<Instant>,
    name: String,
    steps: u64,
    epochs: u32,
    /// Of this fine-tuning and those that follow, when it began.
    work: u64,
    /// Of this one.
    done: u64,
    /// Of all.
    done_in_all: u64,
}

impl Tuning {
    pub fn new(quiet: bool) -> Tuning {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(terminal_bar);
        let (name, start) = (String::new(), Instant::now());
        let (steps, epochs, work, done, done_in_all) = (0, 0, 0, 0, 0);
        Tuning { quiet, bar, start, last_line: None, name, steps, epochs, work, done, done_in_all }
    }

    pub fn event(&mut self, event: &tune::Event<'_>) {
        if self.quiet {
            return;
        }
        match *event {
            tune::Event::Begin { task, seed, epochs, steps, work } => {
                if let Some(bar) = &self.bar {
                    bar.set_length(steps);
                    bar.set_position(0);
                }
                self.name = format!("{}, seed {seed}", task.name());
                (self.steps, self.epochs, self.work, self.done) = (steps, epochs, work, 0);
            }
            tune::Event::Moment(Moment::Trained { epoch, step, loss, tokens }) => {
                self.add(3 * tokens);
                self.line(epoch, step, loss, Instant::now());
            }
            tune::Event::Moment(Moment::Read { tokens }) => self.add(tokens),
            tune::Event::Moment(Moment::Epoch { epoch, score }) => {
                let text = format!("{}: epoch {epoch} of {}: {score:.2}", self.name, self.epochs);
                self.say(&text);
            }
            tune::Event::Result(found) => {
                let result = &found.result;
                let what = match (found.cached, found.replaced) {
                    (true, _) => "cached in",
                    (_, true) => "replaces",
                    _ => "written to",
                };
                let (task, seed) = (&result.task, result.seed.unwrap_or(0));
                let text = format!(
                    "{task}, seed {seed}: {} {:.2}, {what} {}",
                    result.metric,
                    result.score,
                    found.path.display()
                );
                self.say(&text);
            }
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln_quietly(text),
        }
    }

    fn add(&mut self, work: u64) {
        self.done += work;
        self.done_in_all += work;
    }

    fn line(&mut self, epoch: u32, step: u64, loss: f64, now: Instant) {
        let to_do = self.work.saturating_sub(self.done);
        let left = (now - self.start).mul_f64(to_do as f64 / self.done_in_all.max(1) as f64);
        let text = format!(
            "{}: epoch {epoch} of {}, step {} of {}  loss {loss:.3}  {} left at most",
            self.name,
            self.epochs,
            grouped(step),
            grouped(self.steps),
            duration(left)
        );
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(text);
        } else if self.last_line.is_none_or(|last| now - last >= PAUSE) {
            self.last_line = Some(now);
            eprintln_quietly(&text);
        }
    }
}

impl Drop for Tuning {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Tokens per second over the recent steps, and an estimate of the time left from the whole process.
struct Speed {
    start: Instant,
    last: Instant,
    recent: f64,
}

impl Speed {
    fn new(now: Instant) -> Speed {
        Speed { start: now, last: now, recent: 0.0 }
    }

    fn add(&mut self, tokens: u64, now: Instant) {
        let rate = tokens as f64 / (now - self.last).as_secs_f64().max(1e-9);
        self.recent = if self.recent == 0.0 { rate } else { 0.9 * self.recent + 0.1 * rate };
        self.last = now;
    }

    /// What was done until now was no training: it does not count as slow tokens.
    fn pause(&mut self, now: Instant) {
        self.last = now;
    }

    fn tokens_per_second(&self) -> f64 {
        self.recent
    }

    fn left(&self, done: u64, to_do: u64, now: Instant) -> Duration {
        (now - self.start).mul_f64(to_do as f64 / done.max(1) as f64)
    }
}

/// A bar on stderr with a message behind it.
fn terminal_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:20} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// `3 h 05 min`, `4 min 10 s`, `12 s`.
pub fn duration(time: Duration) -> String {
    match time.as_secs() {
        s if s >= 3600 => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
        s if s >= 60 => format!("{} min {:02} s", s / 60, s % 60),
        s => format!("{s} s"),
    }
}

/// Prints a line to stderr and does not mind when nobody reads it.
fn eprintln_quietly(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let text = |s| duration(Duration::from_secs(s));
        assert_eq!([12, 250, 11_100].map(text), ["12 s", "4 min 10 s", "3 h 05 min"]);
    }

    #[test]
    fn a_line_says_where_what_how_fast_and_how_long() {
        let start = Instant::now();
        let mut progress = Progress::new();
        progress.run = Totals { steps: 1200, words: 90_000, first_step: 1000 };
        progress.speed = Speed::new(start);
        let event = Event::Step {
            step: 1001,
            block: 1,
            epoch: 2,
            objective: antlm::objective::Objective::Mlm,
            loss: 4.25,
            lr: 1e-3,
            grad_norm: 1.0,
            rows: 3072,
            targets: 400,
            words_seen: 71_000,
        };
        let line = progress.line(&event, start + Duration::from_secs(2));
        let expected = "step 1,001 of 1,200  mlm  loss 4.250  1,536 tokens/s  71,000 of 90,000 words  6 min 38 s left";
        assert_eq!(line, expected);
    }

    #[test]
    fn speed_leaves_out_pauses() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut speed = Speed::new(start);
        speed.add(1000, at(1));
        speed.pause(at(101));
        speed.add(1000, at(102));
        assert_eq!(speed.tokens_per_second(), 1000.0);
        assert_eq!(speed.left(2, 4, at(102)), Duration::from_secs(204));
    }
}
