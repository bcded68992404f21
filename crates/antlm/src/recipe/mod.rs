//! The one configuration type: a recipe says everything about a run but the text and where to put the result.
//!
//! A recipe is TOML. The built-in ones are data in the folder `recipes`; a user's own may start from one of them with
//! `base = "antlm-ltg-bert-small"` and give only the keys that differ. Unknown keys are errors, and what a recipe leaves
//! out has its default here.

use crate::model::Config;
use crate::objective::schedule::Schedule;
use crate::objective::stream::{Layout, Step};
use crate::objective::{Backend, Masking};
use crate::text::clean::Cleaning;
use crate::text::corpus::DocumentRule;
use crate::text::source::{Source, default_field};
use antlm_nn::device::Device;
use antlm_nn::device::Precision as Operands;
use antlm_nn::optim::curve::{Curve, Length, Shape};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

pub mod budget;
mod builtin;
mod check;
pub mod flat;
pub mod init;
pub mod keys;
mod load;
pub mod milestones;
pub mod plan;
pub mod size;

pub use budget::Track;
pub use builtin::{builtin, names};
pub use keys::KEYS;
pub use milestones::{Milestones, mark};
pub use plan::Plan;

/// The recipe format this program reads and writes.
pub const VERSION: u32 = 1;

/// A checked recipe; made by [`Recipe::load`], [`Recipe::from_toml`] or [`builtin`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The format's version, [`VERSION`].
    pub version: u32,
    /// Its name; of a file without one, the file's name.
    pub name: String,
    /// What it is for, in a line.
    #[serde(default)]
    pub description: String,
    /// Which objective is trained for how long, in which order.
    pub schedule: Schedule,
    /// The BabyLM track whose limits of words the run has to keep to.
    #[serde(default)]
    pub track: Track,
    /// Tokens of a segment, opening and closing mark included.
    pub seq_len: usize,
    /// The seed of everything random: initial weights, order, masks, dropout.
    #[serde(default)]
    pub seed: u64,
    /// The operands of training's products.
    #[serde(default)]
    pub precision: Precision,
    /// The model.
    pub model: Config,
    /// How the tokenizer is trained; its size is `model.vocab_size`.
    #[serde(default)]
    pub tokenizer: Tokenizer,
    /// How tokens are masked (for `mlm` and `mntp`).
    pub masking: Masking,
    /// How many segments make a step.
    pub batch: BatchSize,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// The learning-rate curve.
    pub learning_rate: LearningRate,
    /// The text that is held out.
    #[serde(default)]
    pub dev: Dev,
    /// When the run is saved.
    #[serde(default)]
    pub checkpoints: Checkpoints,
    /// What becomes of steps that go wrong.
    #[serde(default)]
    pub health: Health,
    /// `[[data]]`: where the text is, and how each source of it is read. May be empty; text given on the command line
    /// takes the place of all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Source>,
    /// In a run folder: what the run really used. A new run that starts from such a recipe does not look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
    /// In the folder of an imported model: where it comes from. A new run that starts from such a recipe does not look at
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
}

/// The numbers that products of training have as operands. Weights, moments, sums, norms and softmax are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// bf16, the upper half of f32, rounded to nearest even.
    Bf16,
    /// bf16 where the device multiplies it faster, f32 elsewhere. A run's own recipe says which it was.
    Auto,
}

impl Precision {
    /// What it comes to on a device.
    pub fn on(self, device: &Device) -> Operands {
        match self {
            Precision::Bf16 => Operands::Bf16,
            Precision::Auto if device.multiplies_bf16() => Operands::Bf16,
            Precision::F32 | Precision::Auto => Operands::F32,
        }
    }
}

impl From<Operands> for Precision {
    fn from(operands: Operands) -> Precision {
        match operands {
            Operands::F32 => Precision::F32,
            Operands::Bf16 => Precision::Bf16,
        }
    }
}

/// `[tokenizer]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokenizer {
    /// A pair of tokens is merged only if it occurs at least so often (2).
    pub min_frequency: u32,
}

impl Default for Tokenizer {
    fn default() -> Tokenizer {
        Tokenizer { min_frequency: 2 }
    }
}

