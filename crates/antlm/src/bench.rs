//! The time of one optimiser step, with the keys of the PyTorch peer: forward, loss, backward, clip at 2.0, AdamW.

use std::time::Instant;

use antlm_nn::device::Precision as Operands;
use antlm_nn::device::{Buffer, Device, Trained};
use antlm_nn::optim::{Optimizer, Rule, Update, clip_coefficient};
use antlm_nn::rng::{Rng, Stream};
use antlm_nn::tape::{Dropout, Pool};
use serde::Serialize;

use crate::model::{Kind, Model};
use crate::objective::{Batch, Objective};
use crate::recipe::{BatchSize, Precision, Recipe, size};
use crate::train::step::{Training, gradient};
use crate::{Error, Result};

/// What [`run`] times.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `clm` or `mlm`.
    pub objective: Objective,
    /// Sequences in a step.
    pub batch: u32,
    /// Tokens in a sequence.
    pub seq: u32,
    /// Steps that are timed; two more warm up.
    pub steps: u32,
    /// The operands of the products.
    pub precision: Precision,
}

/// One line of results.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `antlm` and its version.
    pub peer: String,
    /// The recipe's name.
    pub model: String,
    /// What the step taught.
    pub objective: Objective,
    /// Sequences in a step.
    pub batch: u32,
    /// Tokens in a sequence.
    pub seq: u32,
    /// Products in bf16.
    pub bf16: bool,
    /// There is nothing to compile here; the peer has the key.
    pub compile: bool,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// Threads.
    pub threads: usize,
    /// Parameters of the model.
    pub parameters: usize,
    /// Median seconds of a step.
    pub seconds_median: f64,
    /// Seconds of the fastest step.
    pub seconds_min: f64,
    /// Tokens a second at the median.
    pub tokens_per_second: f64,
    /// Largest memory of the process so far, in bytes; 0 where the system does not say.
    pub peak_bytes: u64,
    /// Loss of the last step.
    pub last_loss: f64,
}

/// Steps of a recipe's model on random tokens, one after another. LTG-BERT drops 0.1, Llama nothing, whatever the recipe
/// says.
pub struct Steps {
    model: Model,
    batch: Batch,
    params: Buffer,
    grads: Buffer,
    moments: [Buffer; 2],
    pool: Pool,
    precision: Operands,
    done: u32,
}

impl Steps {
    /// Everything that a step needs. `options.steps` does not matter.
    ///
    /// # Errors
    /// [`Error::Usage`] for a vocabulary of special tokens only, and for sizes that no memory holds.
    pub fn new(recipe: &Recipe, options: Options) -> Result<Steps> {
        Steps::on(recipe, options, Device::Cpu)
    }

    /// The same on a device.
    ///
    /// # Errors
    /// As [`Steps::new`], and the device's.
    pub fn on(recipe: &Recipe, options: Options, device: Device) -> Result<Steps> {
        let mut config = recipe.model.clone();
        let p = if config.kind == Kind::LtgBert { 0.1 } else { 0.0 };
        (config.hidden_dropout, config.attention_dropout) = (p, p);
        let rows = options.batch.saturating_mul(options.seq);
        let sized = Recipe { seq_len: options.seq as usize, precision: options.precision, ..recipe.clone() };
        let sized = Recipe { batch: BatchSize { segments: options.batch, micro_tokens: rows }, ..sized };
        size::check_memory_on(&sized, &device)?;
        let model = Model::new(&config)?;
        let batch = tokens(options, config.vocab_size as u32)?;
        let params = device.buffer(model.init(0))?;
        let zeros = || device.buffer(vec![0.0; params.len()]);
        let (grads, moments) = (zeros()?, [zeros()?, zeros()?]);
        Ok(Steps {
            model,
            batch,
            params,
            grads,
            moments,
            precision: options.precision.on(&device),
            pool: Pool::of(device),
            done: 0,
        })
    }

