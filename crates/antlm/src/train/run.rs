//! A training run from its first step to its last: the loop, read top to bottom.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use antlm_nn::device::{Buffer, Device};
use antlm_nn::rng::Rng;
use antlm_nn::tape::Pool;

use super::checkpoint::{self, Hashes, Seen, State};
use super::dev::DevSet;
use super::events::{self, Event, Listener, LogWriter, Moment, TimingWriter};
use super::health::{self, Memory, Verdict};
use super::run_folder::{DIVERGED, RunFolder};
use super::step::{Outcome, Stepper, Weights};
use crate::model::Model;
use crate::objective::stream::{Layout, Order, Step};
use crate::recipe::{Checkpoints, Recipe};
use crate::text::prepare::Prepared;
use crate::{Error, Result};

mod open;

use open::milestones;
pub use open::{create, create_from, create_on, resume, resume_on, steps};

/// Steps after a switch of the objective at which the dev losses are measured once more: what was taught before is
/// mostly forgotten within 16 to 64 steps.
const AFTER_SWITCH: u64 = 32;

/// The signal that asks to stop, if one came.
pub type Cancel<'a> = &'a dyn Fn() -> Option<i32>;

/// A run that is ready to train: everything in memory, its folder locked.
pub struct Run {
    recipe: Recipe,
    model: Model,
    prepared: Rc<Prepared>,
    folder: RunFolder,
    hashes: Hashes,
    weights: Weights<Buffer>,
    /// Where they are, and what trains them.
    device: Device,
    /// What the run takes of a card's memory, in words.
    memory: Option<String>,
    seen: BTreeMap<crate::objective::Objective, Seen>,
    step: u64,
    health: Memory,
    log: LogWriter,
    timing: TimingWriter,
    /// What is to be said when it begins (damaged checkpoints that were passed over), and the checkpoint that it goes on
    /// from.
    warnings: Vec<String>,
    resumed: Option<PathBuf>,
    /// The step of the checkpoint that was written or loaded last.
    saved: Option<u64>,
    /// What follows the last step (dev losses, the end of its block) is still to be done.
    unmeasured: bool,
    /// By the number of steps done, the milestones that the run reaches.
    milestones: BTreeMap<u64, String>,
    /// Whether to save now, and go on.
    save_asked: Box<dyn Fn() -> bool>,
}

impl Run {
    /// Saves, and goes on, whenever `asked` says so. It is asked after every step, and between the batches while the dev
    /// losses are measured.
    pub fn save_when(mut self, asked: impl Fn() -> bool + 'static) -> Run {
        self.save_asked = Box::new(asked);
        self
    }

    /// What the run takes of a card's memory, in words; nothing on the CPU.
    pub fn memory(&self) -> Option<&str> {
        self.memory.as_deref()
    }

