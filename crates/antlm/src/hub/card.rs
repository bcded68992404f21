//! The model card: what the model is, how it was trained, what it scores and how to load it. Nothing in it is made up:
//! what was not measured is said to be so.

use std::fmt::Write;
use std::path::Path;

use super::card_scores;
use super::config::{self, Reading};
use super::export::public_recipe;
use crate::eval::results::{self, Set, TaskResult};
use crate::model::Kind;
use crate::objective::Backend;
use crate::text::words::grouped;
use crate::train::checkpoint::{MILESTONES, MODEL};
use crate::train::info::{self, DevLoss};
use crate::train::run_folder;
use crate::train::trained::{Trained, Weights};
use crate::{Result, files};

/// The text of `README.md`.
///
/// # Errors
/// A log or a result of the run that cannot be read.
pub fn card(trained: &Trained, weights: Weights, license: Option<&str>, title: &str) -> Result<String> {
    let reading = Reading::of(trained);
    let mut text = front(trained, &reading, license);
    let family = match trained.model.config().kind {
        Kind::LtgBert => "LTG-BERT",
        Kind::Llama => "Llama",
    };
    let parameters = grouped(trained.params.len() as u64);
    let causal = reading.backends.contains(&Backend::Causal);
    let ways = match (&trained.recipe.imported, causal, reading.masked().is_some()) {
        (Some(_), ..) => "imported into antlm; how it was trained is not recorded there.",
        (None, true, true) => {
            "trained with antlm. It reads both ways: causal and masked language modelling were trained by turns on one set of \
             weights."
        }
        (None, true, false) => "trained with antlm by causal language modelling alone: it reads from the left.",
        (None, false, true) => "trained with antlm by masked language modelling alone: it reads from both sides.",
        (None, false, false) => "not trained yet: these are the weights before the first step.",
    };
    // Writing to a String cannot fail, here and below.
    let _ = write!(text, "# {title}\n\nA small language model, {family} with {parameters} parameters, {ways}\n\n");
    text += &training(trained, weights);
    text += &loading(trained, &reading, title);
    text += &scores(trained, weights)?;
    text += &limits(trained, &reading, license);
    if trained.recipe.imported.as_ref().is_some_and(|imported| !imported.recipe_known) {
        let _ = write!(
            text,
            "## Recipe\n\nNot known. Of `{}` only the sizes under `[model]` are this model's.\n",
            super::RECIPE
        );
        return Ok(text);
    }
    let recipe = public_recipe(&trained.recipe).to_toml()?;
    let _ = write!(
        text,
        "## Recipe\n\nAlso in `{}`; texts are named without their folders.\n\n```toml\n{recipe}```\n",
        super::RECIPE
    );
    Ok(text)
}

/// The block that the Hub reads.
fn front(trained: &Trained, reading: &Reading, license: Option<&str>) -> String {
    let mut text = "---\nlibrary_name: transformers\n".to_owned();
    if let Some(license) = license {
        let _ = writeln!(text, "license: {}", serde_json::json!(license)); // JSON's strings are YAML's
    }
    let mut languages: Vec<String> =
        trained.recipe.data.iter().filter_map(|source| source.language.as_ref().map(ToString::to_string)).collect();
    languages.sort();
    languages.dedup();
    if !languages.is_empty() {
        let _ = writeln!(text, "language: {}", serde_json::json!(languages));
    }
    if let Some(task) = reading.pipeline() {
        let _ = writeln!(text, "pipeline_tag: {task}");
    }
    text + "tags: [\"antlm\", \"babylm\"]\n---\n\n"
}

