//! Closed formulas for the size of a model: parameters, and the memory a training run needs.

use super::Recipe;
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