/// `[batch]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSize {
    /// Segments of an optimiser step.
    pub segments: u32,
    /// Rows (tokens with framing) of a micro-batch, at most; a step is as many micro-batches as it needs. It decides the
    /// memory and the speed, not the result (up to rounding).
    pub micro_tokens: u32,
}

/// The optimisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay, as in PyTorch.
    Adamw,
    /// Adam with a trust ratio per tensor, as in LTG-BERT.
    Lamb,
}

/// `[optimizer]`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// Which one.
    pub kind: OptimizerKind,
    /// The peak of the learning rate.
    pub lr: f64,
    /// Decay of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay; which tensors decay is the optimiser's business.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; `inf` for no clipping.
    pub clip: f64,
    /// Coefficient c of the z-loss (0, off; PaLM has 1e-4): every target's loss is -log p + c · (log Σ exp(logits))², which
    /// keeps the logits from drifting away. It is in the gradient only: the losses that are logged stay -log p.
    #[serde(default)]
    pub z_loss: f64,
    /// Decay d of a moving average of the weights (0, off; 0.999 is usual): after every update average = d · average +
    /// (1 - d) · weights, from the initial weights on. Training and dev losses do not see it; `antlm score --ema` does.
    #[serde(default)]
    pub ema_decay: f64,
}

/// Shapes of the learning-rate curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CurveShape {
    /// Half a cosine down to the floor.
    Cosine,
    /// A line down to the floor.
    Linear,
    /// The peak throughout.
    Constant,
}

/// A warm-up in steps or as a share of all steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of steps (300) or a share of all steps (0.016)")]
pub enum Warmup {
    /// A whole number: so many steps, but at most a tenth of the run.
    Steps(u64),
    /// A number with a point: this share of all steps.
    Fraction(f64),
}

/// Whether the curve starts again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Restart {
    /// One curve spans all blocks.
    #[default]
    Never,
    /// Every block has a curve of its own.
    Block,
}

/// `[learning_rate]`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRate {
    /// Its shape.
    pub curve: CurveShape,
    /// How long it rises.
    pub warmup: Warmup,
    /// Where it ends, as a share of the peak.
    #[serde(default)]
    pub floor: f64,
    /// Share of all steps at the end in which it falls to 0.
    #[serde(default)]
    pub cooldown: f64,
    /// Whether it starts again with every block.
    #[serde(default)]
    pub restart: Restart,
}

impl LearningRate {
    /// The curve of these values.
    pub fn curve(&self) -> Curve {
        let shape = match self.curve {
            CurveShape::Cosine => Shape::Cosine,
            CurveShape::Linear => Shape::Linear,
            CurveShape::Constant => Shape::Constant,
        };
        let warmup = match self.warmup {
            Warmup::Steps(steps) => Length::Steps(steps),
            Warmup::Fraction(fraction) => Length::Fraction(fraction),
        };
        Curve { shape, warmup, floor: self.floor, cooldown: self.cooldown }
    }
}

/// `[dev]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dev {
    /// Files or folders with dev text, in a recipe file relative to the file's folder. Empty: 1 % of the documents are
    /// held out, chosen by their content after cleaning; weights play no part in that.
    pub paths: Vec<PathBuf>,
    /// The field or column of the dev text's `.jsonl` and `.parquet` files, as in `[[data]]`.
    pub field: String,
    /// The rule for its other files.
    pub documents: DocumentRule,
    /// How it is cleaned.
    pub cleaning: Cleaning,
    /// At most so many segments are scored at the end of an epoch (1000); 0 for all.
    pub max_segments: u32,
}

impl Default for Dev {
    fn default() -> Dev {
        Dev {
            paths: Vec::new(),
            field: default_field(),
            documents: DocumentRule::default(),
            cleaning: Cleaning::None,
            max_segments: 1000,
        }
    }
}

/// `[checkpoints]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoints {
    /// Saves the run every so many steps (500), so that it can be resumed; 0 for never. The end of every block is saved
    /// and kept in any case.
    pub every: u32,
    /// So many of those stay, the newest (2): with one more than one, a damaged folder does not cost a run.
    pub keep_last: u32,
    /// Saves the run every so many steps, too, and these stay for good; 0 (the default) for none.
    pub keep_every: u32,
    /// At which numbers of words seen the weights are kept in `milestones/`, beside the untrained model's.
    pub milestones: Milestones,
}

