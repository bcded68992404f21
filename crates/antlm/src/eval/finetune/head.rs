//! The classifier: a trained model without its head of language modelling, one row of a text, and a new head,
//! LN₀ - Linear - GELU - LN₀ - dropout - Linear. Both official fine-tunings have this head and differ in eps and in its
//! first values; with the preset 2024 it is the `…ForSequenceClassification` of our exports.

use std::sync::Arc;

use antlm_nn::kernels::dropout::Rows as DropRows;
use antlm_nn::params::{Init, Layout, View};
use antlm_nn::tape::{Act, Drop, Norm, Tape};

use super::presets::Preset;
use crate::Result;
use crate::model::{Config, Kind, Model, Rows};

/// The place of the head's dropout, past those of any model.
const SITE: u32 = 1 << 20;
/// The script of 2026 gives its norms this eps, whatever the model's.
const EPS_2026: f32 = 1e-5;
/// The head's dropout where the model does not say otherwise.
const DROPOUT: f64 = 0.1;

/// Which row of a text the head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// The opening mark's.
    First,
    /// The last token's.
    Last,
    /// That of the last token but one: what the script of 2026 reads with `--take_final`, padded on the left.
    SecondLast,
}

impl Vector {
    /// The row, of `n` (at least 1).
    pub fn row(self, n: usize) -> usize {
        match self {
            Vector::First => 0,
            Vector::Last => n - 1,
            Vector::SecondLast => n.saturating_sub(2),
        }
    }

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Vector::First => "first token",
            Vector::Last => "last token",
            Vector::SecondLast => "last token but one",
        }
    }
}

/// How a model is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Nothing to the right is seen.
    pub causal: bool,
    /// The row.
    pub vector: Vector,
}

/// A model with a head for classes. Its parameters are one flat buffer: the model's, then the head's.
#[derive(Clone, Debug)]
pub struct Classifier {
    model: Model,
    layout: Layout,
    /// `[d, d]` and `[d]`.
    hidden: (View, View),
    /// `[classes, d]` and `[classes]`.
    output: (View, View),
    eps: f32,
    dropout: f64,
    /// How texts are read.
    pub reading: Reading,
}

impl Classifier {
    /// The classifier of a preset for so many classes. All of its tensors decay, as both official optimisers have it.
    pub fn new(model: &Model, preset: Preset, classes: u32, reading: Reading) -> Classifier {
        let c = model.config();
        let d = c.hidden;
        let mut layout = Layout::default();
        for tensor in model.layout().tensors() {
            layout.add(&tensor.name[..], &tensor.shape, tensor.init, true);
        }
        let (weight, bias) = first_values(preset, c);
        let mut linear = |place: u32, rows: usize| {
            let name = format!("head.nonlinearity.{place}");
            let view = layout.add(format!("{name}.weight"), &[rows, d], weight, true);
            (view, layout.add(format!("{name}.bias"), &[rows], bias, true))
        };
        let (hidden, output) = (linear(1, d), linear(5, classes as usize));
        let (eps, dropout) = match (preset, c.kind) {
            (Preset::Y2024, Kind::LtgBert) => (c.norm_eps as f32, c.hidden_dropout),
            (Preset::Y2024, Kind::Llama) => (c.norm_eps as f32, DROPOUT),
            (Preset::Y2026, _) => (EPS_2026, DROPOUT),
        };
        Classifier { model: model.clone(), layout, hidden, output, eps, dropout, reading }
    }

    /// The tensors of model and head.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The trained parameters, and behind them the head's first values.
    pub fn init(&self, trained: &[f32], seed: u64) -> Vec<f32> {
        self.layout.init_behind(trained, seed)
    }

    /// The packed rows of these texts, of which none is empty; `first` is the row of the step that the first one is.
    pub fn rows<'a>(&self, texts: impl IntoIterator<Item = &'a [u32]>, first: u32) -> Rows {
        let (mut ids, mut bounds, mut picked) = (Vec::new(), vec![0], Vec::new());
        for text in texts {
            picked.push((ids.len() + self.reading.vector.row(text.len())) as u32);
            ids.extend_from_slice(text);
            bounds.push(ids.len() as u32);
        }
        let (ids, bounds, picked) = (Arc::from(ids), Arc::from(bounds), Arc::from(picked));
        Rows { ids, bounds, picked, causal: self.reading.causal, first, shared: None }
    }

    /// What the last layer of the head reads: `[m, d]` for m texts.
    fn top(&self, tape: &mut Tape<'_>, rows: &Rows) -> Result<Act> {
        let plain = Norm { eps: self.eps, ..Norm::default() };
        let x = self.model.features(tape, rows)?;
        let y = tape.layer_norm(x, &plain)?;
        let y = tape.linear(y, self.hidden.0, Some(self.hidden.1), None)?;
        let y = tape.gelu(y)?;
        let drop = Drop { site: SITE, p: self.dropout, rows: DropRows::Picked(rows.first, rows.picked.clone()) };
        Ok(tape.layer_norm(y, &Norm { drop: Some(drop), ..plain })?)
    }

    /// Logits of m texts: `[m, classes]`.
    ///
    /// # Errors
    /// The engine's, for ids outside their range.
    pub fn logits(&self, tape: &mut Tape<'_>, rows: &Rows) -> Result<Act> {
        let y = self.top(tape, rows)?;
        Ok(tape.linear(y, self.output.0, Some(self.output.1), None)?)
    }

    /// -log p of every text's label in nats, `[m]`. Each counts `weight` times in the gradient.
    ///
    /// # Errors
    /// The engine's, for ids or labels outside their range.
    pub fn loss(&self, tape: &mut Tape<'_>, rows: &Rows, labels: &[u32], weight: f32) -> Result<Vec<f32>> {
        let y = self.top(tape, rows)?;
        Ok(tape.classifier_loss(y, self.output.0, Some(self.output.1), labels, weight, 0.0)?)
    }
}

/// First values of the head's matrices and biases: with 2024 those of our remote code (`_init_weights`), with 2026 those
/// that PyTorch gives a new linear layer, uniform in ±1/√d.
fn first_values(preset: Preset, config: &Config) -> (Init, Init) {
    let d = config.hidden as f64;
    match (preset, config.kind) {
        (Preset::Y2024, Kind::LtgBert) => {
            (Init::TruncatedNormal { std: (2.0 / (5.0 * d)).sqrt(), scale: 1.0 }, Init::Zeros)
        }
        (Preset::Y2024, Kind::Llama) => (Init::Normal { std: 0.02 }, Init::Zeros),
        (Preset::Y2026, _) => {
            let uniform = Init::Uniform { bound: 1.0 / d.sqrt() };
            (uniform, uniform)
        }
    }
}
