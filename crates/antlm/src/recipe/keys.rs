//! Every key of a recipe: what it may be, its default, what it means. The reference, the schema for editors and "did
//! you mean" are made of this table; a test holds it against the types that read recipes.

use serde_json::{Map, Value, json};
use std::fmt::Write;

/// What a key's value may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// Any text.
    Text,
    /// One of these words.
    One(&'static [&'static str]),
    /// Some of these words.
    Several(&'static [&'static str]),
    /// A whole number, at least this.
    Whole(u64),
    /// A whole number, or one with a point.
    Number,
    /// A number from 0 to 1.
    Share,
    /// So many numbers.
    Numbers(usize),
    /// Yes or no.
    Bool,
    /// A path.
    Path,
    /// Paths.
    Paths,
    /// Marks of words seen, see [`super::Milestones`].
    Marks,
}

/// One key of a recipe.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted, as `--set` takes it; keys of the tables `[[data]]` begin with `data.`.
    pub path: &'static str,
    /// What its value may be.
    pub values: Values,
    /// The default in TOML; `None` when the key must be given (by the recipe itself or by its `base`).
    pub default: Option<&'static str>,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(path: &'static str, values: Values, default: Option<&'static str>, meaning: &'static str) -> Key {
    Key { path, values, default, meaning }
}

use Values::{Bool, Marks, Number, Numbers, One, Path, Paths, Several, Share, Text, Whole};