impl Default for Checkpoints {
    fn default() -> Checkpoints {
        Checkpoints { every: 500, keep_last: 2, keep_every: 0, milestones: Milestones::None }
    }
}

/// What becomes of a step whose loss or gradient is no finite number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNotFinite {
    /// The run ends before the weights change.
    #[default]
    Stop,
    /// The weights are not changed by it, and the run goes on; after ten in a row it ends.
    Skip,
}

/// What becomes of a step whose loss leaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnSpike {
    /// Nothing: losses are not looked at.
    Off,
    /// It is told.
    #[default]
    Report,
    /// The weights are not changed by it; after ten in a row the next one is taken.
    Skip,
}

/// `[health]`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// For a loss or a gradient that is no finite number.
    pub not_finite: OnNotFinite,
    /// For a loss that leaps.
    pub spikes: OnSpike,
    /// A loss leaps that lies so many standard deviations above the mean of the recent ones (6).
    pub spike_z: f64,
    /// So many losses are the recent ones (100): those of the same objective in the same block.
    pub window: u32,
}

impl Default for Health {
    fn default() -> Health {
        Health { not_finite: OnNotFinite::Stop, spikes: OnSpike::Report, spike_z: 6.0, window: 100 }
    }
}

/// `[used]`, in the recipe of a run folder: what the run was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// Version of antlm.
    pub antlm: String,
    /// Folder of the prepared text; a run that is resumed finds it there.
    pub prepared: PathBuf,
    /// Hash of the prepared text, training and dev, in hex.
    pub text: String,
    /// Hash of the tokenizer, in hex.
    pub tokenizer: String,
    /// The tokenizer's tokens, which are the model's: a small text gives fewer than `model.vocab_size` asks for.
    pub vocab_size: usize,
    /// The model that the run starts from (`antlm train --init`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<InitialModel>,
}

/// `[used.init]`: the trained model that a run starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitialModel {
    /// Its checkpoint's folder.
    pub checkpoint: PathBuf,
    /// SHA-256 of its weights' file.
    pub weights: String,
    /// Words that it had seen, repeats counted; nothing where nobody knows (a model that was imported).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<u64>,
}

/// `[imported]`, in the folder that `antlm import` makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imported {
    /// The folder's name.
    pub from: String,
    /// `model_type` in its config.json.
    pub model_type: String,
    /// SHA-256 of its weights' file.
    pub weights: String,
    /// The recipe came with the model. Otherwise only `[model]` is the model's, and the other keys are those of a built-in
    /// recipe, to have something to start from.
    pub recipe_known: bool,
    /// What config.json says that it was trained for, the last one last; nothing if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<Backend>>,
}

impl Recipe {
    /// The model's sizes: those of `[model]`, and of a run's recipe with the vocabulary that its tokenizer has.
    pub fn config(&self) -> Config {
        let vocab_size = self.used.as_ref().map_or(self.model.vocab_size, |used| used.vocab_size);
        Config { vocab_size, ..self.model.clone() }
    }

    /// The most rows of a micro-batch.
    pub fn micro_rows(&self) -> u32 {
        self.batch.micro_tokens.min(self.step_rows())
    }

    /// The most rows of a step.
    pub fn step_rows(&self) -> u32 {
        // `check` keeps it below 2^32.
        (u64::from(self.batch.segments) * self.seq_len as u64).min(u64::from(u32::MAX)) as u32
    }

    /// The learning rate of a step of this recipe's run.
    pub fn learning_rate_at(&self, layout: &Layout, step: &Step) -> f64 {
        let (index, total) = match self.learning_rate.restart {
            Restart::Never => (u64::from(step.index), layout.total_steps()),
            Restart::Block => {
                let steps = &layout.blocks[step.block].steps;
                (step.in_block, steps.end - steps.start)
            }
        };
        self.optimizer.lr * self.learning_rate.curve().factor(index, total)
    }
}
