//! The command line: names, options and help of every command.

use std::path::PathBuf;

use antlm::objective::Backend;
use antlm::text::clean::Cleaning;
use antlm_nn::device::{Choice, Device};
use clap::{Args, Parser, Subcommand, ValueEnum};

mod eval;
mod finetune;
mod read;
mod train;

pub use eval::{CheckpointsArg, Compare, Eval, Format, SetArg, Submit, Sweep};
pub use finetune::{Finetune, PresetArg, ReadArg, SelectArg, TakeArg};
pub use read::{Fill, Generate, Tokenize};
pub use train::Train;

/// Pretrain small language models that read both ways (AntLM): causal and masked language modelling by turns.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
To begin with, in two to three minutes and without any text of your own:
  antlm demo

A model of your own text:
  antlm init --text my-texts/
  antlm train recipe.toml --out runs/first
  antlm info runs/first
  echo 'The dogs sleep.' | antlm score runs/first
  antlm generate runs/first --prompt 'The dogs'

Exit codes: 0 done; 2 wrong usage or input; 130 / 143 / 142 stopped by Ctrl-C / SIGTERM / --stop-after: what is done is
kept, and the same command (train: --resume) goes on; 1 anything else."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Demo(Demo),
    Recipes(Recipes),
    Init(Init),
    Plan(Plan),
    Prepare(Prepare),
    Train(Train),
    Info(Info),
    Diff(Diff),
    Score(Score),
    Eval(Eval),
    Compare(Compare),
    Submit(Submit),
    Sweep(Sweep),
    Generate(Generate),
    Fill(Fill),
    Finetune(Finetune),
    Tokenize(Tokenize),
    Export(Export),
    Import(Import),
    Push(Push),
    Bench(Bench),
    SampleText(SampleText),
    SamplePairs(SamplePairs),
    Completions(Completions),
}

/// See what AntLM is: text, four tiny models and what each has learnt, in two to three minutes on two cores
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm demo
  antlm demo --seed 2 --out runs/demo-2
Four models of one size learn from 60,000 words of a small made-up English for 12 epochs each: causal only (clm), masked
only (mlm), AntLM as published (antlm), AntLM with masked next-token prediction (antlm-mntp). Then each is asked, with
every backend it was trained for, which of two sentences is the right one: 100 minimal pairs of each of seven phenomena.
No sentence of the pairs or of the dev text occurs in the training text.

