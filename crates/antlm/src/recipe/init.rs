//! A first recipe for a user's own text: the words are counted, and size, vocabulary and epochs follow from them. The
//! recipe is a file of comments around few keys; what it leaves out is a built-in recipe's.

use std::cell::Cell;
use std::path::PathBuf;

use super::{Recipe, builtin};
use crate::text::corpus::{self, Purpose, Source};
use crate::text::prepare::{Phase, Progress};
use crate::text::words;
use crate::text::words::grouped;
use crate::{Error, Result};

/// Below this a larger model than tiny has too few steps: its steps take 1024 segments, some 80,000 words.
const XS_WORDS: u64 = 8_000_000;
/// From here on there is enough text for the authors' small size.
const SMALL_WORDS: u64 = 50_000_000;
/// Steps that a block should have: after 100 to 150 it has won back what the one before it wiped out.
const BLOCK_STEPS: f64 = 150.0;
/// The most epochs of each causal block that a small text gets; with four times as many masked between, 30 in all.
const MOST_EPOCHS: u64 = 5;
/// Tokens a word of a small text, as measured on 300,000 words with 4096 tokens.
const TOKENS_PER_WORD: f64 = 1.83;

/// How much text there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Files.
    pub files: u64,
    /// Documents.
    pub documents: u64,
    /// Whitespace-separated words.
    pub words: u64,
}

/// Counts the words of files and folders, as training would read them. `progress` is told how far it is, `cancelled`
/// asked whether to stop.
///
/// # Errors
/// Whatever is wrong with the text, with path and place; [`Error::Stopped`] when `cancelled` says so.
pub fn count(text: &[PathBuf], progress: &mut dyn FnMut(Progress), cancelled: &dyn Fn() -> bool) -> Result<Amount> {
    let files = corpus::files(&[Source::new("text", text)], Purpose::Train)?;
    let total = files.iter().map(|file| file.bytes).sum();
    let mut amount = Amount::default();
    let mut before = 0;
    for file in &files {
        let inside = Cell::new(0);
        corpus::documents(file, &inside, |document| {
            if cancelled() {
                return Err(Error::Stopped { signal: 2, left: "nothing was written".into() });
            }
            amount.documents += 1;
            amount.words += words::count(document);
            progress(Progress { phase: Phase::Count, done: (before + inside.get()).min(total), total });
            Ok(())
        })?;
        amount.files += 1;
        before += file.bytes;
    }
    Ok(amount)
}

/// What suits a text of so many words.
struct Choice {
    base: &'static str,
    schedule: Option<String>,
    vocab_size: Option<usize>,
    segments: Option<u32>,
    why_size: &'static str,
    why_schedule: String,
}

