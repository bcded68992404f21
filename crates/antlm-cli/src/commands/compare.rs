//! `antlm compare`: the table of several runs, as text, Markdown, LaTeX, CSV or JSON.

use std::io::Write;

use antlm::eval::compare::{self, Cell, Comparison, Difference, GLUE, MACRO, Options, Row};
use antlm::eval::zeroshot::Task;
use antlm::objective::Backend;
use anyhow::Result;

use crate::args::{Compare, Format};
use crate::output::table;

/// What stands where nothing is.
const GAP: &str = "–";

pub fn run(args: &Compare, out: &mut impl Write) -> Result<()> {
    let options = Options {
        backends: args.backend.iter().map(|&backend| backend.into()).collect(),
        protocol: args.protocol.to_string(),
        preset: args.preset.clone(),
        checkpoint: args.checkpoint.clone(),
        tasks: args.tasks.clone(),
        limited: args.limited,
        against: args.against.clone(),
    };
    let comparison = compare::runs(&args.runs, &options)?;
    show(&comparison, if args.json { Format::Json } else { args.format }, out)
}

/// Prints a comparison.
pub fn show(comparison: &Comparison, format: Format, out: &mut impl Write) -> Result<()> {
    match format {
        Format::Text => text(comparison, out),
        Format::Markdown => markdown(comparison, out),
        Format::Latex => latex(comparison, out),
        Format::Csv => csv(comparison, out),
        Format::Json => Ok(writeln!(out, "{}", serde_json::to_string(comparison)?)?),
    }
}

/// What a column is called where there is room for it.
fn title(column: &str) -> &str {
    match column {
        GLUE => "GLUE",
        MACRO => "Macro-average",
        name if name == Task::Blimp.name() => "BLiMP",
        name if name == Task::Supplement.name() => "Supplement",
        name if name == Task::Ewok.name() => "EWoK",
        other => other,
    }
}

fn backend(backend: Option<Backend>) -> String {
    backend.map_or(GAP.into(), |backend| backend.to_string())
}

fn seeds(row: &Row) -> String {
    row.runs.len().to_string()
}

/// A score, what it spreads over seeds behind this sign, and a mark for what is not of all items.
fn score(cell: Option<&Cell>, plus_minus: &str) -> String {
    let Some(cell) = cell else { return GAP.into() };
    let mark = if cell.limited { "*" } else { "" };
    match cell.sd {
        Some(sd) => format!("{:.2}{plus_minus}{sd:.2}{mark}", cell.score),
        None => format!("{:.2}{mark}", cell.score),
    }
}

fn of<'a>(row: &'a Row, column: &str) -> Option<&'a Cell> {
    row.cells.get(column).and_then(Option::as_ref)
}

fn sign(difference: &Difference) -> String {
    format!("{:+.2}", difference.difference)
}

fn interval(difference: &Difference) -> String {
    difference.interval.map_or(GAP.into(), |[low, high]| format!("[{low:+.2}, {high:+.2}]"))
}

/// What the numbers are, in one line.
fn said(comparison: &Comparison) -> String {
    let mut checkpoints: Vec<&str> =
        comparison.rows.iter().flat_map(|row| &row.checkpoints).map(String::as_str).collect();
    checkpoints.sort_unstable();
    checkpoints.dedup();
    format!(
        "scores times 100, ± standard deviation over seeds; protocol {}, fine-tuning preset {}; checkpoints: {}",
        comparison.protocol,
        comparison.preset,
        checkpoints.join(", ")
    )
}

const LIMITED: &str = "* not of all items: not a number to report";

fn notes(comparison: &Comparison) -> Vec<&str> {
    let limited = comparison.rows.iter().flat_map(|row| row.cells.values()).flatten().any(|cell| cell.limited);
    limited.then_some(LIMITED).into_iter().chain(comparison.notes.iter().map(String::as_str)).collect()
}

/// The cells of both tables.
fn cells(comparison: &Comparison, plus_minus: &str) -> Vec<Vec<String>> {
    let row = |row: &Row| {
        let own = comparison.columns.iter().map(|column| score(of(row, column), plus_minus));
        [row.model.clone(), backend(row.backend), seeds(row)].into_iter().chain(own).collect()
    };
    comparison.rows.iter().map(row).collect()
}

fn difference_cells(comparison: &Comparison) -> Vec<Vec<String>> {
    let row = |d: &Difference| {
        vec![
            d.model.clone(),
            backend(d.backend),
            d.against.clone(),
            backend(d.against_backend),
            title(&d.column).to_owned(),
            sign(d),
            interval(d),
            if d.interval.is_some() { d.over.into() } else { GAP.into() },
        ]
    };
    comparison.differences.iter().map(row).collect()
}

/// The headings of the differences; `>` before what stands to the right.
const DIFFERENCE: [&str; 8] =
    ["model", "backend", "against", "backend", "task", ">difference", ">95 % interval", "interval over"];

fn heading(comparison: &Comparison) -> Vec<String> {
    let columns = comparison.columns.iter().map(|column| format!(">{}", title(column)));
    ["model", "backend", ">seeds"].map(str::to_owned).into_iter().chain(columns).collect()
}

fn text(comparison: &Comparison, out: &mut impl Write) -> Result<()> {
    let heading = heading(comparison);
    let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
    table(out, &heading, &cells(comparison, " ± "))?;
    writeln!(out, "\n{}", said(comparison))?;
    for note in notes(comparison) {
        writeln!(out, "note: {note}")?;
    }
    if !comparison.differences.is_empty() {
        writeln!(out)?;
        table(out, &DIFFERENCE, &difference_cells(comparison))?;
    }
    Ok(())
}

