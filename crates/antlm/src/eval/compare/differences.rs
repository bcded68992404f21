//! Paired differences of a table's rows: every task's scores on items drawn anew, combined as the scores themselves are.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Difference, Options, Shown, atoms, combined, is_tuned, mean};
use crate::eval::bootstrap::{self, Group};
use crate::eval::results::TaskResult;
use crate::objective::Backend;
use crate::{Error, Result};

/// Scores on items drawn anew, `[RESAMPLES]`, by task, run and backend.
type Drawn<'a> = BTreeMap<(&'a str, &'a Path, Option<Backend>), Vec<f64>>;

/// The differences of every row but the first: of each column that both rows have.
///
/// # Errors
/// [`Error::Usage`] for an `--against` that is not there, and results that are not of the same items.
pub(super) fn find(
    rows: &[Shown],
    tasks: &[&str],
    options: &Options,
    columns: &[String],
    glue: &[&str],
) -> Result<Vec<Difference>> {
    let base: Vec<usize> = match &options.against {
        None => (0..rows.len()).filter(|&i| rows[i].0.model == rows[0].0.model).collect(),
        Some(path) => (0..rows.len()).filter(|&i| rows[i].0.runs.contains(path)).collect(),
    };
    let Some(&first) = base.first() else {
        let asked = options.against.as_deref().unwrap_or(Path::new("")).display();
        return Err(Error::Usage(format!("--against {asked}: not one of the runs that are compared")));
    };
    if rows.len() < 2 {
        return Ok(Vec::new());
    }
    let drawn = drawn(rows, tasks)?;
    let mut found = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        // The base's row that is read in the same way, if there is one.
        let other = base.iter().copied().find(|&i| rows[i].0.backend == row.0.backend && !base.contains(&index));
        let other = &rows[other.unwrap_or(first)];
        if index == first {
            continue;
        }
        for column in columns {
            let cells = [row, other].map(|row| row.0.cells.get(column).and_then(Option::as_ref));
            let [Some(own), Some(its)] = cells else { continue };
            // How a model is read is of no matter to what was fine-tuned: the same numbers twice.
            if row.0.model == other.0.model && atoms(column, glue).iter().all(|task| is_tuned(task)) {
                continue;
            }
            let over = if row.1.len().max(other.1.len()) > 1 { "items and seeds" } else { "items" };
            let interval =
                of_row(row, column, glue, &drawn).zip(of_row(other, column, glue, &drawn)).map(|(own, its)| {
                    let [a, b] = [(&row.0.model, &own), (&other.0.model, &its)]
                        .map(|(name, scores)| Group { name, scores: scores.iter().map(Vec::as_slice).collect() });
                    bootstrap::interval(&bootstrap::differences(&a, &b))
                });
            found.push(Difference {
                model: row.0.model.clone(),
                backend: row.0.backend,
                against: other.0.model.clone(),
                against_backend: other.0.backend,
                column: column.clone(),
                difference: own.score - its.score,
                interval,
                over,
            });
        }
    }
    Ok(found)
}

/// Draws every task's items anew, for all models and backends at once: the same items for all of them.
fn drawn<'a>(rows: &'a [Shown], tasks: &[&'a str]) -> Result<Drawn<'a>> {
    let mut drawn = Drawn::new();
    for &task in tasks {
        // A fine-tuned task stands in several rows of a model, and counts once.
        let mut places: BTreeMap<(&Path, Option<Backend>), &[TaskResult]> = BTreeMap::new();
        for (row, members) in rows {
            let backend = if is_tuned(task) { None } else { row.backend };
            places.extend(members.iter().map(|model| ((model.path.as_path(), backend), model.of(task, backend))));
        }
        let all: Vec<&TaskResult> = places.values().flat_map(|results| results.iter()).collect();
        let Some(scores) = bootstrap::scores(&all)? else { continue };
        let mut scores = scores.into_iter();
        for ((path, backend), results) in places {
            // Of several seeds of a fine-tuning, their mean.
            let own: Vec<Vec<f64>> = scores.by_ref().take(results.len()).collect();
            if !own.is_empty() {
                drawn.insert((task, path, backend), mean(&own));
            }
        }
    }
    Ok(drawn)
}

/// A row's scores of a column, `[models][RESAMPLES]`; nothing where a task of it cannot be drawn.
fn of_row(row: &Shown, column: &str, glue: &[&str], drawn: &Drawn) -> Option<Vec<Vec<f64>>> {
    let of_model = |path: &Path| {
        let of = |task: &str| {
            let backend = if is_tuned(task) { None } else { row.0.backend };
            drawn.get(&(task, path, backend)).cloned()
        };
        combined(column, glue, &of)
    };
    row.1.iter().map(|model| of_model(&model.path)).collect()
}