fn training(trained: &Trained, weights: Weights) -> String {
    let (recipe, state) = (&trained.recipe, &trained.state);
    let mut text = "## Training\n\n| | |\n|---|---|\n".to_owned();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    if let Some(imported) = &recipe.imported {
        row("imported from", format!("`{}`", imported.from.replace('|', " ")));
        row("weights (SHA-256 of the imported file)", format!("`{}`", imported.weights));
        return text + "\nSteps, words seen, seed and text are not recorded in such a model.\n\n";
    }
    if let Some(init) = recipe.used.as_ref().and_then(|used| used.init.as_ref()) {
        let what = format!(
            "another model (SHA-256 of its weights `{}`); the words that it had seen are not counted below",
            init.weights
        );
        row("started from", what);
    }
    row("recipe", format!("`{}`", recipe.name.replace('|', " ")));
    row("schedule", format!("`{}`", recipe.schedule));
    row("optimiser steps", grouped(state.step));
    let mut all = 0;
    for (objective, seen) in &state.seen {
        all += seen.words;
        row(
            &format!("words seen, `{objective}`"),
            format!("{} ({} targets)", grouped(seen.words), grouped(seen.targets)),
        );
    }
    row("words seen, together", grouped(all));
    row("seed", state.seed.to_string());
    let average = format!("moving average over the steps (decay {})", recipe.optimizer.ema_decay);
    row("weights", if weights == Weights::Average { average } else { "those after the last step".into() });
    let known = |hash: &str| if hash.is_empty() { "not known".into() } else { format!("`{hash}`") };
    row("text (SHA-256 of the prepared text)", known(&state.hashes.data));
    row("tokenizer (SHA-256)", known(&state.hashes.tokenizer));
    row("antlm", recipe.used.as_ref().map_or("not known".into(), |used| used.antlm.clone()));
    text + "\nWords are those of the raw text, repeats counted. The schedule is that of the whole run; what this checkpoint \
        has had of it\nis in the rows below it.\n\n"
}

fn loading(trained: &Trained, reading: &Reading, title: &str) -> String {
    let (ltg, next) = (trained.model.config().kind == Kind::LtgBert, reading.alignment() == config::NEXT_TOKEN);
    let mask = trained.tokenizer.family().special_names()[4];
    let trust = ", trust_remote_code=True";
    let causal = if ltg { trust } else { "" };
    let about = if next { "token k + 1 (backend `mntp`)" } else { "token k (backend `mlm`)" };
    let place = if next { "place - 1" } else { "place" };
    // JSON's strings are Python's.
    let title = serde_json::json!(title);
    let milestone = trained.checkpoint.parent().and_then(Path::file_name).is_some_and(|name| name == MILESTONES);
    let (branch, on_hub) = match milestone {
        true => (
            format!("  # pushed, path is the repository, and every call has revision={title}"),
            format!("its repository on the Hub together with `revision={title}`"),
        ),
        false => (String::new(), "its repository on the Hub".into()),
    };
    let mut text = format!(
        "## Loading\n\nWith transformers 4.51 to 5.x. `path` is this folder, or {on_hub}.\n\n```python\n\
         from transformers import AutoTokenizer, AutoModelForCausalLM, AutoModelForMaskedLM\n\n\
         path = {title}{branch}\ntokenizer = AutoTokenizer.from_pretrained(path{causal})\n\n\
         # From the left.\n\
         model = AutoModelForCausalLM.from_pretrained(path{causal})\n\
         ids = tokenizer(\"The dogs\", return_tensors=\"pt\")\n\
         print(tokenizer.decode(model.generate(**ids, max_new_tokens=20)[0]))\n\n\
         # From both sides.\n\
         model = AutoModelForMaskedLM.from_pretrained(path{trust})\n\
         ids = tokenizer(\"The{mask} sleep.\", return_tensors=\"pt\")\n\
         place = ids.input_ids[0].tolist().index(tokenizer.mask_token_id)\n\
         print(tokenizer.decode(model(**ids).logits[0, {place}].topk(5).indices))\n```\n\n"
    );
    let _ = write!(
        text,
        "- Output k of `AutoModelForMaskedLM` is about {about}; `config.antlm_masked_alignment` says the same, and labels \
         stand at\n  the token's own place in any case.{}\n",
        if next { " transformers' `fill-mask` pipeline reads output k, so it does not fit." } else { "" }
    );
    if !ltg {
        text += "- With transformers 5.2 and later `AutoModelForCausalLM.from_pretrained(path, is_causal=False)` reads both sides, without\n  \
                 remote code; 4.51 does nothing with it.\n";
    }
    text += "- `AutoModel` gives hidden states, `AutoModelForSequenceClassification` has a new head, which is to be trained first. ";
    text += if reading.masked().is_some() {
        "Both read both\n  sides; the head reads the first token.\n"
    } else {
        "Both read\n  from the left; the head reads the last token.\n"
    };
    let names = trained.tokenizer.family().special_names();
    let _ = write!(
        text,
        "- The tokenizer puts `{}` in front, nothing behind, and a space before the first word, as in training. Padding may be on\n  \
         either side (`tokenizer.padding_side`, here right); generate from padded batches with padding on the left.\n\
         - `from_pretrained(folder, revision=…)` ignores the revision of a folder on disk: each checkpoint has a folder, and on\n  \
         the Hub a branch, of its own.\n\n",
        names[1]
    );
    text
}