    /// The recipe as used.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The run's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Trains to the end of the schedule.
    ///
    /// # Errors
    /// [`Error::Stopped`] when `cancel` gave a signal: everything is saved then. Otherwise what listeners, disk and
    /// engine refuse; a loss that is not finite ends the run before the weights change.
    pub fn train(mut self, listener: &mut dyn Listener, cancel: Cancel<'_>) -> Result<()> {
        let recipe = self.recipe.clone();
        let layout = steps(&recipe, &self.prepared)?;
        self.milestones = milestones(&recipe, &self.prepared, &layout)?;
        let rng = Rng::new(recipe.seed);
        let prepared = self.prepared.clone();
        let data = &prepared.train;
        let model = self.model.clone();
        let dev = prepared.dev.as_ref().map(|dev| DevSet::new(&recipe, dev, data));
        let device = self.device.clone();
        let mut stepper = Stepper {
            recipe: &recipe,
            model: &model,
            data,
            rng,
            order: Order::new(rng, data.len()),
            grads: device.buffer(vec![0.0; self.weights.params.len()])?,
            pool: Pool::of(device),
        };
        // Of an earlier try; most runs have none.
        let _ = std::fs::remove_file(self.folder.path().join(DIVERGED));
        let words = layout.blocks.iter().map(|span| span.words).sum();
        self.begin(&layout, words, listener)?;
        if self.saved.is_none() && self.step == 0 {
            self.unmeasured = true;
        }
        if self.unmeasured {
            self.after(&layout, &dev, &mut stepper.pool, listener, cancel)?;
        }
        for step in layout.steps_from(self.step) {
            let lr = recipe.learning_rate_at(&layout, &step);
            let done = match stepper.gradient(&step, &self.weights, cancel)? {
                Ok(done) => done,
                Err(signal) => return Err(self.stop(&layout, signal, listener)?),
            };
            let verdict = self.health.judge(&recipe.health, &step, done.targets, done.loss, done.grad_norm);
            match verdict {
                Verdict::Take(_) => stepper.update(&done, lr, &mut self.weights)?,
                Verdict::Skip(..) => {}
                Verdict::Stop => return Err(self.diverged(&step, lr, &done, &mut stepper)?),
            }
            if let Some(from) = switch(&layout, &step) {
                let (block, to) = (step.block as u64, step.objective);
                self.emit(&Event::Switch { step: self.step, block, from, to }, listener)?;
            }
            self.step += 1;
            let seen = self.seen.entry(step.objective).or_default();
            seen.words += done.words;
            seen.targets += done.targets;
            self.tell(&layout, &step, lr, &done, verdict, listener)?;

            self.unmeasured = true;
            self.after(&layout, &dev, &mut stepper.pool, listener, cancel)?;
            self.save_if_asked(&layout, listener)?;
        }
        self.emit(&Event::End { step: self.step, words_seen: self.words_seen() }, listener)?;
        self.log.sync()?;
        Ok(())
    }

    /// Tells of a step that was done.
    fn tell(
        &mut self,
        layout: &Layout,
        step: &Step,
        lr: f64,
        done: &Outcome,
        verdict: Verdict,
        listener: &mut dyn Listener,
    ) -> Result<()> {
        let (number, block, objective) = (self.step, step.block as u64, step.objective);
        let (Outcome { loss, grad_norm, rows, targets, .. }, words_seen) = (*done, self.words_seen());
        if let Verdict::Skip(why, z) = verdict {
            let [loss, grad_norm] = [loss, grad_norm].map(|x| x.is_finite().then_some(x));
            let event = Event::Skip { step: number, block, objective, why, loss, grad_norm, z, rows, words_seen };
            return self.emit(&event, listener);
        }
        let epoch = step.positions.start / u64::from(layout.segments);
        let event =
            Event::Step { step: number, block, epoch, objective, loss, lr, grad_norm, rows, targets, words_seen };
        self.emit(&event, listener)?;
        match verdict {
            Verdict::Take(Some(z)) => self.emit(&Event::Spike { step: number, objective, loss, z }, listener),
            _ => Ok(()),
        }
    }

    /// Keeps what is known of a step without a number, and gives the error that ends the run. The weights are as they
    /// were before it.
    fn diverged(&self, step: &Step, lr: f64, done: &Outcome, stepper: &mut Stepper<'_>) -> Result<Error> {
        let Outcome { loss, grad_norm, .. } = *done;
        let segments = stepper.segments(step);
        let (params, grads) = (self.weights.params.read()?, stepper.grads.read()?);
        let found = health::diagnosis(step, &segments, (lr, loss, grad_norm), self.model.layout(), (&params, &grads));
        self.folder.write(DIVERGED, format!("{found:#}\n").as_bytes())?;
        let advice = format!(
            "{} has the norms of every tensor; try a lower optimizer.lr, a longer learning_rate.warmup or a lower \
             optimizer.clip",
            self.folder.path().join(DIVERGED).display()
        );
        Ok(Error::Diverged { step: step.index, loss, grad_norm, advice })
    }

