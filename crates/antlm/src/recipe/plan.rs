//! What a recipe will do, before it does it: blocks, steps, words, learning rates, memory, and the BabyLM limits.
//!
//! With a prepared text everything is as the run will have it. Without, the plan assumes 10 M words, spread evenly over
//! full segments, and says so.

use super::budget::{self, Allowed, Before, Track};
use super::milestones::Milestone;
use super::{Precision, Recipe, Restart, size};
use crate::Result;
use crate::model::Kind;
use crate::objective::Objective;
use crate::objective::stream::{self, Layout};
use crate::text::prepare::{Prepared, SourceRecord};
use crate::text::words::grouped;
use antlm_nn::rng::Rng;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Words of the text a plan assumes when it knows none.
const ASSUMED_WORDS: u64 = 10_000_000;
/// Tokens a word that a plan assumes when it knows no text: 9.9 M words of BabyLM-like text have 1.61 with a byte-level
/// vocabulary of 16,384 (300,000 words 1.83 with one of 4096).
const ASSUMED_TOKENS_PER_WORD: f64 = 1.6;
/// Blocks shorter than this do not win back what the block before wiped out (measured on the tiny LTG-BERT: 100-150).
const SHORT_BLOCK: u64 = 100;
/// BabyLM's finest spacing of checkpoints, in words seen.
const MILESTONE: u64 = 1_000_000;

/// The size of a prepared text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Segments of an epoch.
    pub segments: u32,
    /// Raw words in them, repeats counted: what an epoch shows.
    pub words: u64,
    /// Tokens in them, without framing.
    pub tokens: u64,
    /// Words of the raw text, each document counted once, whatever its source's weight.
    pub text_words: u64,
}

impl Facts {
    /// The size of a text of so many words, if a word has 1.6 tokens and all segments are full.
    pub fn assumed(words: u64, seq_len: usize) -> Facts {
        let tokens = (words as f64 * ASSUMED_TOKENS_PER_WORD) as u64;
        let segments = tokens.div_ceil(seq_len as u64 - 2).clamp(1, u64::from(u32::MAX)) as u32;
        Facts { segments, words, tokens, text_words: words }
    }
}

/// One block of a plan. Numbers of blocks, epochs and steps count from 1 in texts and from 0 here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanBlock {
    /// As in the schedule, `4 clm`.
    pub what: String,
    /// Epochs it lasts.
    pub epochs: f64,
    /// Words seen in it.
    pub words: u64,
    /// Words seen from the start of the run to its end.
    pub words_seen: u64,
    /// Its first step.
    pub first_step: u64,
    /// Its steps.
    pub steps: u64,
    /// Its steps by objective.
    pub steps_by_objective: BTreeMap<Objective, u64>,
    /// The learning rate of its first step.
    pub lr_first: f64,
    /// The learning rate of its last step.
    pub lr_last: f64,
}

/// A limit of the BabyLM challenge, and where the run crosses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// `strict-small` or `strict`.
    pub track: &'static str,
    /// `text` (words of the text) or `seen` (words seen, repeats counted).
    pub what: &'static str,
    /// The largest number of words allowed.
    pub words: u64,
    /// The run goes beyond it.
    pub crossed: bool,
    /// For words seen: the block (from 0) with the first word too many.
    pub block: Option<usize>,
    /// The epoch (from 0) with that word.
    pub epoch: Option<u64>,
    /// The step (from 0) with that word.
    pub step: Option<u64>,
}

/// A recipe's plan. `Display` is the table that `antlm plan` prints, the serde form is its `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The recipe's name.
    pub recipe: String,
    /// `ltg-bert` or `llama`.
    pub model: Kind,
    /// The schedule, in canonical spelling.
    pub schedule: String,
    /// The text is not known: `dataset` is an assumption.
    pub assumed: bool,
    /// The text.
    pub dataset: Facts,
    /// What each source gave to it; none, if the text is not known.
    pub sources: Vec<SourceRecord>,
    /// Tokens of a segment, framing included.
    pub seq_len: usize,
    /// Segments of an optimiser step.
    pub segments_per_step: u32,
    /// Words of an optimiser step, on average.
    pub words_per_step: f64,
    /// Parameters of the model.
    pub parameters: u64,
    /// The numbers it is trained with.
    pub precision: Precision,
    /// The milestones that it reaches, the untrained model first; none, if the recipe asks for none.
    pub milestones: Vec<Milestone>,
    /// Those that it asks for besides the untrained model.
    pub milestones_asked: usize,
    /// Expected memory in bytes.
    pub memory: size::Memory,
    /// Optimiser steps of the run.
    pub steps: u64,
    /// Optimiser steps by objective.
    pub steps_by_objective: BTreeMap<Objective, u64>,
    /// Steps in which the learning rate rises.
    pub warmup_steps: u64,
    /// Epochs of the run.
    pub epochs: f64,
    /// Words seen in the run.
    pub words: u64,
    /// The blocks.
    pub blocks: Vec<PlanBlock>,
    /// The BabyLM limits (2025 and 2026).
    pub limits: Vec<Limit>,
    /// The track whose limits the run has to keep to.
    pub track: Track,
    /// What that track allows.
    pub allowed: Option<Allowed>,
    /// Why `antlm train` would refuse the run, if it is beyond that.
    pub refused: Option<String>,
    /// What the user should know before starting.
    pub notes: Vec<String>,
}

