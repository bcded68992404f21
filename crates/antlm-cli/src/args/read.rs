//! The options of the commands that let one see what a model has learnt: `generate`, `fill`, `tokenize`.

use std::path::PathBuf;

use antlm::objective::Backend;
use clap::{Args, ValueEnum};

/// Write text with a model, from left to right
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm generate runs/first --prompt 'The dogs'
  antlm generate runs/first --prompt 'The dogs' --temperature 0.7 --top-p 0.9 --seed 2
  antlm generate runs/first --prompt 'The dogs' --stop . --stop '?' --count 5
  antlm generate runs/first --temperature 0          always the likeliest token
  antlm generate runs/first --prompt 'The dogs' --json

The prompt is printed, then the text as it is made. It ends where the model puts the closing mark of a document ([SEP]
or </s>), before the first stop text, or after --max-tokens. The same seed gives the same text. Spaces at the end of the
prompt are left out: the space before a word is a part of the word's token. The model reads the opening mark, then the
prompt, as a training segment begins; with no prompt it begins a document of its own.

Each token is drawn from the model's probabilities. What is left of them: --temperature first, then --top-k, --top-p and
--min-p, each of what the one before has left. Of the special tokens only the closing mark can be drawn.

Only clm teaches a model to read from left to right. Of a model without clm, or past the length of its training segments
(seq_len), the text is poor, and a note says so.

With --json: a line per text,
  {\"prompt\":…,\"text\":…,\"ids\":[…],\"logprobs\":[…],\"end\":\"mark|stop|limit\",\"sample\":…}
with the log-probability of each token in nats, before temperature and cuts: what `antlm score --backend causal` gives.")]
pub struct Generate {
    /// The run's folder, or one of its checkpoints
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// How the text begins
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub prompt: String,
    /// The text ends after so many tokens
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub max_tokens: usize,
    /// Divides the logits: below 1 likely tokens become likelier, above 1 less so; 0: always the likeliest
    #[arg(long, value_name = "T", default_value_t = 1.0, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Draw among the K likeliest tokens only
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Draw among the fewest tokens that have at least this probability together; 1: among all
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f64,
    /// Draw among tokens at least P times as likely as the likeliest; 0: among all
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    pub min_p: f64,
    /// Seed of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// End before this text; can be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// How many texts, each with random numbers of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// Read the moving average of the weights (of a run trained with `--set optimizer.ema_decay=0.999`)
    #[arg(long)]
    pub ema: bool,
    #[command(flatten)]
    pub device: super::DeviceArg,
    /// Leave out the notes
    #[arg(long)]
    pub quiet: bool,
    /// Print a JSON line for each text, when it is complete
    #[arg(long)]
    pub json: bool,
}

/// Fill the masks of a text with the likeliest words
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm fill runs/first 'The [MASK] barked.'
  antlm fill runs/first 'The [MASK] saw the [MASK].' --top 3
  antlm fill runs/first 'She is [MASK] today.' --max-word-tokens 3 --json
  antlm fill runs/first < texts-with-masks.txt

A mask, [MASK] or <mask> for every model, stands for a word. The space before it belongs to the word: 'The [MASK]' asks
for a word, 'The dogs[MASK]' for what continues the word or follows it without a space. A word is what the tokenizer
never cuts across: a run of letters, of digits or of other signs.

Words of one token: p is the model's probability of that token at the mask, from both sides, of the whole vocabulary. It
is what `antlm score` gives for the token in the filled text with the same backend.
Words of n tokens (--max-word-tokens): n masks stand there and are filled from the left, and p is the product of the
tokens' probabilities, each with those before it filled in and those after it masked. The words of each length share a
probability of 1, so p can be compared between words of one length only; that a word has n tokens is taken for granted.
Several masks: each by itself, all the others masked; then together, by the same product over all masks from the left.
Words of several tokens, and several masks together, are sought with a beam of at least 32 and may miss the very best.

Only mlm and mntp teach a model to fill masks; the default is the one the run teaches last. A model of clm alone has never
seen a mask. It is read as mntp, where an output predicts the next token, as clm taught; a note says that it means little.

With --json: a line per text,
  {\"text\":…,\"backend\":…,\"masks\":[[{\"word\":…,\"ids\":[…],\"p\":…,\"logp\":…},…],…],
   \"together\":[{\"words\":[…],\"text\":…,\"p\":…,\"logp\":…},…]}")]
pub struct Fill {
    /// The run's folder, or one of its checkpoints
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// A text with masks (default: lines of standard input)
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// How many words for each mask and length
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub top: usize,
    /// Also words of 2 to so many tokens
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub max_word_tokens: usize,
    /// How to read the model (default: what the run's last masked block teaches)
    #[arg(long, value_enum)]
    pub backend: Option<MaskedArg>,
    /// Read the moving average of the weights (of a run trained with `--set optimizer.ema_decay=0.999`)
    #[arg(long)]
    pub ema: bool,
    /// Leave out the note on a way of reading that was not trained
    #[arg(long)]
    pub quiet: bool,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

/// Show how a tokenizer cuts text
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm tokenize runs/first 'The dogs sleep.'
  antlm tokenize runs/prepared/text-1a2b3c4d < sentences.txt
  antlm tokenize tokenizer.json 'The dogs sleep.' --json
  antlm tokenize runs/first --decode '412 17 380'

Names are those of tokenizer.json, where a space is Ġ. Characters are counted from 0, the end not included; the space
before a word belongs to it. No marks are added: training puts [CLS] or <s> (id 1) before a segment and [SEP] or </s> (2)
behind it, scoring the first only. Words are runs of what is not whitespace. Empty lines are left out.

With --json: a line per text,
  {\"text\":…,\"ids\":[…],\"tokens\":[…],\"offsets\":[[0,3],…],\"words\":…}; with --decode {\"ids\":[…],\"text\":…}.")]
pub struct Tokenize {
    /// A run or one of its checkpoints, a folder that `antlm prepare` made, or a tokenizer.json
    #[arg(value_name = "RUN|FILE")]
    pub from: PathBuf,
    /// The text (default: lines of standard input)
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// The text is ids with spaces or commas between them; print what they stand for
    #[arg(long)]
    pub decode: bool,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

/// The masked ones of [`Backend`], for clap.
#[derive(Clone, Copy, ValueEnum)]
pub enum MaskedArg {
    /// Read at the mask
    Mlm,
    /// Read one position to the left of the mask
    Mntp,
}

impl From<MaskedArg> for Backend {
    fn from(backend: MaskedArg) -> Backend {
        match backend {
            MaskedArg::Mlm => Backend::Mlm,
            MaskedArg::Mntp => Backend::Mntp,
        }
    }
}