    /// What follows the step that was done last: dev losses, the end of its block, a checkpoint.
    fn after(
        &mut self,
        layout: &Layout,
        dev: &Option<DevSet>,
        pool: &mut Pool,
        listener: &mut dyn Listener,
        cancel: Cancel<'_>,
    ) -> Result<()> {
        let Some(step) = self.step.checked_sub(1).and_then(|last| layout.step(last)) else {
            self.measure(dev, layout, 0, Moment::Start, pool, listener, cancel)?;
            self.unmeasured = false;
            return self.milestone(layout, listener);
        };
        if let Some(moment) = moment(layout, &step) {
            self.measure(dev, layout, step.block, moment, pool, listener, cancel)?;
        }
        self.unmeasured = false;
        self.milestone(layout, listener)?;
        if step.ends_block {
            let (block, objective, words_seen) = (step.block as u64, step.objective, self.words_seen());
            self.emit(&Event::BlockEnd { step: self.step, block, objective, words_seen }, listener)?;
        }
        let Checkpoints { every, keep_every, .. } = self.recipe.checkpoints;
        let due = [every, keep_every].iter().any(|&every| every > 0 && self.step.is_multiple_of(u64::from(every)));
        if step.ends_block {
            let path = self.save(layout, true).map_err(|e| self.full(e))?;
            self.emit(&Event::Checkpoint { step: self.step, path, kept: true }, listener)?;
        } else if due {
            self.save_if_there_is_room(layout, listener)?;
        }
        Ok(())
    }

    /// Saves, and goes on without where the disk is full: that loses nothing, and there may be room the next time.
    fn save_if_there_is_room(&mut self, layout: &Layout, listener: &mut dyn Listener) -> Result<()> {
        match self.save(layout, false) {
            Ok(path) => self.emit(&Event::Checkpoint { step: self.step, path, kept: false }, listener),
            Err(error) if error.is_full() => {
                let text = format!("step {} is not saved, and the run goes on: {error}", self.step);
                self.emit(&Event::Warning { step: self.step, text }, listener)
            }
            Err(error) => Err(error),
        }
    }

    fn save_if_asked(&mut self, layout: &Layout, listener: &mut dyn Listener) -> Result<()> {
        if (self.save_asked)() && self.saved != Some(self.step) {
            self.save_if_there_is_room(layout, listener)?;
        }
        Ok(())
    }

    /// Saves the run as it is, and gives the error that ends it.
    fn stop(&mut self, layout: &Layout, signal: i32, listener: &mut dyn Listener) -> Result<Error> {
        if self.saved != Some(self.step) {
            let path = self.save(layout, false).map_err(|e| self.full(e))?;
            self.emit(&Event::Checkpoint { step: self.step, path, kept: false }, listener)?;
        }
        self.emit(&Event::Stop { step: self.step, signal }, listener)?;
        let left = format!("saved; go on with: antlm train --resume {}", self.folder.path().display());
        Ok(Error::Stopped { signal, left })
    }

    /// Says how the run begins.
    fn begin(&mut self, layout: &Layout, words: u64, listener: &mut dyn Listener) -> Result<()> {
        for text in std::mem::take(&mut self.warnings) {
            self.emit(&Event::Warning { step: self.step, text }, listener)?;
        }
        let steps = layout.total_steps();
        let event = match self.resumed.take() {
            Some(path) => Event::Resume { step: self.step, steps, words_seen: self.words_seen(), words, path },
            None => Event::Start {
                version: events::VERSION,
                recipe: self.recipe.name.clone(),
                schedule: self.recipe.schedule.to_string(),
                seed: self.recipe.seed,
                parameters: self.weights.params.len() as u64,
                blocks: layout.blocks.len() as u64,
                steps,
                words,
            },
        };
        self.emit(&event, listener)
    }

    fn words_seen(&self) -> u64 {
        self.seen.values().map(|seen| seen.words).sum()
    }

    /// Log first, then whoever else listens.
    fn emit(&mut self, event: &Event, listener: &mut dyn Listener) -> Result<()> {
        self.log.event(event).map_err(|e| self.full(e))?;
        self.timing.event(event)?;
        listener.event(event)
    }

