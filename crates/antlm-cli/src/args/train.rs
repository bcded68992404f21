//! The options of `antlm train`.

use std::path::PathBuf;
use std::time::Duration;

use antlm::text::clean::Cleaning;
use clap::Args;

/// Train a model on text, or go on with an interrupted run
#[derive(Args)]
#[command(after_help = "\
Examples:
  antlm train antlm-ltg-bert-tiny --text my-texts/ --out runs/mine
  antlm train antlm-babyllama-small --text corpus/ --dev dev.txt --out runs/llama --seed 3 --set optimizer.lr=5e-4
  antlm train --resume runs/mine
  antlm train runs/mine/recipe.toml --out runs/again      the same once more; refused if the text is not the same
  antlm train babyllama-small --text prepared/ --out runs/base       text that `antlm prepare` made

The text is turned into tokens once: what is prepared lies in prepared/ beside the run folder (here runs/prepared/) and
is used again by all runs on the same text. A run that is resumed needs it.
Ctrl-C and SIGTERM save and stop within a step; --resume goes on as if nothing had happened, to the same bits. A second
Ctrl-C stops at once, which costs no more than the steps since the last checkpoint. SIGUSR1 saves and goes on. With
--stop-after, exit code 142 says that the time was up and that --resume goes on (docs/queues.md has a job script).
The run folder holds recipe.toml, tokenizer.json, log.jsonl, timing.jsonl, environment.json and checkpoints/.")]
pub struct Train {
    /// A built-in recipe's name (see `antlm recipes`) or the path of a TOML file
    #[arg(value_name = "RECIPE", required_unless_present = "resume", conflicts_with = "resume")]
    pub recipe: Option<String>,
    /// Files and folders of text in place of all those the recipe may name (`antlm prepare --help` says which kinds), or
    /// a prepared folder
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with = "resume")]
    pub text: Vec<PathBuf>,
    /// How the text of --text (and --dev) is cleaned: none, babylm, or babylm:CORPUS (see `antlm prepare --help`)
    #[arg(long, value_name = "PROFILE", requires = "text", conflicts_with = "resume")]
    pub cleaning: Option<Cleaning>,
    /// The run's folder; it must be new or empty
    #[arg(long, value_name = "RUN", required_unless_present = "resume", conflicts_with = "resume")]
    pub out: Option<PathBuf>,
    /// Go on with the run in this folder
    #[arg(long, value_name = "RUN")]
    pub resume: Option<PathBuf>,
    /// Text for the dev loss (default: 1 % of the documents, chosen by their content)
    #[arg(long, value_name = "PATH", conflicts_with = "resume")]
    pub dev: Option<PathBuf>,
    /// Start from the weights of a run, a checkpoint or an imported model, with its tokenizer; the recipe must have its sizes
    #[arg(long, value_name = "RUN", conflicts_with = "resume")]
    pub init: Option<PathBuf>,
    /// With RUN/recipe.toml: also on other text, with another tokenizer or by another version of antlm than the run's
    #[arg(long, conflicts_with = "resume")]
    pub other_data: bool,
    /// Seed of all random numbers (default: the recipe's)
    #[arg(long, value_name = "N", conflicts_with = "resume", value_parser = clap::value_parser!(u64).range(..i64::MAX as u64))]
    pub seed: Option<u64>,
    /// The BabyLM track whose limits of words the run has to keep to (docs/words-tokens-epochs.md); auto is that of
    /// checkpoints.milestones if those are BabyLM's, otherwise none
    #[arg(long, value_name = "TRACK", value_parser = ["auto", "none", "strict-small", "strict", "multilingual"], conflicts_with = "resume")]
    pub track: Option<String>,
    /// Change a key of the recipe; can be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "resume")]
    pub set: Vec<String>,
    /// Also write RUN/tensorboard/, for `tensorboard --logdir RUN`; a resumed run that has it goes on with it
    #[arg(long)]
    pub tensorboard: bool,
    /// Save and stop within a step after this time (90s, 45m, 2h, 1h30m), preparing included; exit code 142
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub stop_after: Option<Duration>,
    #[command(flatten)]
    pub device: super::DeviceArg,
    /// Threads to use (default: all); the result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Print nothing but warnings and errors
    #[arg(long)]
    pub quiet: bool,
    /// Print the events as JSON lines instead of progress
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
}

/// `2h`, `1h30m`, `45m`, `90s`, `1d`: whole numbers with their units, the largest unit first.
fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];
    let wrong = || format!("expected a time such as 2h, 1h30m, 45m or 90s, got {text:?}");
    let (mut rest, mut seconds, mut units) = (text, 0u64, &UNITS[..]);
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
        let unit = behind.chars().next().ok_or_else(wrong)?;
        let place = units.iter().position(|&(name, _)| name == unit).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        seconds = number.checked_mul(units[place].1).and_then(|s| seconds.checked_add(s)).ok_or_else(wrong)?;
        (rest, units) = (&behind[unit.len_utf8()..], &units[place + 1..]);
    }
    if seconds == 0 { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("2h", 7200), ("1h30m", 5400), ("45m", 2700), ("90s", 90), ("1d2s", 86_402)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "0s",
            "90",
            "h",
            "2 h",
            "30m1h",
            "1h1h",
            "-1h",
            "1.5h",
            "2é",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert!(duration(text).unwrap_err().contains("1h30m"), "{text}");
        }
    }
}