fn choose(words: u64, documents: u64) -> Choice {
    if words >= XS_WORDS {
        let small = words >= SMALL_WORDS;
        return Choice {
            base: if small { "antlm-mntp-2026-ltg-bert-small" } else { "antlm-mntp-2026-ltg-bert-xs" },
            schedule: None,
            vocab_size: None,
            segments: None,
            why_size: if small {
                "There is enough text for LTG-BERT's small size (27.7 M parameters).\n\
                 # \"antlm-mntp-2026-ltg-bert-xs\" is a third of it; `antlm bench` says how long a step takes here."
            } else {
                "Some ten million words suit LTG-BERT's smallest size (8.5 M parameters).\n\
                 # \"antlm-mntp-ltg-bert-tiny\" is a sixth of it; `antlm bench` says how long a step takes here."
            },
            why_schedule: "Ten epochs, which is what BabyLM 2025 and 2026 allow: one causal, eight masked, one causal."
                .into(),
        };
    }
    // A step of 32 segments of 126 tokens takes 2200 words or so. A small text gets smaller steps, then more epochs.
    // A document is one segment at least.
    let all = (words as f64 * TOKENS_PER_WORD / 126.0).max(documents as f64);
    let steps_of = |segments: f64| all / segments;
    let segments = [32u32, 16, 8].into_iter().find(|&s| steps_of(s.into()) >= BLOCK_STEPS * 0.9).unwrap_or(8);
    let epochs = (BLOCK_STEPS * 0.9 / steps_of(segments.into())).ceil().clamp(1.0, MOST_EPOCHS as f64) as u64;
    let steps = steps_of(segments.into()) as u64;
    Choice {
        base: "antlm-mntp-ltg-bert-tiny",
        schedule: Some(format!("{epochs} clm + {} mntp + {epochs} clm", 4 * epochs)),
        vocab_size: Some(match words {
            0..50_000 => 1024,
            50_000..150_000 => 2048,
            _ => 4096,
        }),
        segments: Some(segments),
        why_size: "The tiny LTG-BERT, of 1.4 M parameters at most. Larger sizes take so large steps that a text of this\n\
                   # size gives too few of them.",
        why_schedule: format!(
            "An epoch is about {} steps of {segments} segments. A block should have 100 to 150 at least to win back \
             what the one\n# before it wiped out: so {epochs} epoch{} at each end, and four times as many masked \
             between, as in the paper.",
            grouped(steps),
            if epochs == 1 { "" } else { "s" },
        ),
    }
}

