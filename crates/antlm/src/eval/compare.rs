//! The table of a comparison, from what evaluations and fine-tunings left in runs' folders: rows are models read one way,
//! columns tasks. Nothing is filled in: what is not there is a gap, and a note says what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::eval::finetune::data;
use crate::eval::finetune::metrics::mean_and_sd;
use crate::eval::finetune::presets::Preset;
use crate::eval::results::{self, Set, TaskResult};
use crate::eval::zeroshot::Task;
use crate::objective::Backend;
use crate::recipe::{Recipe, flat};
use crate::suggest::did_you_mean;
use crate::train::run_folder;
use crate::train::trained::{self, Which};
use crate::{Error, Result};

mod differences;

/// The column of the mean of a preset's fine-tuning tasks.
pub const GLUE: &str = "glue";
/// The column of the mean of [`FOUR`].
pub const MACRO: &str = "macro-average";
/// What the macro-average of the paper (and of BabyLM 2024) is the mean of.
pub const FOUR: [&str; 4] = ["blimp", "supplement", "ewok", GLUE];

/// What is compared.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only rows that are read so; empty for all that were evaluated.
    pub backends: Vec<Backend>,
    /// The protocol of zero-shot tasks.
    pub protocol: String,
    /// The preset of fine-tunings.
    pub preset: String,
    /// The checkpoint's name in `results/`; none for the last one of each run.
    pub checkpoint: Option<String>,
    /// Tasks, `glue`, `macro-average`, or `all`; empty for the paper's table.
    pub tasks: Vec<String>,
    /// Also what was evaluated with a limit or on short sets; it is marked.
    pub limited: bool,
    /// The run that differences are taken against; none for the first.
    pub against: Option<PathBuf>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Of the zero-shot tasks.
    pub protocol: String,
    /// Of the fine-tuning tasks.
    pub preset: String,
    /// Tasks, in order.
    pub columns: Vec<String>,
    /// In the order of the runs, then of backends.
    pub rows: Vec<Row>,
    /// Paired differences, for every row but the first and every column that both rows have.
    pub differences: Vec<Difference>,
    /// What a reader has to know: gaps and their reasons first.
    pub notes: Vec<String>,
}

/// Models of one recipe, read one way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The run as it was given; of several seeds what their names have in common.
    pub model: String,
    /// How it was read; nothing for a model that was only fine-tuned.
    pub backend: Option<Backend>,
    /// The runs' folders.
    pub runs: Vec<PathBuf>,
    /// Their seeds.
    pub seeds: Vec<u64>,
    /// Whose results they are, by name.
    pub checkpoints: Vec<String>,
    /// By column; nothing is a gap.
    pub cells: BTreeMap<String, Option<Cell>>,
}

/// A score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Times 100; the mean over seeds.
    pub score: f64,
    /// Standard deviation over seeds (n - 1); nothing for one seed.
    pub sd: Option<f64>,
    /// Each seed's score, in the order of the row's runs.
    pub values: Vec<f64>,
    /// Not of all items: with a limit or of a short set.
    pub limited: bool,
}

/// What a row has above the one that it is compared with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The row.
    pub model: String,
    /// How it was read.
    pub backend: Option<Backend>,
    /// The row that it is compared with.
    pub against: String,
    /// How that one was read.
    pub against_backend: Option<Backend>,
    /// The task.
    pub column: String,
    /// In the units of scores.
    pub difference: f64,
    /// A 95 % interval by bootstrap; nothing for what cannot be drawn anew (reading times).
    pub interval: Option<[f64; 2]>,
    /// What the interval is over: `items`, or `items and seeds`.
    pub over: &'static str,
}

/// One run's results at one checkpoint.
struct Model {
    path: PathBuf,
    checkpoint: String,
    seed: u64,
    /// What makes it of the same recipe as others.
    identity: String,
    /// By task and backend; of a fine-tuning there are several, of several seeds.
    results: BTreeMap<(String, Option<Backend>), Vec<TaskResult>>,
}

impl Model {
    fn of(&self, task: &str, backend: Option<Backend>) -> &[TaskResult] {
        let backend = if is_tuned(task) { None } else { backend };
        self.results.get(&(task.to_owned(), backend)).map_or(&[], Vec::as_slice)
    }

    fn backends(&self) -> impl Iterator<Item = Backend> {
        self.results.keys().filter_map(|(_, backend)| *backend)
    }
}

fn is_tuned(task: &str) -> bool {
    data::Task::parse(task).is_ok()
}

