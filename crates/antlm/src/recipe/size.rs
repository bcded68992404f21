//! Closed formulas for the size of a model: parameters, and the memory a training run needs.

use super::{Precision, Recipe};
use antlm_nn::device::Device;

use crate::model::{Config, Kind};
use crate::{Error, Result};
use serde::Serialize;

/// Rows of LTG-BERT's table of relative positions: 2 x 32 buckets - 1.
const RELATIVE_ROWS: u64 = 63;

/// Number of parameters; a tied matrix counts once.
///
/// ```
/// let recipe = antlm::recipe::builtin("ltg-bert-base")?;
/// assert_eq!(antlm::recipe::size::parameters(&recipe.model), 98_229_760);
/// # Ok::<(), antlm::Error>(())
/// ```
pub fn parameters(config: &Config) -> u64 {
    let [l, d, i, v] = [config.layers, config.hidden, config.intermediate, config.vocab_size].map(|size| size as u64);
    match config.kind {
        Kind::LtgBert => {
            // Q|K, V, O with biases, the norm behind them; W1 (2I x d) and W2 (d x I) without.
            let layer = (4 * d * d + 4 * d) + 2 * d + 3 * d * i;
            let embeddings = v * d + RELATIVE_ROWS * d + 2 * d;
            let head = d * d + d + v;
            embeddings + l * layer + head
        }
        Kind::Llama => {
            let layer = 4 * d * d + 3 * d * i + 2 * d;
            let matrices = if config.tied { 1 } else { 2 };
            matrices * v * d + l * layer + d
        }
    }
}

/// Memory that no size of the model explains: 16 MB.
const PROGRAM: u64 = 16_000_000;

/// The memory of a training run in bytes: an estimate from formulas, not a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The weights, f32.
    pub parameters: u64,
    /// Their gradients, f32.
    pub gradients: u64,
    /// Both moments of the optimiser, f32.
    pub moments: u64,
    /// The moving average of the weights, f32; 0 without `optimizer.ema_decay`.
    pub average: u64,
    /// What one micro-batch keeps for its backward pass.
    pub activations: u64,
    /// The program, and the buffers of products and of the output layer.
    pub program: u64,
    /// The sum.
    pub total: u64,
}

/// Estimates the memory of a run whose micro-batches have at most `rows` rows.
///
/// Per row and layer, LTG-BERT keeps about 10 vectors of the hidden width (two norms, Q, K, V, the heads' output, its
/// projection and norm, the residual stream twice) and 4 of the feed-forward width (both halves, their product, its
/// norm); Llama 9 and 3. Embedding, head and the gradients in flight add 10. The attention keeps nothing of size rows x
/// rows, and the logits never exist as a whole. The text is mapped, not loaded, and the tokenizer's training comes
/// before. A test holds this to a quarter of what `antlm bench` measures.
pub fn memory(config: &Config, rows: u32) -> Memory {
    let weights = 4 * parameters(config);
    let (l, d, i) = (config.layers as u64, config.hidden as u64, config.intermediate as u64);
    let layer = match config.kind {
        Kind::LtgBert => 10 * d + 4 * i,
        Kind::Llama => 9 * d + 3 * i,
    };
    let activations = 4 * u64::from(rows) * (l * layer + 10 * d);
    Memory {
        parameters: weights,
        gradients: weights,
        moments: 2 * weights,
        average: 0,
        activations,
        program: PROGRAM,
        total: 4 * weights + activations + PROGRAM,
    }
}

/// As [`memory`], of a recipe's run.
pub fn memory_of(recipe: &Recipe) -> Memory {
    let mut memory = memory(&recipe.config(), recipe.micro_rows());
    if recipe.optimizer.ema_decay > 0.0 {
        memory.average = memory.parameters;
        memory.total += memory.average;
    }
    memory
}

/// Refuses a run that this machine's memory cannot hold, so that it ends here and not half-way with the system killing
/// it. Where the system does not say how much there is, nothing is refused.
///
/// # Errors
/// [`Error::Recipe`] with both sizes.
pub fn check_memory(recipe: &Recipe) -> Result<()> {
    let needed = memory_of(recipe).total;
    match machine_bytes() {
        Some(there) if needed > there => {
            let gb = |bytes: u64| bytes as f64 / 1e9;
            let what = format!(
                "training takes about {:.1} GB, and this machine has {:.1} GB: take a smaller model, or a smaller \
                 batch.micro_tokens if it is the activations",
                gb(needed),
                gb(there)
            );
            Err(Error::Recipe { origin: recipe.name.clone(), place: "model".into(), what })
        }
        _ => Ok(()),
    }
}

/// What a card's memory holds besides what the sizes explain: the context, the kernels, the library's workspace. A guess
/// until a card was measured.
const CONTEXT: u64 = 600_000_000;
/// Rows of a tile of the output layer, whose logits exist at one time.
const TILE: u64 = 512;

/// The bytes of a card that a recipe's run takes with micro-batches of at most `rows` rows: those of [`memory_of`] without
/// the program, a tile of logits, what attention keeps of relative positions for a while, and the card's own. Unless the
/// recipe says `precision = "f32"`, also bf16 copies: of all weights, and of the operands of each kind of product.
pub fn card_bytes(recipe: &Recipe, rows: u32) -> u64 {
    let (config, rows) = (recipe.config(), rows.min(recipe.step_rows()));
    let of_host = memory(&config, rows);
    let average = if recipe.optimizer.ema_decay > 0.0 { of_host.parameters } else { 0 };
    // Two tables [rows, heads, 64], and their gradients.
    let tables = match config.kind {
        Kind::LtgBert => 4 * 4 * 64 * u64::from(rows) * config.heads as u64,
        Kind::Llama => 0,
    };
    let logits = 4 * TILE.min(u64::from(rows)) * config.vocab_size as u64;
    let rounded = match recipe.precision {
        Precision::F32 => 0,
        Precision::Bf16 | Precision::Auto => {
            let (d, i) = (config.hidden as u64, config.intermediate as u64);
            of_host.parameters / 2 + 2 * u64::from(rows) * (5 * d + 3 * i) + logits / 2
        }
    };
    of_host.total - of_host.program + average + tables + logits + rounded + CONTEXT
}

