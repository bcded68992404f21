//! The options of the commands that judge trained models.

use std::path::PathBuf;

use antlm::eval::results::Set;
use antlm::eval::submit::Track;
use antlm::eval::zeroshot::Task;
use antlm::eval::zeroshot::protocol::Protocol;
use antlm::suggest::suggest;
use antlm::train::trained::Which;
use clap::{Args, ValueEnum};

use super::BackendArg;

/// Judge models without training them: BLiMP and its kin, EWoK, reading times, …
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm eval runs/first --data evaluation_data
  antlm eval runs/first --data pairs/ --backend causal,mlm
  antlm eval runs/a runs/b --data evaluation_data --tasks blimp,supplement --checkpoints blocks --json
  antlm eval runs/first --data evaluation_data --tasks blimp --items items.jsonl

DIR is the organisers' evaluation_data, or holds some of its folders: blimp_filtered, supplement_filtered, ewok_filtered,
entity_tracking, comps, wug_adj_nominalization, wug_past_tense, reading, cdi_childes; also blimp_nl, zhoblimp, multiblimp; or it is a
folder of .jsonl files with `sentence_good` and `sentence_bad`, as `antlm sample-pairs` writes them (task `pairs`). What is
missing is named, with where to get it; nothing is filled in.

A model is read by every backend it was trained for. Protocols give different numbers for the same model:
  2026     (BabyLM 2025, 2026) opening mark and text; the sum over the tokens
  2024     causal as lm-eval; masked: the mean over the tokens, behind the closing mark and two spaces
  lm-eval  opening mark, a space and the text; the sum
All texts of equal score count as right, as in the official scripts, and are counted as ties. A score is the mean of the
paradigms' per cent; of WUG 100 times Spearman's correlation; of reading the per cent of the unexplained variance that
surprisal explains (mean of eye tracking and self-paced reading). The age of acquisition (aoa) has of each checkpoint the
mean surprisal of its words in nats; of three checkpoints on (--checkpoints milestones), and with cdi_human.csv beside its
words, it has 100 times the correlation of when the model and when children learnt them.

Results are kept in RUN/results/ and used again as long as model, data and settings are the same (--again: not).
--json prints a line for each result: the file's content. --items writes a line for each item:
  {\"checkpoint\":…,\"task\":…,\"backend\":…,\"protocol\":…,\"id\":…,\"uid\":…,\"groups\":{…},\"logprobs\":[good,bad],
    \"winner\":0,\"tie\":false,\"candidates\":[{\"text\":…,\"logprob\":…,\"tokens\":[…],\"logprobs\":[…]},…]}
or, of reading times and aoa, {…,\"id\":…,\"before\":…,\"word\":…,\"surprisal\":…}; log-probabilities in nats.")]
pub struct Eval {
    /// Runs, or checkpoints of runs
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// Where the tasks' data is
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Which tasks (default: all whose data is there)
    #[arg(long, value_name = "TASK,…", value_delimiter = ',', value_parser = task)]
    pub tasks: Vec<Task>,
    /// How to read the models (default: every way they were trained for)
    #[arg(long, value_enum, value_delimiter = ',')]
    pub backend: Vec<BackendArg>,
    /// The official protocol: 2026, 2024 or lm-eval
    #[arg(long, value_name = "NAME", default_value_t = Protocol::Y2026, value_parser = protocol)]
    pub protocol: Protocol,
    /// The full sets, or the organisers' short ones for milestones
    #[arg(long, value_enum, default_value_t = SetArg::Full)]
    pub set: SetArg,
    /// Which checkpoints of each run
    #[arg(long, value_enum, default_value_t = CheckpointsArg::Last)]
    pub checkpoints: CheckpointsArg,
    /// At most so many items of each file: quick, and not to be compared with full results
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Write every item with its log-probabilities
    #[arg(long, value_name = "FILE")]
    pub items: Option<PathBuf>,
    /// Also print the scores of parts: fields, phenomena, paradigms, domains, measures
    #[arg(long)]
    pub parts: bool,
    /// Evaluate again what is in RUN/results/ already
    #[arg(long)]
    pub again: bool,
    /// Read the moving average of the weights (of a run trained with `--set optimizer.ema_decay=0.999`)
    #[arg(long)]
    pub ema: bool,
    #[command(flatten)]
    pub device: super::DeviceArg,
    /// Threads to use (default: all)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Print the results only, no progress and no notes
    #[arg(long)]
    pub quiet: bool,
    /// Print a JSON line for each result
    #[arg(long)]
    pub json: bool,
}