/// Compares runs.
///
/// # Errors
/// [`Error::Usage`] for what is no run, an unknown task or preset, scores of different data; damaged results' errors.
pub fn runs(paths: &[PathBuf], options: &Options) -> Result<Comparison> {
    let preset = [Preset::Y2024, Preset::Y2026].into_iter().find(|preset| preset.name() == options.preset);
    let preset =
        preset.ok_or_else(|| Error::Usage(format!("no preset {:?}; there are 2024 and 2026", options.preset)))?;
    let glue: Vec<&str> = preset.tasks().iter().map(|task| task.name()).collect();
    let glue = &glue[..];
    let mut notes = Vec::new();
    let mut models = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        if paths[..index].contains(path) {
            return Err(Error::Usage(format!("{}: given twice", path.display())));
        }
        // `runs/*` has it, too.
        let prepared = path.file_name().is_some_and(|name| name == "prepared") && path.is_dir();
        if prepared && paths.len() > 1 && !path.join(run_folder::RECIPE).exists() {
            notes.push(format!("{}: prepared text, not a run", path.display()));
            continue;
        }
        models.push(load(path, options, &mut notes)?);
    }
    fullest(&mut models);
    let groups = grouped(&models);
    let columns = columns(&models, options, glue)?;
    let atoms: Vec<&str> =
        columns.iter().flat_map(|column| atoms(column, glue)).collect::<BTreeSet<_>>().into_iter().collect();
    for task in &atoms {
        check_same(task, &models)?;
    }
    let mut rows = Vec::new();
    for (label, members) in &groups {
        rows.extend(rows_of(label, members, options, &columns, glue, &mut notes));
    }
    if rows.is_empty() {
        let what = "nothing was evaluated in the way that --backend asks for".to_owned();
        return Err(Error::Usage(what));
    }
    say_settings(&models, &columns, glue, &mut notes);
    let table: Vec<Row> = rows.iter().map(|row| row.0.clone()).collect();
    let differences = differences::find(&rows, &atoms, options, &columns, glue)?;
    if table.len() > 1 && table.iter().any(|row| row.runs.len() < 3) {
        notes.push("fewer than three seeds: differences are between these models, not between recipes".into());
    }
    let Options { protocol, preset, .. } = options.clone();
    Ok(Comparison { protocol, preset, columns, rows: table, differences, notes })
}

/// A row with its models.
type Shown<'a> = (Row, Vec<&'a Model>);

/// Reads a run's results at the checkpoint that is meant.
fn load(path: &Path, options: &Options, notes: &mut Vec<String>) -> Result<Model> {
    let (run, named) = trained::locate(path)?;
    let (recipe, _) = Recipe::read(&run.join(run_folder::RECIPE))?;
    let all = results::list(&run)?;
    let shown = path.display().to_string();
    if all.is_empty() {
        return Err(Error::Usage(format!("{shown}: nothing was evaluated; `antlm eval {shown} --data DIR` does it")));
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let checkpoint = match (named, &options.checkpoint) {
        (Some(named), _) => name(&named),
        (None, Some(asked)) => asked.clone(),
        // Where only results were kept, the last that was evaluated.
        (None, None) => match trained::choose(&run, Which::Last) {
            Ok(last) => last.iter().map(name).collect(),
            Err(_) => {
                let own = all.iter().map(|(_, result)| &result.checkpoint).filter(|id| !id.name.ends_with("-ema"));
                own.max_by_key(|id| id.step).map(|id| id.name.clone()).unwrap_or_default()
            }
        },
    };
    let names: BTreeSet<&str> = all.iter().map(|(_, result)| &result.checkpoint.name[..]).collect();
    if !names.contains(&checkpoint[..]) {
        let there: Vec<&str> = names.into_iter().collect();
        let near =
            if there.len() > 8 { did_you_mean(&checkpoint, there) } else { format!("; there is {}", there.join(", ")) };
        return Err(Error::Usage(format!("{shown}: nothing was evaluated of {checkpoint}{near}")));
    }
    let mut kept: BTreeMap<(String, Option<Backend>), Vec<TaskResult>> = BTreeMap::new();
    let mut weights: Option<(String, PathBuf)> = None;
    let mut left_out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, result) in all.into_iter().filter(|(_, result)| result.checkpoint.name == checkpoint) {
        let tuned = result.backend.is_none();
        let (wanted, option) = if tuned { (&options.preset, "--preset") } else { (&options.protocol, "--protocol") };
        if result.protocol != *wanted {
            left_out.entry(format!("{option} {}", result.protocol)).or_default().insert(result.task);
            continue;
        }
        if is_limited(&result) && !options.limited {
            left_out.entry("--limited".into()).or_default().insert(result.task);
            continue;
        }
        match &weights {
            Some((first, of)) if *first != result.checkpoint.weights => {
                let what = format!("of other weights than {}; evaluate again", of.display());
                return Err(Error::data(file, "checkpoint", what));
            }
            _ => weights = Some((result.checkpoint.weights.clone(), file)),
        }
        kept.entry((result.task.clone(), result.backend)).or_default().push(result);
    }
    for (option, tasks) in left_out {
        let tasks: Vec<String> = tasks.into_iter().collect();
        notes.push(format!("{shown}: left out {} ({option} shows it)", tasks.join(", ")));
    }
    Ok(Model {
        path: path.to_owned(),
        identity: identity(&recipe, &checkpoint)?,
        checkpoint,
        seed: recipe.seed,
        results: kept,
    })
}