    #[allow(clippy::too_many_arguments)]
    fn measure(
        &mut self,
        dev: &Option<DevSet>,
        layout: &Layout,
        block: usize,
        at: Moment,
        pool: &mut Pool,
        listener: &mut dyn Listener,
        cancel: Cancel<'_>,
    ) -> Result<()> {
        let Some(dev) = dev else { return Ok(()) };
        let mut measuring = dev.measure();
        while !measuring.is_done() {
            if let Some(signal) = cancel() {
                return Err(self.stop(layout, signal, listener)?);
            }
            self.save_if_asked(layout, listener)?;
            measuring.next_batch(&self.model, self.weights.params.slice(), pool)?;
        }
        for found in measuring.losses() {
            let (step, block) = (self.step, block as u64);
            let super::dev::DevLoss { backend, loss, targets, unigram } = found;
            self.emit(&Event::Dev { step, block, at, backend, loss, targets, unigram }, listener)?;
        }
        Ok(())
    }

    /// Keeps the weights if so many steps are a milestone.
    fn milestone(&mut self, layout: &Layout, listener: &mut dyn Listener) -> Result<()> {
        let Some(name) = self.milestones.get(&self.step).cloned() else { return Ok(()) };
        self.timing.saving();
        let state = self.state(layout)?;
        checkpoint::save_milestone(self.folder.path(), &name, &state, self.model.layout(), &self.weights.read()?)
            .map_err(|e| self.full(e))?;
        let words_seen = self.words_seen();
        self.emit(&Event::Milestone { step: self.step, name, words_seen }, listener)
    }

    /// What a checkpoint says of the run as it is.
    fn state(&mut self, layout: &Layout) -> Result<State> {
        // Where the next step begins; after the last one, where that ended, as if another block followed.
        let last = self.step.checked_sub(1).and_then(|step| layout.step(step));
        let (block, position) = match (layout.step(self.step), &last) {
            (Some(next), _) => (next.block, next.positions.start),
            (None, Some(last)) => (last.block + 1, last.positions.end),
            (None, None) => (0, 0),
        };
        Ok(State {
            hashes: self.hashes.clone(),
            seed: self.recipe.seed,
            step: self.step,
            optimizer_t: self.weights.t,
            block: block as u64,
            trained_block: last.map(|step| step.block as u64),
            position,
            health: self.health.clone(),
            unmeasured: self.unmeasured,
            seen: self.seen.clone(),
            log: self.log.sync()?,
            precision: self.device.arithmetic(self.recipe.precision.on(&self.device)).into(),
            device: self.device.kind().into(),
        })
    }

    /// Writes a checkpoint of the run as it is, and removes what it makes needless.
    fn save(&mut self, layout: &Layout, kept: bool) -> Result<PathBuf> {
        self.timing.saving();
        let state = self.state(layout)?;
        let run = self.folder.path();
        let path = checkpoint::save(run, &state, self.model.layout(), &self.weights.read()?, kept)?;
        self.saved = Some(self.step);
        let Checkpoints { keep_last, keep_every, .. } = self.recipe.checkpoints;
        checkpoint::retain(run, self.step, keep_last, keep_every)?;
        Ok(path)
    }

    /// Adds to the error of a full disk what to do.
    fn full(&self, error: Error) -> Error {
        match error {
            Error::Io { path, source }
                if (Error::Io { path: path.clone(), source: source.kind().into() }).is_full() =>
            {
                let run = self.folder.path().display();
                let last =
                    self.saved.map_or("no checkpoint is there yet".into(), |step| format!("saved is step {step}"));
                let what = format!("{source}; {last}; make room, and go on with: antlm train --resume {run}");
                Error::Io { path, source: std::io::Error::new(source.kind(), what) }
            }
            error => error,
        }
    }
}

/// The objective before this step, if the step begins a block with another one.
fn switch(layout: &Layout, step: &Step) -> Option<crate::objective::Objective> {
    let before = layout.step(u64::from(step.index).checked_sub(1)?)?;
    (step.in_block == 0 && before.objective != step.objective).then_some(before.objective)
}

/// Why the dev losses are measured after this step, if they are.
fn moment(layout: &Layout, step: &Step) -> Option<Moment> {
    if step.ends_block {
        return Some(Moment::Block);
    }
    if step.ends_epoch.is_some() {
        return Some(Moment::Epoch);
    }
    let first = layout.step(layout.blocks[step.block].steps.start)?;
    (step.in_block + 1 == AFTER_SWITCH && switch(layout, &first).is_some()).then_some(Moment::Switch)
}
