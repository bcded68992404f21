//! The card's table of scores: each with what decides it. A number without its data and settings says little.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::eval::finetune::data;
use crate::eval::finetune::presets::Preset;
use crate::eval::results::{Set, TaskResult};
use crate::eval::submit_sizes;
use crate::eval::zeroshot::Task;
use crate::text::words::grouped;

/// The table of these results, which are without a limit and of full sets, and how the fine-tuned ones were made; nothing
/// when there is none.
pub fn table(tasks: &[TaskResult]) -> String {
    let mut text = String::new();
    if tasks.is_empty() {
        return text;
    }
    text += "Measured by `antlm eval` and `antlm finetune` on these weights, over all items of the files that were given. Whether\n\
             these are as many as BabyLM's 2025/26 files have, name by name, is in the column \"official size\"; \"data\" begins the\n\
             SHA-256 of all that was read. Ties (equal log-probabilities) count as right, as in the official scripts.\n\n\
             | task | read by | protocol | metric | score | items | ties | official size | data |\n\
             |---|---|---|---|---|---|---|---|---|\n";
    let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for task in tasks {
        let backend = task.backend.map_or("fine-tuned".into(), |backend| format!("`{backend}`"));
        let protocol = match task.seed {
            Some(seed) => format!("{}, seed {seed}", task.protocol),
            None => task.protocol.clone(),
        };
        let (name, metric, score, n) = (&task.task, &task.metric, task.score, grouped(task.n));
        let ties = if task.backend.is_some() && !task.outcomes.is_empty() { grouped(task.ties) } else { "—".into() };
        let data: String = task.data.chars().take(12).collect();
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            text,
            "| {name} | {backend} | {protocol} | {metric} | {score:.2} | {n} | {ties} | {} | `{data}` |",
            official(task)
        );
        if task.backend.is_none() {
            settings.entry(tuned(task)).or_default().push(format!("{name} ({protocol})"));
        }
    }
    text.push('\n');
    for (how, names) in settings {
        let _ = writeln!(text, "- Fine-tuned {}: {how}.", names.join(", "));
    }
    text + "\n"
}

/// Whether the files had the sizes of BabyLM's.
fn official(result: &TaskResult) -> String {
    let mut parts: Vec<(String, usize)> =
        result.outcomes.iter().map(|(name, outcomes)| (name.clone(), outcomes.len())).collect();
    let n = result.n as usize;
    let (must, fits) = match result.backend {
        Some(_) => {
            let task = Task::ALL.into_iter().find(|task| task.name() == result.task);
            let Some(sizes) = task.and_then(|task| submit_sizes::of(task, Set::Full)) else { return "—".into() };
            if parts.is_empty() {
                parts.push((result.task.clone(), n));
            }
            (sizes.total(), sizes.check(&parts).is_empty())
        }
        None => match submit_sizes::GLUE.into_iter().find(|(task, _)| *task == result.task) {
            Some((_, must)) if result.protocol == Preset::Y2026.name() => (Some(must), must == n),
            _ => return "—".into(),
        },
    };
    match (fits, must) {
        (true, _) => "yes".into(),
        (false, Some(must)) if must != n => format!("no: {} of {}", grouped(result.n), grouped(must as u64)),
        (false, _) => "no: other files".into(),
    }
}

/// How a fine-tuned model was read, what chose the epoch, and what was set otherwise than in the preset.
fn tuned(result: &TaskResult) -> String {
    let of = |key: &str| result.settings.get(key).map_or("not known", String::as_str);
    let chosen = match of("select") {
        "official" => "the scored rows, as the official script does it (the best epoch)".into(),
        "holdout" => "a tenth of the training rows".to_owned(),
        other => other.to_owned(),
    };
    let read = if of("read") == "causal" { "from the left" } else { "from both sides" };
    let mut text = format!(
        "read {read}, the head on the {}, the epoch chosen by {} on {chosen} (`--select {}`)",
        of("vector"),
        of("chosen_by"),
        of("select")
    );
    let preset = [Preset::Y2024, Preset::Y2026].into_iter().find(|preset| preset.name() == result.protocol);
    let task = data::Task::parse(&result.task).ok();
    let Some(usual) = preset.zip(task).map(|(preset, task)| preset.settings(task.trained_as()).listed()) else {
        return text + "; of a preset that this antlm does not know";
    };
    let differ = |(key, value): (&String, &String)| {
        let own = of(key);
        (own != value).then(|| format!("`{key}` {own} (not {value})"))
    };
    let changed: Vec<String> = usual.iter().filter_map(differ).collect();
    if changed.is_empty() {
        text += "; all else as in the preset";
    } else {
        let _ = write!(text, "; not the preset's settings: {}", changed.join(", "));
    }
    text
}