--json prints one line at the end:
  {\"models\":[{\"name\":…,\"schedule\":…,\"pairs\":{\"causal\":{\"mean\":…,PHENOMENON:…},\"mlm\":{…}},
    \"dev_loss\":{\"causal\":…,\"mlm\":…}}…],\"seconds\":…}
pairs in per cent, losses in nats per token. `antlm recipes` has the four recipes (demo-…).")]
pub struct Demo {
    /// The folder for the text and the four runs; one that holds the same demonstration is gone on with
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    pub out: PathBuf,
    /// Seed of text, pairs and models
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Threads to use (default: all); the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Print the table only, no progress
    #[arg(long)]
    pub quiet: bool,
    /// Print one JSON object, as the last line
    #[arg(long)]
    pub json: bool,
}

/// List the built-in recipes
#[derive(Args)]
#[command(after_help = "\
A recipe is a TOML file: model sizes, schedule, optimiser, masking. RECIPE in other commands is one of these names or
a path. Names end in their size: tiny (a laptop, minutes), small (a laptop, hours), base and 58m (the paper's).
  antlm-…        both objectives by turns, as published (a masked token is predicted at its own position)
  antlm-mntp-…   the same with masked next-token prediction, which forgets less at a switch
  antlm-2026-…, antlm-mntp-2026-…  both within the ten passes that BabyLM 2025 and 2026 allow
  ltg-bert-…, babyllama-…          the base model's own objective alone
  ltg-bert-clm-…, babyllama-mlm-…  the other objective alone

`antlm recipes --schema > recipe.schema.json` is for editors: begin a recipe with `#:schema ./recipe.schema.json`.
docs/recipe-reference.md explains every key.")]
pub struct Recipes {
    /// Print a JSON schema of recipe files, for editors that check TOML
    #[arg(long, conflicts_with = "json")]
    pub schema: bool,
    /// Print one JSON list
    #[arg(long)]
    pub json: bool,
}

/// Write a commented recipe for your own text
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm init --text my-texts/                        looks at the text and writes recipe.toml
  antlm init --text my-texts/ --out -                shows it
  antlm plan recipe.toml                             what it would do
  antlm train recipe.toml --out runs/mine
Size, vocabulary, epochs and steps follow from the number of words; the comments say why.")]
pub struct Init {
    /// Files and folders of text (.txt, .train, .jsonl); without them the recipe is for some 300,000 words
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub text: Vec<PathBuf>,
    /// The recipe to write, which must be new; `-` for standard output
    #[arg(long, value_name = "FILE", default_value = "recipe.toml")]
    pub out: PathBuf,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
}

/// Say what a recipe would do: blocks, steps, words, learning rates, memory
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm plan antlm-ltg-bert-base                     for the BabyLM strict-small corpus
  antlm plan antlm-ltg-bert-tiny --text my-texts/    for your own text, or a folder that `antlm prepare` made
  antlm plan babyllama-58m --set schedule='8 clm'")]
pub struct Plan {
    /// A built-in recipe's name (see `antlm recipes`) or the path of a TOML file
    #[arg(value_name = "RECIPE")]
    pub recipe: String,
    /// Files and folders of text in place of the recipe's own, or a prepared folder; without any text the plan is for
    /// 10 M words
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub text: Vec<PathBuf>,
    /// Text for the dev loss, as in `antlm train` (default: 1 % of the documents, which are not trained on)
    #[arg(long, value_name = "PATH")]
    pub dev: Option<PathBuf>,
    /// How the text of --text is cleaned: none, babylm, or babylm:CORPUS (see `antlm prepare --help`)
    #[arg(long, value_name = "PROFILE", requires = "text")]
    pub cleaning: Option<Cleaning>,
    /// The BabyLM track whose limits of words the run has to keep to (docs/words-tokens-epochs.md); auto is that of
    /// checkpoints.milestones if those are BabyLM's, otherwise none
    #[arg(long, value_name = "TRACK", value_parser = ["auto", "none", "strict-small", "strict", "multilingual"])]
    pub track: Option<String>,
    /// Change a key of the recipe; can be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the plan only, no progress
    #[arg(long)]
    pub quiet: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Turn text into a tokenizer and token files (train does this by itself)
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm prepare antlm-ltg-bert-small --text corpus/ --out prepared/
  antlm prepare antlm-ltg-bert-small --text corpus/ --cleaning babylm --diff        what cleaning would change
Text is .txt, .train or .jsonl, each also as .gz or .zst, or .parquet (if antlm was built with it). Folders are read in
sorted order; *.dev and *.test files in them are never trained on. What is prepared already for the same text and recipe
is re-used.

Text on the command line is one source with defaults, and takes the place of all [[data]] of the recipe. A recipe file
can say more of each source, with paths relative to the file's folder:
  [[data]]
  name = \"stories\"
  paths = [\"stories/\", \"more.jsonl.gz\"]
  field = \"text\"            the field of .jsonl and the column of .parquet files
  documents = \"blank-line\"  or \"file\", or \"title\" (a line = = = title = = = opens one)
  cleaning = \"babylm\"       \"none\"; \"babylm\": by file name (childes.train, …); \"babylm:childes\": all as CHILDES
  weight = 1.5              every document once in an epoch, half of them twice; each time counts as words seen
  language = \"eng\"          recorded; ISO 639, as in BCP 47
  words = \"whitespace\"      or \"bytes\", BabyLM's word equivalents for eng, nld and zho
Words are those of the text before cleaning; documents of which cleaning leaves nothing count none.")]
pub struct Prepare {
    /// A built-in recipe's name (see `antlm recipes`) or the path of a TOML file
    #[arg(value_name = "RECIPE")]
    pub recipe: String,
    /// Files and folders of text, in place of all those the recipe may name
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub text: Vec<PathBuf>,
    /// How the text of --text (and --dev) is cleaned: none, babylm, or babylm:CORPUS
    #[arg(long, value_name = "PROFILE", requires = "text")]
    pub cleaning: Option<Cleaning>,
    /// Where the token files go
    #[arg(long, value_name = "DIR", required_unless_present = "diff", conflicts_with = "diff")]
    pub out: Option<PathBuf>,
    /// Write nothing, and say what cleaning changes: lines, characters and examples for each source and rule
    #[arg(long)]
    pub diff: bool,
    /// Text for the dev loss (default: 1 % of the documents, chosen by their content)
    #[arg(long, value_name = "PATH")]
    pub dev: Option<PathBuf>,
    /// Change a key of the recipe; can be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Threads to use (default: all); the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    pub json: bool,
}

/// Say what a run has done so far
#[derive(Args)]
#[command(after_help = "\
Example:
  antlm info runs/first
The dev loss is in nats per predicted token, for every way of reading; a mark says where it is worse than guessing by
token frequency. A run that is still going on can be looked at, too.")]
pub struct Info {
    /// The run's folder
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Say where two runs differ: recipes, texts, losses
#[derive(Args)]
#[command(after_help = "\
Example:
  antlm diff runs/first runs/second
Keys of the recipes with different values; whether text and tokenizer are the same, by their hashes; the last and the
lowest dev loss of every way of reading, and the last training losses; and for how many steps both are the same run,
bit by bit. `second - first` below 0: the second is better.")]
pub struct Diff {
    /// A run's folder
    #[arg(value_name = "RUN")]
    pub first: PathBuf,
    /// Another
    #[arg(value_name = "RUN")]
    pub second: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Print a script with which a shell completes commands and options
#[derive(Args)]
#[command(after_help = "\
Examples (then open a new shell):
  antlm completions bash > ~/.local/share/bash-completion/completions/antlm
  antlm completions zsh > ~/.zfunc/_antlm             with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  antlm completions fish > ~/.config/fish/completions/antlm.fish
  antlm completions powershell >> $PROFILE")]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Log-probabilities of sentences read from standard input, one a line
#[derive(Args)]
#[command(after_help = "\
Examples:
  echo 'The dogs sleep.' | antlm score runs/first
  antlm score runs/first --backend mlm --json < sentences.txt

Without --json: the sentence's log-probability in nats, a tab, the sentence. With --json: a line per sentence,
  {\"text\":…,\"ids\":[…],\"logprobs\":[…],\"total\":…}
with the framing tokens in `ids` and null where a token is not scored. Empty lines are no sentences and get no line.")]
pub struct Score {
    /// The run's folder, or one of its checkpoints
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// How to read the model (default: what it was taught last)
    #[arg(long, value_enum)]
    pub backend: Option<BackendArg>,
    /// Read the moving average of the weights (of a run trained with `--set optimizer.ema_decay=0.999`)
    #[arg(long)]
    pub ema: bool,
    #[command(flatten)]
    pub device: DeviceArg,
    /// Leave out the note on a way of reading that was not trained
    #[arg(long)]
    pub quiet: bool,
    /// Print JSON lines with token ids and the log-probability of each token
    #[arg(long)]
    pub json: bool,
}

/// Write a checkpoint as a folder for the Hugging Face Hub, which transformers loads
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm export runs/first --out antlm-first
  antlm export runs/first --checkpoint step-500 --ema --license mit --out antlm-first-500
  antlm export runs/first --milestones --out antlm-first-milestones
Then, in Python (transformers 4.51 to 5.x):
  AutoModelForCausalLM.from_pretrained('antlm-first', trust_remote_code=True)     from the left
  AutoModelForMaskedLM.from_pretrained('antlm-first', trust_remote_code=True)     from both sides
The folder holds config.json, model.safetensors, generation_config.json, the tokenizer, remote code of our own, the recipe
and a model card; it is complete or absent. A Llama needs the remote code only to be read from both sides. A folder on
disk has no revisions (transformers ignores them there), so every milestone gets a folder of its own. docs/export.md
says more.")]
pub struct Export {
    /// The run's folder, or one of its checkpoints
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Another checkpoint than the newest: step-N, a milestone's name, or its folder
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "milestones")]
    pub checkpoint: Option<String>,
    /// All of RUN/milestones/, each into DIR/NAME
    #[arg(long)]
    pub milestones: bool,
    /// The moving average of the weights (of a run trained with `--set optimizer.ema_decay=0.999`)
    #[arg(long)]
    pub ema: bool,
    /// The licence that the card names, as the Hub spells it (mit, apache-2.0, cc-by-4.0, …)
    #[arg(long, value_name = "NAME")]
    pub license: Option<String>,
    /// The new folder; its name is the model's, without a dot
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    pub json: bool,
}

/// Turn a folder of the Hugging Face Hub into one that score, eval, finetune, generate, export and train --init read
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm import antlm-first --out runs/imported
  echo 'The dogs sleep.' | antlm score runs/imported
  antlm train runs/imported/recipe.toml --init runs/imported --text more.txt --out runs/further
DIR is what `antlm export` wrote, or config.json, tokenizer.json and model.safetensors of a Llama or an LTG-BERT: with
byte-level BPE and this program's five special tokens, names and shapes as transformers and the LTG-BERTs of BabyLM have
them, in f32, f16 or bf16 (which becomes f32). What is missing, surplus or of another shape is listed; what is passed over
or done in another way here is noted. Python code in it is not run. docs/export.md says more.")]
pub struct Import {
    /// The folder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The new folder
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Upload an exported folder to the Hugging Face Hub
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm push antlm-first --repo me/antlm-first --dry-run
  antlm push antlm-first --repo me/antlm-first                  one export, to the branch main
  antlm push antlm-first-milestones --repo me/antlm-first       each milestone to a branch of its name
The repository is made if it is not there. Files of the same names are replaced, others stay. Folders in an export and
hidden files are not uploaded; each is named. The token is read from HF_TOKEN, the file HF_TOKEN_PATH, or `token` in
HF_HOME (~/.cache/huggingface), where `hf auth login` puts it; it is never printed. Uploading needs a build with
`--features hub`; --dry-run does not.")]
pub struct Push {
    /// What `antlm export` wrote
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The repository, without a dot in its name
    #[arg(long, value_name = "OWNER/NAME")]
    pub repo: String,
    /// A repository that is made for it is private
    #[arg(long)]
    pub private: bool,
    /// Only list what would be uploaded
    #[arg(long)]
    pub dry_run: bool,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Time one optimiser step of a recipe's model
#[derive(Args)]
#[command(after_help = "\
Example:
  antlm bench ltg-bert-small --objective mlm --json
One full step: forward, backward, clipping at 2.0, AdamW; dropout 0.1 for LTG-BERT and none for Llama. Two steps
warm up and are not counted.")]
pub struct Bench {
    /// A built-in recipe's name (see `antlm recipes`) or the path of a TOML file
    #[arg(value_name = "RECIPE")]
    pub recipe: String,
    /// What the step teaches
    #[arg(long, value_enum)]
    pub objective: BenchObjective,
    /// Sequences in a step
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: u32,
    /// Tokens in a sequence
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=65536))]
    pub seq: u32,
    /// Steps that are timed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Number format of the products' operands
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
    #[command(flatten)]
    pub device: DeviceArg,
    /// Threads to use (default: all)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Write English-like text of a small built-in grammar, to try things out
#[derive(Args)]
#[command(after_help = "\
Example:
  antlm sample-text --words 20000 --seed 1 --out sample.txt
The same words for the same seed, everywhere. Documents are separated by blank lines.")]
pub struct SampleText {
    /// How many words to write, at least; the last document is whole
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    pub words: u64,
    /// Seed of the random numbers
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// The file to write; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Write minimal pairs of the same grammar: one sentence that is right beside one that is wrong
#[derive(Args)]
#[command(after_help = "\
Example:
  antlm sample-pairs --per-phenomenon 100 --seed 1 --out pairs/
One file a phenomenon, with BLiMP's keys: pairs/agreement_attractor.jsonl and so on. The two sentences have the same
number of words and differ in one; over all pairs of a file each word of the difference is as often right as wrong, which
is why N is made even. No sentence of a pair occurs in any text that `antlm sample-text` writes.")]
pub struct SamplePairs {
    /// Pairs of each phenomenon
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub per_phenomenon: u32,
    /// Seed of the random numbers
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// The folder to write to; files in it are not replaced
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Which machine computes.
#[derive(Args, Clone, Copy, Default)]
pub struct DeviceArg {
    /// What computes: auto (an NVIDIA card if there is one, else the CPU), cpu, cuda or cuda:N; see docs/gpu.md
    #[arg(long = "device", value_name = "DEVICE", default_value = "auto", value_parser = device)]
    pub choice: Choice,
}

impl DeviceArg {
    /// Opens it; says why `auto` found no card, unless that is not wanted.
    pub fn open(self, quiet: bool) -> antlm::Result<Device> {
        let (device, word) = self.choice.open().map_err(|error| antlm::Error::Usage(error.to_string()))?;
        if let Some(word) = word.filter(|_| !quiet) {
            eprintln!("antlm: note: {word}");
        }
        Ok(device)
    }
}

fn device(text: &str) -> Result<Choice, String> {
    text.parse().map_err(|error: antlm_nn::Error| error.to_string())
}

/// [`Backend`], for clap.
#[derive(Clone, Copy, ValueEnum)]
pub enum BackendArg {
    /// Left context only: sum of log p(token | what is left of it)
    Causal,
    /// Both sides: each token masked in turn and read at the mask
    Mlm,
    /// Both sides: each token masked in turn and read one position to the left
    Mntp,
}

impl From<Backend> for BackendArg {
    fn from(backend: Backend) -> BackendArg {
        match backend {
            Backend::Causal => BackendArg::Causal,
            Backend::Mlm => BackendArg::Mlm,
            Backend::Mntp => BackendArg::Mntp,
        }
    }
}

impl From<BackendArg> for Backend {
    fn from(backend: BackendArg) -> Backend {
        match backend {
            BackendArg::Causal => Backend::Causal,
            BackendArg::Mlm => Backend::Mlm,
            BackendArg::Mntp => Backend::Mntp,
        }
    }
}

/// What `antlm bench` measures.
#[derive(Clone, Copy, ValueEnum)]
pub enum BenchObjective {
    /// Causal language modelling
    Clm,
    /// Masked language modelling
    Mlm,
}

/// Number formats of the products' operands.
#[derive(Clone, Copy, ValueEnum)]
pub enum Precision {
    /// 32-bit floating point
    F32,
    /// bf16, its upper half
    Bf16,
    /// The faster of them on this device
    Auto,
}