    /// One step; its loss.
    ///
    /// # Errors
    /// The engine's.
    pub fn step(&mut self) -> Result<f64> {
        let adamw = Optimizer { rule: Rule::AdamW, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
        let dropout = Some(Dropout { rng: Rng::new(0), step: self.done });
        let training = Training { dropout, z_loss: 0.0, precision: self.precision };
        let batches = std::slice::from_ref(&self.batch);
        let (loss, _, _) = gradient(&self.model, &self.params, batches, training, &mut self.grads, &mut self.pool)?;
        self.done += 1;
        let device = self.pool.device();
        let grad_scale = clip_coefficient(device.norm(self.grads.slice())?, 2.0);
        let update = Update { t: u64::from(self.done), lr: 1e-4, grad_scale };
        let [m, v] = self.moments.each_mut().map(Buffer::slice_mut);
        let of = Trained { params: self.params.slice_mut(), grads: self.grads.slice(), m, v, average: None };
        device.update(&adamw, self.model.layout(), of, update)?;
        Ok(loss)
    }

    /// Numbers of the model.
    pub fn parameters(&self) -> usize {
        self.params.len()
    }
}

/// Times steps.
///
/// # Errors
/// Those of [`Steps`].
pub fn run(recipe: &Recipe, options: Options, device: &Device) -> Result<Report> {
    let mut steps = Steps::on(recipe, options, device.clone())?;
    let (mut seconds, mut last_loss) = (Vec::new(), 0.0);
    for step in 0..options.steps + 2 {
        let start = Instant::now();
        last_loss = steps.step()?;
        if step >= 2 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let middle = seconds.len() / 2;
    let median =
        if seconds.len().is_multiple_of(2) { (seconds[middle - 1] + seconds[middle]) / 2.0 } else { seconds[middle] };
    Ok(Report {
        peer: concat!("antlm ", env!("CARGO_PKG_VERSION")).into(),
        model: recipe.name.clone(),
        objective: options.objective,
        batch: options.batch,
        seq: options.seq,
        bf16: options.precision.on(device) == Operands::Bf16,
        compile: false,
        device: device.to_string(),
        threads: rayon::current_num_threads(),
        parameters: steps.parameters(),
        seconds_median: median,
        seconds_min: seconds[0],
        tokens_per_second: f64::from(options.batch) * f64::from(options.seq) / median,
        peak_bytes: peak_bytes(),
        last_loss,
    })
}

/// Random sequences; for `clm` every token but a sequence's first is predicted, for `mlm` 15 % of them.
fn tokens(options: Options, vocab: u32) -> Result<Batch> {
    let rng = Rng::new(0);
    let ordinary = vocab.checked_sub(5).filter(|&n| n > 0);
    let ordinary = ordinary.ok_or_else(|| Error::Usage(format!("a vocabulary of {vocab} has no ordinary token")))?;
    let n = options.batch.checked_mul(options.seq).filter(|&n| n <= 1 << 24);
    let n =
        n.ok_or_else(|| Error::Usage("more than 16 million tokens a step; take a smaller --batch or --seq".into()))?;
    let mut draws = rng.draws(Stream::SAMPLE, 0, 0);
    let ids: Vec<u32> = (0..n).map(|_| 5 + draws.below(ordinary)).collect();
    let causal = options.objective == Objective::Clm;
    let wanted = |row: &u32| {
        if causal { row % options.seq != options.seq - 1 } else { rng.unit(Stream::MASK, 0, *row, 0) < 0.15 }
    };
    let rows: Vec<u32> = (0..n).filter(wanted).collect();
    let targets = rows.iter().map(|&row| ids[(row + u32::from(causal)) as usize]).collect();
    let bounds = (0..=options.batch).map(|i| i * options.seq).collect();
    Ok(Batch { ids, bounds, rows, targets, causal, first_row: 0 })
}

/// The process's largest resident memory, from `/proc` where there is one.
pub fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).map_or(0, |kb| kb * 1024)
}