impl Limit {
    /// Where the run goes beyond it, for people, who count from 1: `block 2, epoch 11, step 9,922`.
    pub fn place(&self) -> Option<String> {
        let (block, epoch, step) = (self.block? + 1, self.epoch? + 1, grouped(self.step? + 1));
        Some(format!("block {block}, epoch {epoch}, step {step}"))
    }
}

impl Plan {
    /// Plans the run of a recipe on a text of this size, or on an assumed one of 10 M words.
    ///
    /// ```
    /// use antlm::recipe::{Plan, builtin};
    /// let plan = Plan::new(&builtin("antlm-babyllama-58m")?, None)?;
    /// assert_eq!(plan.epochs, 24.0);
    /// assert_eq!(plan.parameters, 58_343_936);
    /// # Ok::<(), antlm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::Usage`] if the schedule cannot be laid out over this text.
    pub fn new(recipe: &Recipe, facts: Option<Facts>) -> Result<Plan> {
        let dataset = facts.unwrap_or_else(|| Facts::assumed(ASSUMED_WORDS, recipe.seq_len));
        let even = |segment: u32| {
            let up_to = |n: u32| u128::from(dataset.words) * u128::from(n) / u128::from(dataset.segments.max(1));
            (up_to(segment + 1) - up_to(segment)).min(u128::from(u32::MAX)) as u32
        };
        Plan::with_words(recipe, dataset, facts.is_none(), &even)
    }

    /// Plans the run of a recipe on prepared text, exactly: the model gets the vocabulary that its tokenizer has.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn of(recipe: &Recipe, prepared: &Prepared) -> Result<Plan> {
        let mut recipe = recipe.clone();
        (recipe.used, recipe.model.vocab_size) = (None, prepared.tokenizer.vocab_size());
        let train = &prepared.train;
        let facts = Facts {
            segments: train.len(),
            words: train.total_words(),
            tokens: train.total_tokens(),
            text_words: prepared.summary.text_words(),
        };
        let mut plan = Plan::with_words(&recipe, facts, false, &|segment| train.segment(segment).words)?;
        plan.sources = prepared.summary.sources.clone();
        plan.refused = budget::refusal(&plan, Before::Words(0));
        Ok(plan)
    }

    /// As [`Plan::new`], with the words of each segment.
    pub(super) fn with_words(
        recipe: &Recipe,
        dataset: Facts,
        assumed: bool,
        words: &dyn Fn(u32) -> u32,
    ) -> Result<Plan> {
        let (scheduled, rng) = (recipe.schedule.blocks(), Rng::new(recipe.seed));
        let layout = Layout::new(&scheduled, dataset.segments, words, recipe.batch.segments, rng)?;

        let per_epoch = f64::from(dataset.segments);
        let mut blocks: Vec<PlanBlock> = Vec::new();
        let mut steps_by_objective = BTreeMap::new();
        for (block, span) in scheduled.iter().zip(&layout.blocks) {
            let rate = |step| layout.step(step).map_or(0.0, |step| recipe.learning_rate_at(&layout, &step));
            let by_objective: BTreeMap<_, _> = span.steps_by_objective().into_iter().collect();
            by_objective
                .iter()
                .for_each(|(&objective, steps)| *steps_by_objective.entry(objective).or_default() += steps);
            blocks.push(PlanBlock {
                what: block.to_string(),
                epochs: (span.positions.end - span.positions.start) as f64 / per_epoch,
                words: span.words,
                words_seen: blocks.last().map_or(0, |last| last.words_seen) + span.words,
                first_step: span.steps.start,
                steps: span.steps.end - span.steps.start,
                steps_by_objective: by_objective,
                lr_first: rate(span.steps.start),
                lr_last: rate(span.steps.end - 1),
            });
        }
        let steps = layout.total_steps();
        let mut plan = Plan {
            recipe: recipe.name.clone(),
            model: recipe.model.kind,
            schedule: recipe.schedule.to_string(),
            assumed,
            dataset,
            sources: Vec::new(),
            seq_len: recipe.seq_len,
            segments_per_step: recipe.batch.segments,
            words_per_step: dataset.words as f64 / per_epoch * f64::from(recipe.batch.segments),
            parameters: size::parameters(&recipe.config()),
            precision: recipe.precision,
            memory: size::memory_of(recipe),
            steps,
            steps_by_objective,
            warmup_steps: recipe.learning_rate.curve().warmup.steps(match recipe.learning_rate.restart {
                Restart::Never => steps,
                Restart::Block => blocks.first().map_or(0, |block| block.steps),
            }),
            epochs: blocks.iter().map(|block| block.epochs).sum(),
            words: blocks.last().map_or(0, |block| block.words_seen),
            blocks,
            limits: Vec::new(),
            track: recipe.track(),
            allowed: recipe.track().allowed(),
            refused: None,
            milestones: Vec::new(),
            milestones_asked: recipe.checkpoints.milestones.marks().len(),
            notes: Vec::new(),
        };
        let position = |word| stream::position_of_word(word, dataset.segments, words, rng);
        plan.milestones = recipe.checkpoints.milestones.reached(&layout, position)?;
        plan.limits = limits(&plan, &layout, position);
        plan.notes = notes(&plan, recipe);
        plan.refused = budget::refusal(&plan, Before::Words(0));
        Ok(plan)
    }
}