fn markdown(comparison: &Comparison, out: &mut impl Write) -> Result<()> {
    let heading = heading(comparison);
    let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
    markdown_table(out, &heading, &cells(comparison, " ± "))?;
    writeln!(out, "\n{}\n", markdown_text(&said(comparison)))?;
    for note in notes(comparison) {
        writeln!(out, "- {}", markdown_text(note))?;
    }
    if !comparison.differences.is_empty() {
        writeln!(out)?;
        markdown_table(out, &DIFFERENCE, &difference_cells(comparison))?;
    }
    Ok(())
}

fn markdown_table(out: &mut impl Write, heading: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let names: Vec<&str> = heading.iter().map(|name| name.trim_start_matches('>')).collect();
    writeln!(out, "| {} |", names.join(" | "))?;
    let rules: Vec<&str> = heading.iter().map(|name| if name.starts_with('>') { "---:" } else { "---" }).collect();
    writeln!(out, "| {} |", rules.join(" | "))?;
    for row in rows {
        let row: Vec<String> = row.iter().map(|cell| markdown_text(cell)).collect();
        writeln!(out, "| {} |", row.join(" | "))?;
    }
    Ok(())
}

fn markdown_text(text: &str) -> String {
    text.chars().flat_map(|c| if r"\|*_`<[".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

fn latex(comparison: &Comparison, out: &mut impl Write) -> Result<()> {
    writeln!(out, "% \\usepackage{{booktabs}}")?;
    for line in std::iter::once(&said(comparison)[..]).chain(notes(comparison)) {
        writeln!(out, "% {line}")?;
    }
    let heading = heading(comparison);
    let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
    latex_table(out, &heading, &cells(comparison, " ± "))?;
    if !comparison.differences.is_empty() {
        writeln!(out)?;
        latex_table(out, &DIFFERENCE, &difference_cells(comparison))?;
    }
    Ok(())
}

fn latex_table(out: &mut impl Write, heading: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let columns: String = heading.iter().map(|name| if name.starts_with('>') { 'r' } else { 'l' }).collect();
    let names: Vec<String> = heading.iter().map(|name| latex_text(name.trim_start_matches('>'))).collect();
    writeln!(out, "\\begin{{tabular}}{{{columns}}}\n\\toprule\n{} \\\\\n\\midrule", names.join(" & "))?;
    for row in rows {
        let row: Vec<String> = row.iter().map(|cell| latex_text(cell)).collect();
        writeln!(out, "{} \\\\", row.join(" & "))?;
    }
    writeln!(out, "\\bottomrule\n\\end{{tabular}}")?;
    Ok(())
}

/// Text with what LaTeX would read as commands written out; plus-minus and minus signs in mathematics.
fn latex_text(text: &str) -> String {
    let mut written = String::new();
    let number = text.starts_with(['+', '-']) && text.trim_start_matches(['+', '-']).parse::<f64>().is_ok();
    if number || text.starts_with("[+") || text.starts_with("[-") {
        return format!("${text}$");
    }
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => written.extend(['\\', c]),
            '\\' => written += "\\textbackslash{}",
            '~' => written += "\\textasciitilde{}",
            '^' => written += "\\textasciicircum{}",
            '±' => written += "$\\pm$",
            '–' => written += "--",
            c => written.push(c),
        }
    }
    written
}

/// A line for each row and column: what is not there has no numbers, and what is compared has its difference.
fn csv(comparison: &Comparison, out: &mut impl Write) -> Result<()> {
    writeln!(
        out,
        "model,backend,protocol,preset,checkpoints,seeds,task,score,sd,limited,against,against_backend,difference,low,high,over"
    )?;
    let number = |x: Option<f64>| x.map(|x| x.to_string()).unwrap_or_default();
    for row in &comparison.rows {
        for column in &comparison.columns {
            let cell = of(row, column);
            let difference = comparison
                .differences
                .iter()
                .find(|d| (&d.model, d.backend, &d.column) == (&row.model, row.backend, column));
            let interval = difference.and_then(|d| d.interval);
            let line = [
                row.model.clone(),
                row.backend.map(|b| b.to_string()).unwrap_or_default(),
                comparison.protocol.clone(),
                comparison.preset.clone(),
                row.checkpoints.join(" "),
                seeds(row),
                column.clone(),
                number(cell.map(|cell| cell.score)),
                number(cell.and_then(|cell| cell.sd)),
                cell.map(|cell| cell.limited.to_string()).unwrap_or_default(),
                difference.map(|d| d.against.clone()).unwrap_or_default(),
                difference.and_then(|d| d.against_backend).map(|b| b.to_string()).unwrap_or_default(),
                number(difference.map(|d| d.difference)),
                number(interval.map(|i| i[0])),
                number(interval.map(|i| i[1])),
                interval.and(difference).map(|d| d.over.to_owned()).unwrap_or_default(),
            ];
            writeln!(out, "{}", line.map(|field| quoted(&field)).join(","))?;
        }
    }
    Ok(())
}

/// A field of a CSV file (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(
            latex_text(r"runs\a_b & 5 % {x} ^~"),
            r"runs\textbackslash{}a\_b \& 5 \% \{x\} \textasciicircum{}\textasciitilde{}"
        );
        assert_eq!(
            ["1.00 ± 0.50", GAP, "+1.50", "[-1.00, +2.00]"].map(latex_text),
            ["1.00 $\\pm$ 0.50", "--", "$+1.50$", "$[-1.00, +2.00]$"]
        );
        assert_eq!(markdown_text("a_b|c*"), "a\\_b\\|c\\*");
        assert_eq!(["a,b", "a\"b", "ab"].map(quoted), ["\"a,b\"", "\"a\"\"b\"", "ab"]);
    }
}
