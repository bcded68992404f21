//! What values a recipe may have. An answer is (key, what is wrong), for the caller to add the recipe's name.

use super::{Recipe, VERSION, Warmup, size};
use crate::model::{Config, Kind};

type Check = std::result::Result<(), (&'static str, String)>;

/// Larger models are refused: this is a program for small ones, and a typing error should not fill the memory.
const MAX_PARAMETERS: u64 = 2_000_000_000;
/// Longest segment of LTG-BERT: its relative positions saturate there.
const MAX_LTG_BERT_LEN: usize = 512;
/// Longest segment of Llama.
const MAX_LLAMA_LEN: usize = 8192;
/// The five special tokens and the 256 bytes of a byte-level tokenizer.
const MIN_VOCAB: usize = 261;
/// Tokens are stored in 16 bits.
const MAX_VOCAB: usize = 65_536;

fn need(good: bool, key: &'static str, what: impl Into<String>) -> Check {
    if good { Ok(()) } else { Err((key, what.into())) }
}

fn share(value: f64, key: &'static str) -> Check {
    need((0.0..=1.0).contains(&value), key, format!("expected a share from 0 to 1, got {value}"))
}

fn within<T: PartialOrd + std::fmt::Display>(value: T, least: T, most: T, key: &'static str) -> Check {
    need(least <= value && value <= most, key, format!("expected {least} to {most}, got {value}"))
}

/// Checks everything that the types leave open.
pub(super) fn check(recipe: &Recipe) -> Check {
    need(recipe.version == VERSION, "version", format!("expected {VERSION}, got {}", recipe.version))?;
    need(!recipe.name.trim().is_empty(), "name", "empty")?;
    // TOML's whole numbers have a sign.
    need(i64::try_from(recipe.seed).is_ok(), "seed", format!("expected 0 to {}, got {}", i64::MAX, recipe.seed))?;
    model(&recipe.model)?;
    let longest = match recipe.model.kind {
        Kind::LtgBert => MAX_LTG_BERT_LEN,
        Kind::Llama => MAX_LLAMA_LEN,
    };
    within(recipe.seq_len, 3, longest, "seq_len")?;

    let masking = &recipe.masking;
    share(masking.rate, "masking.rate")?;
    share(masking.mask, "masking.mask")?;
    share(masking.random, "masking.random")?;
    // 0.8 + 0.2 and the like may round up a little.
    let sum = masking.mask + masking.random;
    need(sum <= 1.0 + 1e-9, "masking.random", format!("mask + random is {sum}, more than 1"))?;

    within(recipe.batch.segments, 1, 1 << 20, "batch.segments")?;
    let rows = u64::from(recipe.batch.segments) * recipe.seq_len as u64;
    need(
        rows <= u64::from(u32::MAX),
        "batch.segments",
        format!("{rows} rows a step are too many: at most {}", u32::MAX),
    )?;
    within(recipe.batch.micro_tokens as usize, recipe.seq_len, 1 << 24, "batch.micro_tokens")?;

    let optimizer = &recipe.optimizer;
    let positive = |value: f64| value > 0.0 && value.is_finite();
    need(positive(optimizer.lr), "optimizer.lr", format!("expected a number above 0, got {}", optimizer.lr))?;
    need(
        optimizer.betas.iter().all(|beta| (0.0..1.0).contains(beta)),
        "optimizer.betas",
        format!("expected two numbers from 0 to below 1, got {:?}", optimizer.betas),
    )?;
    need(positive(optimizer.eps), "optimizer.eps", format!("expected a number above 0, got {}", optimizer.eps))?;
    need(
        optimizer.weight_decay >= 0.0 && optimizer.weight_decay.is_finite(),
        "optimizer.weight_decay",
        format!("expected 0 or more, got {}", optimizer.weight_decay),
    )?;
    need(
        optimizer.z_loss >= 0.0 && optimizer.z_loss <= 1.0,
        "optimizer.z_loss",
        format!("expected 0 (off) to 1, got {}; 0.0001 is usual", optimizer.z_loss),
    )?;
    need(
        (0.0..1.0).contains(&optimizer.ema_decay),
        "optimizer.ema_decay",
        format!("expected 0 (off) to below 1, got {}; 0.999 is usual", optimizer.ema_decay),
    )?;
    need(optimizer.clip > 0.0, "optimizer.clip", format!("expected a number above 0, or inf, got {}", optimizer.clip))?;

    if let Warmup::Fraction(fraction) = recipe.learning_rate.warmup {
        share(fraction, "learning_rate.warmup")?;
    }
    share(recipe.learning_rate.floor, "learning_rate.floor")?;
    share(recipe.learning_rate.cooldown, "learning_rate.cooldown")?;

    need(
        recipe.checkpoints.keep_last >= 1,
        "checkpoints.keep_last",
        "expected 1 or more: a run needs one to go on from",
    )?;
    need(recipe.tokenizer.min_frequency >= 1, "tokenizer.min_frequency", "expected 1 or more, got 0")?;
    let z = recipe.health.spike_z;
    need(z > 0.0 && z.is_finite(), "health.spike_z", format!("expected a number above 0, got {z}; 6 is usual"))?;
    within(recipe.health.window, 2, 1000, "health.window")?;
    if let Some(used) = &recipe.used {
        within(used.vocab_size, MIN_VOCAB, recipe.model.vocab_size, "used.vocab_size")?;
    }
    for source in &recipe.data {
        source.check()?;
    }
    need(!recipe.dev.field.is_empty(), "dev.field", "empty")?;
    Ok(())
}

fn model(config: &Config) -> Check {
    within(config.layers, 1, 1000, "model.layers")?;
    within(config.hidden, 1, 65_536, "model.hidden")?;
    within(config.heads, 1, config.hidden, "model.heads")?;
    within(config.intermediate, 1, 1 << 20, "model.intermediate")?;
    within(config.vocab_size, MIN_VOCAB, MAX_VOCAB, "model.vocab_size")?;
    let (hidden, heads) = (config.hidden, config.heads);
    need(hidden % heads == 0, "model.heads", format!("{heads} heads do not divide a width of {hidden}"))?;
    let eps = config.norm_eps;
    need(eps > 0.0 && eps < 1.0, "model.norm_eps", format!("expected a number between 0 and 1, got {eps}"))?;
    let dropouts =
        [("model.hidden_dropout", config.hidden_dropout), ("model.attention_dropout", config.attention_dropout)];
    for (key, dropout) in dropouts {
        need((0.0..1.0).contains(&dropout), key, format!("expected 0 to below 1, got {dropout}"))?;
        need(config.kind != Kind::Llama || dropout == 0.0, key, "Llama has no dropout")?;
    }
    match config.kind {
        Kind::Llama => need(
            hidden / heads % 2 == 0,
            "model.heads",
            format!("a head of Llama is turned in pairs: its width must be even, not {}", hidden / heads),
        )?,
        Kind::LtgBert => need(config.tied, "model.tied", "LTG-BERT's embeddings are always tied: write `tied = true`")?,
    }
    // With the bounds above this stays far below 2^64.
    let parameters = size::parameters(config);
    need(
        parameters <= MAX_PARAMETERS,
        "model",
        format!("{parameters} parameters are too many: at most {MAX_PARAMETERS}"),
    )
}