/// The largest `batch.micro_tokens` with which a run fits into so many bytes of a card, if any does.
pub fn largest_rows(recipe: &Recipe, bytes: u64) -> Option<u32> {
    let (least, most) = (recipe.seq_len as u32 + 2, recipe.step_rows().max(recipe.seq_len as u32 + 2));
    // The bytes grow with the rows, so halving finds the border.
    let fits = |rows: u32| card_bytes(recipe, rows) <= bytes;
    let (mut low, mut high) = (least, most);
    if !fits(low) {
        return None;
    }
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    Some(low)
}

/// As [`check_memory`], for a run on this device; on a card also what the run takes, in words.
///
/// # Errors
/// [`Error::Recipe`] with both sizes and, where another `batch.micro_tokens` fits, that one.
pub fn check_memory_on(recipe: &Recipe, device: &Device) -> Result<Option<String>> {
    let Some((free, all)) = device.memory()? else { return check_memory(recipe).map(|()| None) };
    let needed = card_bytes(recipe, recipe.micro_rows());
    let [needed_gb, free_gb, all_gb] = [needed, free, all].map(|bytes| bytes as f64 / 1e9);
    let largest = largest_rows(recipe, free);
    if needed > free {
        let what = match largest {
            Some(rows) => format!("batch.micro_tokens={rows} fits (--set batch.micro_tokens={rows})"),
            None => "no batch.micro_tokens makes it fit: take a smaller model".into(),
        };
        let what = format!(
            "training takes about {needed_gb:.2} GB of {device}, which has {free_gb:.2} GB free of {all_gb:.2}; {what}"
        );
        return Err(Error::Recipe { origin: recipe.name.clone(), place: "batch.micro_tokens".into(), what });
    }
    let memory = memory_of(recipe);
    let gb = |bytes: u64| bytes as f64 / 1e9;
    Ok(Some(format!(
        "{device}: about {needed_gb:.2} GB of {free_gb:.2} GB free (weights, gradient, moments {:.2}, activations of {} \
         rows {:.2}); micro-batches of up to {} rows fit",
        gb(memory.parameters + memory.gradients + memory.moments + memory.average),
        recipe.micro_rows(),
        gb(memory.activations),
        largest.unwrap_or(recipe.micro_rows())
    )))
}

/// Memory and swap of this machine, from `/proc` where there is one.
fn machine_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kb = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    Some((kb("MemTotal:")? + kb("SwapTotal:").unwrap_or(0)) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sizes() {
        // Counted on the reference implementations.
        let ltg = |layers, hidden, heads, intermediate| {
            let (vocab_size, norm_eps) = (16_384, 1e-7);
            let (hidden_dropout, attention_dropout, tied) = (0.1, 0.1, true);
            parameters(&Config {
                kind: Kind::LtgBert,
                layers,
                hidden,
                heads,
                intermediate,
                vocab_size,
                norm_eps,
                hidden_dropout,
                attention_dropout,
                tied,
            })
        };
        assert_eq!(ltg(12, 768, 12, 2048), 98_229_760);
        assert_eq!(ltg(12, 384, 6, 1024), 27_741_952);
        assert_eq!(ltg(12, 192, 3, 512), 8_533_888);
        let llama = |layers, hidden, heads, intermediate, tied| {
            let (vocab_size, norm_eps) = (16_000, 1e-6);
            let (hidden_dropout, attention_dropout) = (0.0, 0.0);
            parameters(&Config {
                kind: Kind::Llama,
                layers,
                hidden,
                heads,
                intermediate,
                vocab_size,
                norm_eps,
                hidden_dropout,
                attention_dropout,
                tied,
            })
        };
        assert_eq!(llama(16, 512, 8, 1024, false), 58_343_936);
        assert_eq!(llama(8, 256, 8, 1024, false), 16_584_960);
        assert_eq!(llama(24, 1024, 8, 3072, false), 359_973_888);
        assert_eq!(llama(10, 768, 12, 2048, false), 95_371_008);
        assert_eq!(llama(12, 768, 12, 2048, true), 97_241_856);
        assert_eq!(llama(12, 768, 12, 2048, false), 109_529_856);
    }

    #[test]
    fn memory_adds_up() {
        let config = crate::recipe::builtin("babyllama-58m").unwrap().model;
        let memory = memory(&config, 1024);
        assert_eq!(memory.parameters, 4 * 58_343_936);
        assert_eq!(memory.total, 4 * memory.parameters + memory.activations + memory.program);
        assert!(super::memory(&config, 2048).activations == 2 * memory.activations);
        let recipe = |ema: &str| Recipe::load("babyllama-58m", &[format!("optimizer.ema_decay={ema}")]).unwrap();
        let [without, with] = ["0.0", "0.999"].map(|ema| memory_of(&recipe(ema)));
        assert_eq!((without.average, with.average), (0, memory.parameters));
        assert_eq!(with.total, without.total + memory.parameters);
    }
}