/// Full sets or short ones.
#[derive(Clone, Copy, ValueEnum)]
pub enum SetArg {
    /// All items (full_eval)
    Full,
    /// The short sets (fast_eval)
    Fast,
}

impl From<SetArg> for Set {
    fn from(set: SetArg) -> Set {
        match set {
            SetArg::Full => Set::Full,
            SetArg::Fast => Set::Fast,
        }
    }
}

/// Which checkpoints.
#[derive(Clone, Copy, ValueEnum)]
pub enum CheckpointsArg {
    /// The newest
    Last,
    /// The end of every block of the schedule
    Blocks,
    /// Those in RUN/milestones/
    Milestones,
    /// All
    All,
}

impl From<CheckpointsArg> for Which {
    fn from(which: CheckpointsArg) -> Which {
        match which {
            CheckpointsArg::Last => Which::Last,
            CheckpointsArg::Blocks => Which::Blocks,
            CheckpointsArg::Milestones => Which::Milestones,
            CheckpointsArg::All => Which::All,
        }
    }
}

fn task(name: &str) -> Result<Task, String> {
    let spelled = name.replace('_', "-");
    Task::ALL.into_iter().find(|task| task.name() == spelled).ok_or_else(|| {
        let names = Task::ALL.map(Task::name);
        match suggest(name, names) {
            Some(near) => format!("no such task; did you mean {near}?"),
            None => format!("no such task; there are {}", names.join(", ")),
        }
    })
}

fn protocol(name: &str) -> Result<Protocol, String> {
    name.parse().map_err(|error: antlm::Error| error.to_string())
}

/// A table of runs: BLiMP, Supplement, EWoK, GLUE and their mean, from what was evaluated before
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm compare runs/antlm runs/baseline
  antlm compare runs/a-1 runs/a-2 runs/a-3 runs/b-1 runs/b-2 runs/b-3 --preset 2024 --format latex
  antlm compare runs/a runs/b --tasks all --against runs/b --format json