/// The text of a recipe for `text`, of which there is so much. It reads back and is checked before it is given.
///
/// # Errors
/// [`Error::Usage`] for a path that is not UTF-8, which TOML cannot hold.
pub fn recipe(text: &[PathBuf], amount: Amount) -> Result<String> {
    let choice = choose(amount.words, amount.documents);
    let base = builtin(choice.base)?;
    let mut paths = Vec::new();
    for path in text {
        let Some(path) = path.to_str() else {
            return Err(Error::Usage(format!("{}: a recipe cannot hold a path that is not UTF-8", path.display())));
        };
        paths.push(toml::Value::String(path.into()));
    }
    let mut out = String::from("# A recipe for antlm; docs/recipe-reference.md explains every key.\n");
    if text.is_empty() {
        out += "# No text was counted: this suits some 300,000 words. `antlm init --text PATH` looks at yours.\n";
    } else {
        let Amount { files, documents, words } = amount;
        let [files, documents, words] = [files, documents, words].map(grouped);
        out += &format!("# For {words} words in {documents} documents, files: {files}.\n");
        if amount.words < 30_000 {
            out += "# That is very little: the model will learn which words are frequent, and hardly any grammar.\n";
        }
        if amount.documents < 100 {
            out += "# So few documents leave little or nothing for the dev loss: give text for it with --dev, or in\n\
                    # [dev] below; or say with `documents` in [[data]] where one document ends and the next begins.\n";
        }
    }
    out += &format!(
        "\nversion = 1\n\n# What is not said here is as in this built-in recipe (`antlm recipes` lists all).\n# {}\n\
         base = \"{}\"\n\n# {}\n",
        choice.why_size, choice.base, choice.why_schedule
    );
    out += &match &choice.schedule {
        Some(schedule) => format!("schedule = \"{schedule}\"\n"),
        None => format!("# schedule = \"{}\"\n", base.schedule),
    };
    out +=
        "\n# The seed of everything random: another one gives an equally good, slightly different model.\nseed = 42\n";
    if let Some(vocab_size) = choice.vocab_size {
        out += &format!(
            "\n[model]\n# Tokens. Each has to be seen often to be learnt, so a small text gets few.\n\
             vocab_size = {vocab_size}\n"
        );
    }
    if let Some(segments) = choice.segments {
        out += &format!(
            "\n[batch]\n# Segments of {} tokens that make a step: fewer give more steps, and noisier ones.\n\
             segments = {segments}\n",
            base.seq_len
        );
    }
    out += "\n[dev]\n# Text that is not trained on, to see what is learnt. Empty: one document in a hundred is held out.\n\
            paths = []\n";
    if paths.is_empty() {
        out += "\n# [[data]]\n# name = \"text\"\n# paths = [\"my-texts/\"]\n";
    } else {
        let paths = toml::Value::Array(paths);
        out += &format!(
            "\n# Paths are seen from the folder in which antlm is called.\n[[data]]\nname = \"text\"\npaths = {paths}\n\
             # \"blank-line\", \"file\" or \"title\": what separates documents. In .jsonl files each line is one.\n\
             documents = \"blank-line\"\n"
        );
    }
    Recipe::from_toml(&format!("name = \"new\"\n{out}"), "the new recipe")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Plan;
    use crate::recipe::plan::Facts;

    fn amount(words: u64) -> Amount {
        Amount { files: 2, documents: 1000, words }
    }

    fn read(text: &str) -> Recipe {
        Recipe::from_toml(&format!("name = \"mine\"\n{text}"), "mine").unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn recipes_for_texts_of_any_size_plan_without_a_warning() {
        let paths = ["corpus/".into(), "a \"b\"\\c\n.txt".into()];
        for words in [0, 1, 9, 5_000, 30_000, 60_000, 150_000, 300_000, 2_000_000, 7_999_999, 8_000_000, 9_900_000] {
            let text = recipe(&paths, amount(words)).unwrap();
            assert!(text.contains(&format!("For {} words", grouped(words))) && text.lines().all(|l| l.len() <= 125));
            let recipe = read(&text);
            assert_eq!(recipe.data[0].paths, paths);
            let tokens = (words as f64 * 1.83) as u64;
            let segments = tokens.div_ceil(126).max(1) as u32;
            let plan = Plan::new(&recipe, Some(Facts { segments, words, tokens, text_words: words })).unwrap();
            assert!(plan.limits.iter().all(|limit| !limit.crossed), "{words}");
            let short = plan.notes.iter().any(|note| note.contains("shortest block"));
            // Below some 15,000 words even five epochs of small steps are too short, and the plan says so.
            assert_eq!(short, words < 15_000, "{words}: {:?} {}", plan.notes, plan.schedule);
        }
    }

    #[test]
    fn more_text_more_model() {
        let recipes =
            [20_000, 100_000, 300_000, 9_000_000, 90_000_000].map(|words| read(&recipe(&[], amount(words)).unwrap()));
        let size = |r: &Recipe| crate::recipe::size::parameters(&r.model);
        assert!(recipes.windows(2).all(|pair| size(&pair[0]) < size(&pair[1])));
        assert_eq!(recipes[2].schedule.to_string(), "1 clm + 4 mntp + 1 clm");
        assert!(recipes[0].schedule.to_string() > recipes[2].schedule.to_string());
        assert!(recipes[0].data.is_empty());
    }

    #[test]
    fn words_are_counted_as_training_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "One two.\n\nThree four five.\n").unwrap();
        std::fs::write(folder.path().join("b.jsonl"), "{\"text\": \"six seven\"}\n").unwrap();
        std::fs::write(folder.path().join("c.dev"), "not trained on").unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, b"eight nine\n\nten\n").unwrap();
        std::fs::write(folder.path().join("d.txt.gz"), packed.finish().unwrap()).unwrap();
        let text = [folder.path().to_owned()];
        let mut done = Vec::new();
        let found = count(&text, &mut |p| done.push((p.done, p.total)), &|| false).unwrap();
        assert_eq!(found, Amount { files: 3, documents: 5, words: 10 });
        assert!(done.is_sorted() && done.iter().all(|(done, total)| done <= total), "{done:?}");
        assert!(matches!(count(&text, &mut |_| {}, &|| true), Err(Error::Stopped { .. })));
        assert!(count(&["nothing.txt".into()], &mut |_| {}, &|| false).is_err());
        // The few documents are spoken of.
        assert!(
            recipe(&text, found).unwrap().contains("very little") && recipe(&text, found).unwrap().contains("--dev")
        );
    }
}
