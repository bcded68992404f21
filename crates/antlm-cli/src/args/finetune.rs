//! Options and help of `antlm finetune`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Fine-tune a trained model on GLUE and SuperGLUE tasks as BabyLM does, and score it
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm finetune runs/first --task rte,mrpc --data glue/
  antlm finetune runs/first --task all --data evaluation_data/full_eval/glue_filtered --preset 2024 --seed 12 13 14
  antlm finetune runs/first --task wsc --data glue/ --select holdout --set wsc.epochs=20 --set lr=5e-5
  antlm finetune runs/first/checkpoints/step-000000500 --task rte --data glue/ --limit 100

Tasks: boolq, cola, mnli, mnli-mm, mrpc, multirc, qnli, qqp, rte, sst2, wsc. `all` is the preset's list:
  2024  all eleven (mnli-mm is scored with mnli's model); score: accuracy, but F1 for mrpc and qqp, MCC for cola
  2026  boolq, multirc, rte, wsc, mrpc, qqp, mnli (2025's, too); score: accuracy; F1 is printed beside it
Files: TASK.train.jsonl and TASK.valid.jsonl (or TASK.valid_*.jsonl, together), in DIR or in the official tree below it.
A task without its files is reported, with `all`; asked for by name, it is an error after the others are done.
Settings (KEY=VALUE for all tasks, TASK.KEY=VALUE for one):
  lr, epochs, batch, length, weight_decay, warmup, clip, patience, threshold; their values are printed
Both pipelines choose the best epoch by the rows that they score; --select holdout chooses by a tenth of the training rows.
Results: RUN/results/CHECKPOINT/finetune/TASK.PRESET.seed-N.json; what is there for the same weights, data and settings is
not computed again. Random numbers are antlm's own: for the same seed, another result of the same distribution than theirs.
docs/finetune.md says which token is read. --json prints one line at the end:
  {\"checkpoint\":…,\"preset\":…,\"reading\":…,\"tasks\":[{\"task\":…,\"metric\":…,\"mean\":…,\"sd\":…,\"seeds\":[{\"seed\":…,\"score\":…,
    \"metrics\":{…},\"n\":…,\"epoch\":…,\"cached\":…,\"path\":…}…]}…],\"missing\":[{\"task\":…,\"file\":…}…],\"mean\":…,\"mean_with_f1\":…}")]
pub struct Finetune {
    /// The run's folder, or one of its checkpoints
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Tasks, with commas between them, or `all`
    #[arg(long, value_name = "TASK,…", required = true, value_delimiter = ',')]
    pub task: Vec<String>,
    /// The folder with the tasks' files
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Whose settings, head and scores
    #[arg(long, value_enum, default_value_t = PresetArg::Y2026)]
    pub preset: PresetArg,
    /// Which rows choose the best epoch
    #[arg(long, value_enum, default_value_t = SelectArg::Official)]
    pub select: SelectArg,
    /// Seeds, a fine-tuning each (default: 12 with 2024, 42 with 2026)
    #[arg(long, value_name = "N", num_args = 1..)]
    pub seed: Vec<u64>,
    /// Change a setting, of all tasks or of one; can be given several times
    #[arg(long, value_name = "[TASK.]KEY=VALUE")]
    pub set: Vec<String>,
    /// How the model is read (default: both sides, if it was trained with masks)
    #[arg(long, value_enum)]
    pub read: Option<ReadArg>,
    /// Which token's vector the head gets (default: the first, but the final one of a model that is read from the left)
    #[arg(long, value_enum)]
    pub take: Option<TakeArg>,
    /// At most so many rows of every file, from its beginning: a trial, not a score to report
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Read the moving average of the weights (of a run trained with `--set optimizer.ema_decay=0.999`)
    #[arg(long)]
    pub ema: bool,
    /// Compute results that are there already once more
    #[arg(long)]
    pub again: bool,
    #[command(flatten)]
    pub device: super::DeviceArg,
    /// Threads to use (default: all); the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Print the table only
    #[arg(long)]
    pub quiet: bool,
    /// Print one JSON object, as the last line
    #[arg(long)]
    pub json: bool,
}

/// Presets, for clap.
#[derive(Clone, Copy, ValueEnum)]
pub enum PresetArg {
    /// AutoModelForSequenceClassification, Trainer's defaults, length 128, early stopping
    #[value(name = "2024")]
    Y2024,
    /// 2025 and 2026: AutoModel with the script's head, length 512, warm-up and cosine
    #[value(name = "2026", alias = "2025")]
    Y2026,
}

/// What chooses the epoch, for clap.
#[derive(Clone, Copy, ValueEnum)]
pub enum SelectArg {
    /// The validation rows, which are also scored
    Official,
    /// A tenth of the training rows, which is not learnt from
    Holdout,
}

/// How a model is read, for clap.
#[derive(Clone, Copy, ValueEnum)]
pub enum ReadArg {
    /// Every token sees the whole text
    Both,
    /// Every token sees what is left of it
    Causal,
}

/// Which token is read, for clap.
#[derive(Clone, Copy, ValueEnum)]
pub enum TakeArg {
    /// The opening mark
    First,
    /// The last token (2024), or the last but one (2026, as the official --take_final with padding on the left)
    Final,
}