fn is_limited(result: &TaskResult) -> bool {
    result.limit.is_some() || result.set == Set::Fast
}

/// Of each task's results those that are most of it among what all models have: all items rather than a limit, the long
/// set rather than the short one. Where they have nothing in common, each keeps its most.
fn fullest(models: &mut [Model]) {
    let of = |result: &TaskResult| (result.limit.unwrap_or(u64::MAX), result.set == Set::Full);
    let tasks: BTreeSet<String> =
        models.iter().flat_map(|model| model.results.keys().map(|(task, _)| task.clone())).collect();
    for task in tasks {
        let lists = |model: &Model| -> Vec<BTreeSet<(u64, bool)>> {
            let own = model.results.iter().filter(|((name, _), _)| *name == task);
            own.map(|(_, all)| all.iter().map(of).collect()).collect()
        };
        let all = models.iter().flat_map(lists);
        let common = all.reduce(|a, b| a.intersection(&b).copied().collect()).and_then(|common| common.last().copied());
        let of_task =
            models.iter_mut().flat_map(|model| model.results.iter_mut()).filter(|((name, _), _)| *name == task);
        for (_, results) in of_task {
            if let Some(most) = common.or_else(|| results.iter().map(of).max()) {
                results.retain(|result| of(result) == most);
            }
        }
    }
}

/// What two runs share that differ only in the seed: all keys of the recipe but seed and paths, hashes for the text, and
/// how far they are.
fn identity(recipe: &Recipe, checkpoint: &str) -> Result<String> {
    let mut keys = flat::entries(recipe)?;
    ["seed", "data", "dev.paths"].into_iter().for_each(|key| drop(keys.remove(key)));
    let used =
        recipe.used.as_ref().map(|used| (&used.text, &used.tokenizer, used.init.as_ref().map(|init| &init.weights)));
    Ok(format!("{keys:?} {used:?} {checkpoint}"))
}

/// The models of each recipe, with a name; two models of the same seed are not of one group.
fn grouped(models: &[Model]) -> Vec<(String, Vec<&Model>)> {
    let mut groups: Vec<Vec<&Model>> = Vec::new();
    for model in models {
        let fits = |group: &&mut Vec<&Model>| {
            group[0].identity == model.identity && group.iter().all(|other| other.seed != model.seed)
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.push(model),
            None => groups.push(vec![model]),
        }
    }
    let labels: Vec<String> = groups.iter().map(|group| label(group)).collect();
    let unique = |label: &String| labels.iter().filter(|other| *other == label).count() == 1;
    let named = labels.iter().zip(groups).map(|(label, group)| {
        let first = group[0].path.display();
        (if unique(label) || group.len() == 1 { label.clone() } else { format!("{label} ({first}, …)") }, group)
    });
    named.collect()
}

/// What the names of a group's runs begin with, without what leads to a seed.
fn label(group: &[&Model]) -> String {
    let paths: Vec<String> = group.iter().map(|model| model.path.display().to_string()).collect();
    let [first, rest @ ..] = &paths[..] else { return String::new() };
    if rest.is_empty() {
        return first.clone();
    }
    let common = |length: usize| rest.iter().all(|path| path.starts_with(&first[..length]));
    let ends = first.char_indices().map(|(i, _)| i).filter(|&i| common(i)).max().unwrap_or(0);
    let punctuation: &[char] = &['-', '_', '.', '/', ' '];
    let stem = first[..ends].trim_end_matches(punctuation);
    let stem = stem.strip_suffix("seed").unwrap_or(stem).trim_end_matches(punctuation);
    if stem.is_empty() { paths.join(", ") } else { stem.to_owned() }
}