fn scores(trained: &Trained, weights: Weights) -> Result<String> {
    let mut text = "## Scores\n\n".to_owned();
    let mut dev: Vec<DevLoss> = match trained.run.join(run_folder::LOG).is_file() && weights == Weights::Last {
        true => info::read(&trained.run)?.dev,
        false => Vec::new(),
    };
    dev.retain(|loss| loss.step == trained.state.step);
    if !dev.is_empty() {
        text += "Mean -log p in nats per predicted token of held-out text, measured by `antlm train` at this checkpoint. Comparable\n\
                 between models with the same tokenizer and text, for the same backend.\n\n| backend | loss | |\n|---|---|---|\n";
        for loss in &dev {
            let mark = if loss.worse_than_unigram { "worse than token frequencies" } else { "" };
            let _ = writeln!(text, "| `{}` | {:.4} | {mark} |", loss.backend, loss.loss);
        }
        text.push('\n');
    }
    // Results of these very weights, over all items.
    let file = match weights {
        Weights::Last => trained.checkpoint.join(MODEL),
        Weights::Average => trained.checkpoint.join(crate::train::checkpoint::EMA),
    };
    let sha = files::sha256_file(&file)?;
    let all = results::list(&trained.run)?.into_iter().map(|(_, result)| result);
    let fits =
        |result: &TaskResult| result.checkpoint.weights == sha && result.set == Set::Full && result.limit.is_none();
    let tasks: Vec<TaskResult> = all.filter(fits).collect();
    text += &card_scores::table(&tasks);
    if dev.is_empty() && tasks.is_empty() {
        text += "Nothing was measured at this checkpoint before it was exported.\n\n";
    }
    Ok(text)
}

fn limits(trained: &Trained, reading: &Reading, license: Option<&str>) -> String {
    let backends: Vec<String> = reading.backends.iter().map(|backend| format!("`{backend}`")).collect();
    let licence = match license {
        Some(license) => format!("Licence: {license}."),
        None => "No licence was given when this was exported; ask whoever shares it.".into(),
    };
    let read = match backends.is_empty() {
        true => "It has learnt nothing yet, by whichever way it is read.".into(),
        false => {
            format!(
                "Read it by {}, which it was trained for; any other way of reading means little.",
                backends.join(" and ")
            )
        }
    };
    format!(
        "## Limits\n\n- {read}\n\
         - It has seen segments of at most {} tokens. Longer texts can be read, but were not trained.\n\
         - A model of this size and so little text repeats what its text says, be it wrong or unfair. It is made for research\n  \
         on language learning, not for advice, and not to be shown to people unfiltered.\n- {licence}\n\n",
        trained.recipe.seq_len
    )
}