It only reads what `antlm eval` and `antlm finetune` left in RUN/results/. Nothing is filled in: glue (the mean of the
preset's fine-tuning tasks) and macro-average (the mean of blimp, supplement, ewok and glue) are there when all of their
tasks are, otherwise there is a gap, and a note says what is missing. Scores of different data are refused.

A row is a run, read one way. Runs of one recipe that differ only in the seed are one row: mean and standard deviation.
Differences are against the first run (or --against), from its row of the same backend if it has one, with 95 % intervals
by bootstrap: 2,000 times items are drawn anew within every paradigm, for all models the same ones, and seeds within
every row that has several.

--format csv has a line for each row and task, --format json everything, both with all digits.")]
pub struct Compare {
    /// Runs, or checkpoints of runs
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// Only rows that are read so (default: all that were evaluated)
    #[arg(long, value_enum, value_delimiter = ',')]
    pub backend: Vec<BackendArg>,
    /// The protocol of zero-shot tasks: 2026, 2024 or lm-eval
    #[arg(long, value_name = "NAME", default_value_t = Protocol::Y2026, value_parser = protocol)]
    pub protocol: Protocol,
    /// The preset of fine-tunings
    #[arg(long, value_name = "YEAR", default_value = "2026", value_parser = ["2024", "2026"])]
    pub preset: String,
    /// The checkpoint, by its name in RUN/results/ (default: each run's last)
    #[arg(long, value_name = "NAME")]
    pub checkpoint: Option<String>,
    /// Columns: tasks, glue, macro-average, or all that was evaluated (default: the paper's table)
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// The run that differences are taken against (default: the first)
    #[arg(long, value_name = "RUN")]
    pub against: Option<PathBuf>,
    /// Also results of short sets or with a limit, marked
    #[arg(long)]
    pub limited: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// Formats of a table.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For the terminal
    Text,
    /// For a README
    Markdown,
    /// For a paper, with booktabs
    Latex,
    /// A line for each row and task
    Csv,
    /// One object
    Json,
}

/// Write the files of a submission to BabyLM 2025 or 2026, from what was evaluated before
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm submit runs/first --track strict-small --backend mlm --data evaluation_data
  antlm submit runs/first --track strict-small --backend mlm --name antlm-small --data evaluation_data --out results
It writes RESULTS/NAME/REVISION/… as the organisers' scripts do, and the collated file
RESULTS/NAME/all_full_preds_and_fast_scores_BACKEND.json. Before that it checks every size, and that everything is there:
  the full sets on the last checkpoint       antlm eval RUN --data DIR --backend BACKEND
  the short sets on every milestone          antlm eval RUN --data DIR --backend BACKEND --set fast --checkpoints milestones
  seven fine-tuned tasks                     antlm finetune RUN --task all --data DIR --preset 2026
  surprisals for the age of acquisition      antlm eval RUN --data DIR --tasks aoa --backend BACKEND --checkpoints milestones
What is missing is listed with the command that makes it, and nothing is written; with --partial the tree is written
without the collated file. --data must be what was evaluated on.

--json prints {\"problems\":[{\"what\":…,\"to_do\":…},…],\"written\":[…],\"collated\":PATH or null}.")]
pub struct Submit {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// The track, which decides the milestones
    #[arg(long, value_enum)]
    pub track: TrackArg,
    /// How the model is read: a submission has one way
    #[arg(long, value_enum)]
    pub backend: BackendArg,
    /// What the model is called, without a dot (default: the run's folder)
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where the tasks' data is
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// The folder of results
    #[arg(long, value_name = "RESULTS", default_value = "results")]
    pub out: PathBuf,
    /// The year's rules; those of 2025 and 2026 are the same
    #[arg(long, value_name = "YEAR", default_value = "2026", value_parser = ["2025", "2026"])]
    pub preset: String,
    /// Write what is there, without the collated file
    #[arg(long)]
    pub partial: bool,
    /// Print no progress
    #[arg(long)]
    pub quiet: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A track of the challenge.
#[derive(Clone, Copy, ValueEnum)]
pub enum TrackArg {
    /// 10 M words, 19 milestones
    StrictSmall,
    /// 100 M words, 28 milestones
    Strict,
}

impl From<TrackArg> for Track {
    fn from(track: TrackArg) -> Track {
        match track {
            TrackArg::StrictSmall => Track::StrictSmall,
            TrackArg::Strict => Track::Strict,
        }
    }
}

/// Train, evaluate and compare every schedule with every seed of a recipe
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm sweep sweep.toml
  antlm sweep sweep.toml --list
  antlm sweep sweep.toml --job 3                    one job, as for a queue's array

SWEEP.toml (paths are relative to its folder):
  version = 1
  base = \"babyllama-tiny\"                          a built-in recipe or a recipe's file
  schedules = [\"6 clm\", \"1 clm + 4 mlm + 1 clm\"]
  seeds = [1, 2, 3]
  text = [\"corpus/\"]                               unless the recipe names its text; dev = \"PATH\"
  out = \"runs/sweep\"                               a folder for each run in it
  set = [\"optimizer.lr=0.001\"]                     keys of the recipe for all runs
  [variants]                                       all of it once more for each of these
  short = [\"seq_len=64\"]
  [eval]                                           data, tasks, backends, protocol: as `antlm eval`
  data = \"evaluation_data\"
  [finetune]                                       data, preset, tasks, seeds: as `antlm finetune`
  data = \"glue\"
  preset = \"2026\"

What is done is not done again: runs that are finished, results that are there. A run that was stopped goes on. Ctrl-C saves
and stops; the same command goes on. At the end stands the table of `antlm compare`.

--list --json prints a line for each job: {\"number\":…,\"run\":…,\"variant\":…,\"schedule\":…,\"seed\":…,\"set\":[…],
  \"state\":\"new\"|\"stopped\"|\"trained\"|\"done\"}; --json alone prints the comparison.")]
pub struct Sweep {
    /// The sweep's file
    #[arg(value_name = "SWEEP.toml")]
    pub sweep: PathBuf,
    /// Only list the jobs with their states
    #[arg(long, conflicts_with = "job")]
    pub list: bool,
    /// Only this job, by its number; no table at the end
    #[arg(long, value_name = "N")]
    pub job: Option<usize>,
    /// How to print the table
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Threads to use (default: all); the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Print no progress
    #[arg(long)]
    pub quiet: bool,
    /// The list or the table as JSON
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}