/// The tasks that a column is made of.
fn atoms<'a>(column: &'a str, glue: &[&'a str]) -> Vec<&'a str> {
    match column {
        GLUE => glue.to_vec(),
        MACRO => FOUR.iter().flat_map(|column| atoms(column, glue)).collect(),
        task => vec![task],
    }
}

fn columns(models: &[Model], options: &Options, glue: &[&str]) -> Result<Vec<String>> {
    let known = || Task::ALL.iter().map(|task| task.name()).chain(glue.iter().copied()).chain([GLUE, MACRO]);
    let paper = || FOUR.into_iter().chain([MACRO]);
    let mut columns: Vec<&str> = Vec::new();
    let mut add = |name| {
        if !columns.contains(&name) {
            columns.push(name)
        }
    };
    if options.tasks.is_empty() {
        paper().for_each(&mut add);
    }
    for asked in &options.tasks {
        if asked == "all" {
            paper().for_each(&mut add);
            let there = |task: &&str| models.iter().any(|model| model.results.keys().any(|(name, _)| name == task));
            known().filter(there).for_each(&mut add);
            continue;
        }
        let spelled = asked.replace('_', "-");
        match known().find(|name| *name == spelled || (spelled == "macro" && *name == MACRO)) {
            Some(name) => add(name),
            None => {
                let near = did_you_mean(asked, known());
                let all = || known().collect::<Vec<_>>().join(", ");
                let near = if near.is_empty() { format!("; there are {}, all", all()) } else { near };
                return Err(Error::Usage(format!("no task {asked:?} to compare{near}")));
            }
        }
    }
    Ok(columns.into_iter().map(str::to_owned).collect())
}

/// Numbers of different data, or made by different rules, are not put side by side.
fn check_same(task: &str, models: &[Model]) -> Result<()> {
    let all = models.iter().flat_map(|model| {
        model.results.iter().filter(|((name, _), _)| name == task).flat_map(|(_, all)| all).map(move |one| (model, one))
    });
    let mut first: Option<(&Model, &TaskResult)> = None;
    for (model, result) in all {
        let Some((other, known)) = first else {
            first = Some((model, result));
            continue;
        };
        let (a, b) = (other.path.display(), model.path.display());
        let advice = "evaluate both on the same data, or leave the task out with --tasks";
        if known.data != result.data {
            let hash = |result: &TaskResult| result.data.chars().take(12).collect::<String>();
            return Err(Error::Usage(format!(
                "{task}: {a} and {b} were evaluated on different data (hashes {} and {}); {advice}",
                hash(known),
                hash(result)
            )));
        }
        let rules = |result: &TaskResult| {
            let code = ["scoring", "code"].map(|key| result.settings.get(key).cloned());
            (result.set, result.limit, result.metric.clone(), code)
        };
        if rules(known) != rules(result) {
            let what = "were not scored in the same way (short sets, limits, versions of the scoring code)";
            return Err(Error::Usage(format!("{task}: {a} and {b} {what}; {advice}")));
        }
    }
    Ok(())
}

/// The numbers of a column, from those of its tasks: means of them, one by one. Nothing when a task is not there.
fn combined(column: &str, glue: &[&str], of: &dyn Fn(&str) -> Option<Vec<f64>>) -> Option<Vec<f64>> {
    let parts: &[&str] = match column {
        GLUE => glue,
        MACRO => &FOUR,
        task => return of(task),
    };
    let parts = parts.iter().map(|part| combined(part, glue, of)).collect::<Option<Vec<_>>>()?;
    Some(mean(&parts))
}

/// The mean of lists of one length, element by element.
fn mean(lists: &[Vec<f64>]) -> Vec<f64> {
    let sum = |i: usize| lists.iter().map(|list| list[i]).sum::<f64>();
    (0..lists.first().map_or(0, Vec::len)).map(|i| sum(i) / lists.len() as f64).collect()
}

fn rows_of<'a>(
    label: &str,
    members: &[&'a Model],
    options: &Options,
    columns: &[String],
    glue: &[&str],
    notes: &mut Vec<String>,
) -> Vec<Shown<'a>> {
    let read: BTreeSet<Backend> = members.iter().flat_map(|model| model.backends()).collect();
    let mut backends: Vec<Option<Backend>> = read.into_iter().map(Some).collect();
    if backends.is_empty() {
        backends.push(None);
    }
    backends.retain(|backend| options.backends.is_empty() || backend.is_none_or(|b| options.backends.contains(&b)));
    let mut rows = Vec::new();
    for backend in backends {
        let mut row = Row {
            model: label.to_owned(),
            backend,
            runs: members.iter().map(|model| model.path.clone()).collect(),
            seeds: members.iter().map(|model| model.seed).collect(),
            checkpoints: members.iter().map(|model| model.checkpoint.clone()).collect(),
            cells: BTreeMap::new(),
        };
        for column in columns {
            let value = |model: &&Model| {
                let of = |task: &str| {
                    let all: Vec<Vec<f64>> = model.of(task, backend).iter().map(|result| vec![result.score]).collect();
                    (!all.is_empty()).then(|| mean(&all))
                };
                combined(column, glue, &of).map(|values| values[0])
            };
            let values: Option<Vec<f64>> = members.iter().map(value).collect();
            let limited = atoms(column, glue)
                .iter()
                .any(|task| members.iter().any(|model| model.of(task, backend).iter().any(is_limited)));
            row.cells.insert(column.clone(), values.map(|values| cell(values, limited)));
        }
        say_gaps(&row, members, columns, glue, notes);
        rows.push((row, members.to_vec()));
    }
    rows
}