fn limits(plan: &Plan, layout: &Layout, position: impl Fn(u64) -> Option<u64>) -> Vec<Limit> {
    let text = |track, words| Limit {
        track,
        what: "text",
        words,
        crossed: plan.dataset.text_words > words,
        block: None,
        epoch: None,
        step: None,
    };
    let seen = |track, words: u64| {
        let block = plan.blocks.iter().position(|block| block.words_seen > words);
        // With `words` words before it, this is the first one too many.
        let position = position(words).unwrap_or(0);
        let step = block.map(|block| {
            let span = &layout.blocks[block];
            let inside = position.saturating_sub(span.positions.start) / u64::from(layout.batch);
            (span.steps.start + inside).min(span.steps.end - 1)
        });
        let epoch = block.map(|_| position / u64::from(layout.segments));
        Limit { track, what: "seen", words, crossed: block.is_some(), block, epoch, step }
    };
    vec![
        text("strict-small", 10_000_000),
        seen("strict-small", 100_000_000),
        text("strict", 100_000_000),
        seen("strict", 1_000_000_000),
    ]
}

fn notes(plan: &Plan, recipe: &Recipe) -> Vec<String> {
    let mut notes = Vec::new();
    if plan.assumed {
        notes.push(format!(
            "no text given: {} words and {} tokens in full segments are an assumption",
            grouped(plan.dataset.words),
            grouped(plan.dataset.tokens)
        ));
    }
    let causal = plan.steps_by_objective.contains_key(&Objective::Clm);
    let masked = plan.steps_by_objective.keys().any(|&objective| objective != Objective::Clm);
    let short = plan.blocks.iter().map(|block| block.steps).min().unwrap_or(0);
    if plan.blocks.len() > 1 && causal && masked && short < SHORT_BLOCK {
        notes.push(format!(
            "the shortest block has {short} steps: below 100 to 150 a block does not win back what the one before wiped out; fewer segments a step or more epochs help"
        ));
    }
    if let super::Warmup::Steps(wanted) = recipe.learning_rate.warmup
        && plan.warmup_steps < wanted
    {
        notes.push(format!("the warm-up of {wanted} steps is cut to {}, a tenth of the run", plan.warmup_steps));
    }
    if plan.words_per_step > MILESTONE as f64 {
        notes.push("a step takes more than 1 M words: BabyLM's checkpoints every 1 M words would share weights".into());
    } else if plan.words_per_step > MILESTONE as f64 / 2.0 {
        notes.push(
            "a step takes more than 0.5 M words: BabyLM's checkpoints every 1 M words lie a step or two apart".into(),
        );
    }
    if let Some(missing) = plan.milestones_asked.checked_sub(plan.milestones.len().saturating_sub(1))
        && missing > 0
    {
        notes.push(format!(
            "the run sees {} words and does not reach the last {missing} milestones",
            grouped(plan.words)
        ));
    }
    notes
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match self.model {
            Kind::LtgBert => "LTG-BERT",
            Kind::Llama => "Llama",
        };
        writeln!(f, "{}: {}", self.recipe, self.schedule)?;
        writeln!(f, "  model    {kind}, {} parameters, f32", grouped(self.parameters))?;
        writeln!(
            f,
            "  text     {} words, {} tokens, {} segments of up to {} tokens{}",
            grouped(self.dataset.words),
            grouped(self.dataset.tokens),
            grouped(u64::from(self.dataset.segments)),
            self.seq_len,
            if self.assumed { " (assumed)" } else { "" }
        )?;
        for source in &self.sources {
            writeln!(f, "  source   {source}")?;
        }
        writeln!(
            f,
            "  step     {} segments, about {} words",
            self.segments_per_step,
            grouped(self.words_per_step.round() as u64)
        )?;
        writeln!(
            f,
            "  run      {} steps ({} of warm-up), {} epochs, {} words seen",
            grouped(self.steps),
            grouped(self.warmup_steps),
            decimal(self.epochs),
            grouped(self.words)
        )?;
        match self.allowed {
            None => writeln!(f, "  track    {}: nothing is refused", self.track)?,
            Some(Allowed { text, seen }) => writeln!(
                f,
                "  track    {}: {} of {} words of text, {} of {} words seen",
                self.track,
                grouped(self.dataset.text_words),
                grouped(text),
                grouped(self.words),
                grouped(seen)
            )?,
        }
        if let [_, reached @ ..] = &self.milestones[..] {
            write!(f, "  mark     {} of {} milestones", reached.len(), self.milestones_asked)?;
            if let [first, .., last] | [first @ last] = reached {
                write!(
                    f,
                    ", {} after step {} to {} after step {}",
                    first.name,
                    grouped(first.step),
                    last.name,
                    grouped(last.step)
                )?;
            }
            writeln!(f, "; and the untrained model")?;
        }
        let memory = &self.memory;
        writeln!(
            f,
            "  memory   about {} (weights {}, gradients {}, moments {}, activations {})",
            bytes(memory.total),
            bytes(memory.parameters),
            bytes(memory.gradients),
            bytes(memory.moments),
            bytes(memory.activations)
        )?;
        writeln!(f)?;
        let header = ["block", "what", "epochs", "steps", "by objective", "words", "words seen", "lr first", "lr last"];
        let mut rows: Vec<[String; 9]> = vec![header.map(String::from)];
        for (index, block) in self.blocks.iter().enumerate() {
            let parts: Vec<String> =
                block.steps_by_objective.iter().map(|(objective, steps)| format!("{objective} {steps}")).collect();
            rows.push([
                (index + 1).to_string(),
                block.what.clone(),
                decimal(block.epochs),
                grouped(block.steps),
                parts.join(", "),
                grouped(block.words),
                grouped(block.words_seen),
                format!("{:.3e}", block.lr_first),
                format!("{:.3e}", block.lr_last),
            ]);
        }
        table(f, &rows)?;
        writeln!(f)?;
        for limit in &self.limits {
            let kind = if limit.what == "text" { "words of text" } else { "words seen" };
            write!(f, "  BabyLM {:<12} {:>13} {kind:<13} ", limit.track, grouped(limit.words))?;
            match (limit.crossed, limit.place()) {
                (false, _) => writeln!(f, "within")?,
                (true, Some(place)) => writeln!(f, "CROSSED in {place}")?,
                (true, None) => writeln!(f, "CROSSED")?,
            }
        }
        if let Some(why) = &self.refused {
            writeln!(f, "  REFUSED by train: {why}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

/// Columns as wide as their widest cell: texts to the left, numbers to the right.
fn table(f: &mut fmt::Formatter, rows: &[[String; 9]]) -> fmt::Result {
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            line += &match column {
                1 | 4 => format!("  {cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        writeln!(f, "{line}")?;
    }
    Ok(())
}

/// Two places after the point, none where they are zeros.
fn decimal(x: f64) -> String {
    let text = format!("{x:.2}");
    text.strip_suffix(".00").map_or(text.clone(), String::from)
}

fn bytes(n: u64) -> String {
    let mb = n as f64 / 1e6;
    if mb < 1000.0 { format!("{mb:.0} MB") } else { format!("{:.1} GB", mb / 1000.0) }
}

#[cfg(test)]
mod tests;