/// Every key, in the order of the reference; the keys of one table stand together.
pub const KEYS: &[Key] = &[
    key("version", Whole(1), None, "Version of the recipe format: 1."),
    key("base", Text, Some(""), "A built-in recipe to start from; this file then gives only the keys that differ."),
    key("name", Text, None, "The recipe's name. A file without one has its file name."),
    key("description", Text, Some("\"\""), "What the recipe is for, in a line."),
    key(
        "schedule",
        Text,
        None,
        "Which objective is trained for how long, in which order: `4 clm + 16 mlm + 4 clm`, `3 x (1 mlm + 1 clm)`, \
         `10Mw mlm`, `2 mix(clm:1, mntp:7)`. Plain numbers are epochs.",
    ),
    key(
        "track",
        One(&["auto", "none", "strict-small", "strict", "multilingual"]),
        Some("\"auto\""),
        "The BabyLM track (2025, 2026) whose limits of words the run has to keep to, or it is refused. `auto`: the track \
         of `checkpoints.milestones` if those are BabyLM's, otherwise none.",
    ),
    key(
        "seq_len",
        Whole(3),
        None,
        "Tokens of a segment, opening and closing mark included; at most 512 for LTG-BERT, 8192 for Llama.",
    ),
    key("seed", Whole(0), Some("0"), "Seed of everything random: initial weights, order, masks, dropout."),
    key(
        "precision",
        One(&["f32", "bf16", "auto"]),
        Some("\"f32\""),
        "Operands of training's products; `auto` is bf16 where the device multiplies it faster (AMX, AVX512-BF16, a card), f32 elsewhere.",
    ),
    key("model.kind", One(&["ltg-bert", "llama"]), None, "The architecture."),
    key("model.layers", Whole(1), None, "Number of layers."),
    key("model.hidden", Whole(1), None, "Width of the residual stream."),
    key(
        "model.heads",
        Whole(1),
        None,
        "Number of attention heads; divides `model.hidden`, and for Llama leaves an even width.",
    ),
    key("model.intermediate", Whole(1), None, "Width of the feed-forward layer."),
    key(
        "model.vocab_size",
        Whole(261),
        None,
        "Number of tokens, the five special ones included; at most 65536. A small text gives fewer.",
    ),
    key("model.norm_eps", Number, None, "Added to the variance in norms (LTG-BERT 1e-7, Llama 1e-6)."),
    key(
        "model.hidden_dropout",
        Number,
        Some("0.0"),
        "Dropout on embeddings, feed-forward outputs and in the head, below 1. Llama has none.",
    ),
    key(
        "model.attention_dropout",
        Number,
        Some("0.0"),
        "Dropout on attention weights, attention outputs and relative positions, below 1. Llama has none.",
    ),
    key("model.tied", Bool, Some("false"), "Input and output embeddings are one matrix. LTG-BERT: always `true`."),
    key("tokenizer.min_frequency", Whole(1), Some("2"), "A pair of tokens is merged if it occurs at least so often."),
    key("masking.rule", One(&["token", "span"]), None, "Each token on its own (BERT), or runs of tokens (LTG-BERT)."),
    key("masking.rate", Share, Some("0.15"), "Share of the tokens that are to be guessed by `mlm` and `mntp`."),
    key("masking.mask", Share, Some("0.8"), "Of these, the share that becomes the mask token."),
    key(
        "masking.random",
        Share,
        Some("0.1"),
        "Of these, the share that becomes a random token; the rest keeps its own token.",
    ),
    key("batch.segments", Whole(1), None, "Segments of an optimiser step."),
    key(
        "batch.micro_tokens",
        Whole(1),
        None,
        "Tokens of a micro-batch, at most, and at least `seq_len`. It decides memory and speed, not the result (up to \
         rounding).",
    ),
    key("optimizer.kind", One(&["adamw", "lamb"]), None, "The optimiser."),
    key("optimizer.lr", Number, None, "The peak of the learning rate, above 0."),
    key("optimizer.betas", Numbers(2), None, "Decay of the two moments, from 0 to below 1."),
    key("optimizer.eps", Number, None, "Added to the root of the second moment, above 0."),
    key("optimizer.weight_decay", Number, None, "Decoupled weight decay, 0 or more; norms and biases have none."),
    key("optimizer.clip", Number, None, "Largest norm of the whole gradient; `inf` for no clipping."),
    key(
        "optimizer.z_loss",
        Number,
        Some("0.0"),
        "Coefficient of the squared log of the softmax's sum, added to the loss; 0 for none.",
    ),
    key("optimizer.ema_decay", Number, Some("0.0"), "Decay of a moving average of the weights, below 1; 0 for none."),
    key("learning_rate.curve", One(&["cosine", "linear", "constant"]), None, "Shape of the learning-rate curve."),
    key(
        "learning_rate.warmup",
        Number,
        None,
        "How long it rises: a whole number of steps (at most a tenth of the run), or with a point a share of all steps.",
    ),
    key("learning_rate.floor", Share, Some("0.0"), "Where the curve ends, as a share of the peak."),
    key("learning_rate.cooldown", Share, Some("0.0"), "Share of all steps at the end in which it falls to 0."),
    key("learning_rate.restart", One(&["never", "block"]), Some("\"never\""), "Whether every block has its own curve."),
    key(
        "dev.paths",
        Paths,
        Some("[]"),
        "Files or folders with dev text. Empty: 1 % of the documents are held out, chosen by their content.",
    ),
    key(
        "dev.field",
        Text,
        Some("\"text\""),
        "The field of the dev text's `.jsonl` files, the column of its `.parquet` files.",
    ),
    key(
        "dev.documents",
        One(&["blank-line", "file", "title"]),
        Some("\"blank-line\""),
        "What separates documents in the dev text's other files.",
    ),
    key("dev.cleaning", Text, Some("\"none\""), "How the dev text is cleaned, as `data.cleaning`."),
    key("dev.max_segments", Whole(0), Some("1000"), "At most so many segments are scored at a time; 0 for all."),
    key(
        "checkpoints.every",
        Whole(0),
        Some("500"),
        "Saves the run every so many steps; 0 for never. The end of every block is saved and kept in any case.",
    ),
    key(
        "checkpoints.keep_last",
        Whole(1),
        Some("2"),
        "So many of these stay, the newest; of 1, a damaged folder costs the run its steps since the end of a block.",
    ),
    key(
        "checkpoints.keep_every",
        Whole(0),
        Some("0"),
        "Saves the run every so many steps, too, and these stay for good; 0 for none.",
    ),
    key(
        "checkpoints.milestones",
        Marks,
        Some("\"none\""),
        "At which numbers of words seen the weights are kept in `milestones/`, after the first step at or past each mark; and \
         those before the first step. `\"babylm-strict-small\"` has 19 (`chck_1M` to `chck_100M`), `\"babylm-strict\"` 28. \
         Two marks in one step are refused.",
    ),
    key(
        "health.not_finite",
        One(&["stop", "skip"]),
        Some("\"stop\""),
        "What becomes of a step whose loss or gradient is no finite number: the run ends before the weights change, or they \
         are not changed by it; after ten in a row the run ends.",
    ),
    key(
        "health.spikes",
        One(&["off", "report", "skip"]),
        Some("\"report\""),
        "What becomes of a step whose loss leaps: nothing, a line in the log, or the weights are not changed by it; after ten \
         in a row the next one is taken.",
    ),
    key(
        "health.spike_z",
        Number,
        Some("6.0"),
        "A loss leaps that lies so many standard deviations above the mean of the recent ones.",
    ),
    key(
        "health.window",
        Whole(2),
        Some("100"),
        "So many losses are the recent ones: those of the same objective in the same block; at most 1,000.",
    ),
    key("data.name", Text, None, "What to call this part of the text in plans and reports."),
    key("data.paths", Paths, None, "Its files and folders."),
    key("data.field", Text, Some("\"text\""), "The field with the text in `.jsonl` files; each line is a document."),
    key(
        "data.documents",
        One(&["blank-line", "file", "title"]),
        Some("\"blank-line\""),
        "What separates documents in the other files: blank lines, the file's end, or lines `= = = title = = =`.",
    ),
    key(
        "data.cleaning",
        Text,
        Some("\"none\""),
        "How its text is cleaned: `none`, `babylm`, or `babylm:CORPUS` for the rules of one corpus (`antlm prepare --help`).",
    ),
    key(
        "data.weight",
        Number,
        Some("1.0"),
        "How often an epoch has its documents; 1.5 is once, and half of them twice.",
    ),
    key(
        "data.words",
        One(&["whitespace", "bytes"]),
        Some("\"whitespace\""),
        "What counts as a word: what stands between white space, or bytes as BabyLM's multilingual track counts them.",
    ),
    key("data.language", Text, Some(""), "Its language as a tag (`eng`, `zho-Hans`); recorded."),
    key("used.antlm", Text, None, "Version of antlm."),
    key("used.prepared", Path, None, "Folder of the prepared text."),
    key("used.text", Text, None, "Hash of the prepared text."),
    key("used.tokenizer", Text, None, "Hash of the tokenizer."),
    key("used.vocab_size", Whole(261), None, "The tokenizer's tokens."),
    key("used.init.checkpoint", Path, None, "The checkpoint that the run starts from."),
    key("used.init.weights", Text, None, "Hash of its weights."),
    key("used.init.words", Whole(0), Some(""), "Words that it had seen; none where nobody knows."),
    key("imported.from", Text, None, "The imported folder's name."),
    key("imported.model_type", Text, None, "Its `model_type`."),
    key("imported.weights", Text, None, "Hash of its weights."),
    key(
        "imported.recipe_known",
        Bool,
        None,
        "The recipe came with the model; otherwise only `[model]` is the model's own.",
    ),
    key(
        "imported.backends",
        Several(&["causal", "mlm", "mntp"]),
        Some(""),
        "How it is read, as its files say, by what was taught last at the end; none for what the schedule teaches.",
    ),
];