fn cell(values: Vec<f64>, limited: bool) -> Cell {
    let (score, sd) = mean_and_sd(&values);
    Cell { score, sd, values, limited }
}

/// Which tasks a row's gaps lack.
fn say_gaps(row: &Row, members: &[&Model], columns: &[String], glue: &[&str], notes: &mut Vec<String>) {
    let gaps = columns.iter().filter(|column| row.cells.get(*column).is_some_and(Option::is_none));
    let gaps: BTreeSet<&str> = gaps.flat_map(|column| atoms(column, glue)).collect();
    for model in members {
        let missing: Vec<&str> = gaps.iter().copied().filter(|task| model.of(task, row.backend).is_empty()).collect();
        let (tuned, mut others): (Vec<&str>, Vec<&str>) = missing.iter().partition(|task| is_tuned(task));
        let there = glue.len() - tuned.len();
        let listed = if there == 0 { String::new() } else { format!(" (no {})", tuned.join(", ")) };
        let glue = format!("glue: {there} of {} tasks{listed}", glue.len());
        if !tuned.is_empty() {
            others.push(&glue);
        }
        if !others.is_empty() {
            let read = row.backend.map(|backend| format!(", {backend}")).unwrap_or_default();
            notes.push(format!("{}{read}: not there: {}", model.path.display(), others.join("; ")));
        }
    }
}

/// How the models of the fine-tunings were read, and where settings differ.
fn say_settings(models: &[Model], columns: &[String], glue: &[&str], notes: &mut Vec<String>) {
    let tasks: BTreeSet<&str> = columns.iter().flat_map(|column| atoms(column, glue)).filter(|t| is_tuned(t)).collect();
    let mut by_key: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    let mut seeds: BTreeSet<usize> = BTreeSet::new();
    for model in models {
        for task in &tasks {
            let all = model.of(task, None);
            seeds.extend((!all.is_empty()).then_some(all.len()));
            for (key, value) in all.iter().flat_map(|result| &result.settings) {
                by_key.entry((task, key)).or_default().insert(value);
            }
        }
    }
    if seeds.is_empty() {
        return;
    }
    let seeds: Vec<String> = seeds.iter().map(usize::to_string).collect();
    let mut line = format!(
        "glue is fine-tuned, and the same in every backend's row; fine-tuning seeds a task: {}",
        seeds.join(", ")
    );
    for key in ["read", "vector", "select"] {
        let values: BTreeSet<&str> =
            by_key.iter().filter(|((_, k), _)| *k == key).flat_map(|(_, v)| v).copied().collect();
        if !values.is_empty() {
            line += &format!("; {key}: {}", values.into_iter().collect::<Vec<_>>().join(", "));
        }
    }
    notes.push(line);
    for ((task, key), values) in by_key.iter().filter(|(_, values)| values.len() > 1) {
        let values: Vec<&str> = values.iter().copied().collect();
        notes.push(format!("{task}: fine-tuned with different settings: {key} {}", values.join(", ")));
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