impl Values {
    /// In words, for the reference.
    pub fn words(self) -> String {
        match self {
            Text => "text".into(),
            One(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
            Several(words) => format!("list of {}", One(words).words()),
            Whole(0) => "whole number".into(),
            Whole(least) => format!("whole number from {least} on"),
            Number => "number".into(),
            Share => "number from 0 to 1".into(),
            Numbers(n) => format!("{n} numbers"),
            Bool => "`true` or `false`".into(),
            Path => "path".into(),
            Paths => "list of paths".into(),
            Marks => {
                "`\"none\"`, `\"babylm-strict-small\"`, `\"babylm-strict\"`, or an increasing list of words".into()
            }
        }
    }

    fn schema(self) -> Value {
        match self {
            Text | Path => json!({"type": "string"}),
            One(words) => json!({"enum": words}),
            Several(words) => json!({"type": "array", "items": {"enum": words}, "uniqueItems": true}),
            Whole(least) => json!({"type": "integer", "minimum": least}),
            Number => json!({"type": "number"}),
            Share => json!({"type": "number", "minimum": 0, "maximum": 1}),
            Numbers(n) => json!({"type": "array", "items": {"type": "number"}, "minItems": n, "maxItems": n}),
            Bool => json!({"type": "boolean"}),
            Paths => json!({"type": "array", "items": {"type": "string"}}),
            Marks => json!({"anyOf": [
                {"enum": ["none", "babylm-strict-small", "babylm-strict"]},
                {"type": "array", "items": {"type": "integer", "minimum": 1}},
            ]}),
        }
    }
}

/// The tables of a recipe, with what they hold; the top level first, without a name.
const TABLES: [(&str, &str); 14] = [
    ("", "Top level"),
    ("model", "The model's sizes."),
    ("tokenizer", "How the tokenizer is trained; its size is `model.vocab_size`."),
    ("masking", "How tokens are masked, for `mlm` and `mntp`."),
    ("batch", "How much text makes a step."),
    ("optimizer", "The optimiser."),
    ("learning_rate", "The learning-rate curve."),
    ("dev", "The text that is held out."),
    ("checkpoints", "When the run is saved."),
    ("health", "What becomes of steps that go wrong."),
    ("data", "Where the text is, one table for each part; `--text` replaces them all."),
    ("used", "Written into a run's own `recipe.toml`: what the run was made of. Not for recipes of your own."),
    ("used.init", "Written by `antlm train --init`: the model that the run starts from."),
    ("imported", "Written by `antlm import`: where the model comes from."),
];

fn keys_of(table: &str) -> impl Iterator<Item = (&'static str, &'static Key)> {
    KEYS.iter().filter_map(move |key| match key.path.rsplit_once('.') {
        Some((found, name)) => (found == table).then_some((name, key)),
        None => table.is_empty().then_some((key.path, key)),
    })
}

/// The reference of all keys, in Markdown.
///
/// ```
/// assert!(antlm::recipe::keys::reference().contains("| `model.layers` |"));
/// ```
pub fn reference() -> String {
    let mut text = "<!-- Made by `cargo xtask recipe-reference`; edit crates/antlm/src/recipe/keys.rs instead. -->\n\n\
        # Recipe reference\n\n\
        Every key of a recipe. `--set KEY=VALUE` changes one from the command line. A key without a default must be \
        given, by the\nrecipe itself or by the built-in recipe that its `base` names. `antlm recipes --schema` prints \
        the same as a JSON schema\nfor editors.\n"
        .to_owned();
    for (table, what) in TABLES {
        let heading = match table {
            "" => what.to_owned(),
            "data" => "`[[data]]`".into(),
            _ => format!("`[{table}]`"),
        };
        let what = if table.is_empty() { String::new() } else { format!("{what}\n\n") };
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## {heading}\n\n{what}| key | value | default | meaning |\n|---|---|---|---|\n");
        for (_, key) in keys_of(table) {
            let default = match key.default {
                None => "—".into(),
                Some("") => "none".into(),
                Some(default) => format!("`{default}`"),
            };
            let _ = writeln!(text, "| `{}` | {} | {default} | {} |", key.path, key.values.words(), key.meaning);
        }
    }
    text
}

/// A JSON schema of recipe files, for editors that check TOML. It knows types, names and plain bounds; what depends on
/// two keys at once is checked when the recipe is read.
pub fn schema() -> Value {
    let object = |table: &str| {
        let mut properties = Map::new();
        for (name, key) in keys_of(table) {
            let mut schema = key.values.schema();
            schema["description"] = key.meaning.into();
            // Every default in the table is also JSON.
            if let Some(default) = key.default.and_then(|default| serde_json::from_str::<Value>(default).ok()) {
                schema["default"] = default;
            }
            properties.insert(name.into(), schema);
        }
        json!({"type": "object", "additionalProperties": false, "properties": properties})
    };
    let mut all = object("");
    for (table, what) in &TABLES[1..] {
        let mut schema = object(table);
        if *table == "data" {
            schema["required"] = json!(["name", "paths"]);
            schema = json!({"type": "array", "items": schema});
        }
        schema["description"] = (*what).into();
        match table.split_once('.') {
            None => all["properties"][*table] = schema,
            Some((above, name)) => all["properties"][above]["properties"][name] = schema,
        }
    }
    all["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    all["title"] = "antlm recipe".into();
    all["required"] = json!(["version"]);
    all
}

#[cfg(test)]
mod tests;
