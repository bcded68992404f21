//! README.md and docs/: every command of a ```sh block runs, page by page, in a folder that is empty at first; commands
//! that are only shown (other blocks, and `antlm …` in the text) have the subcommand and the options that they name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::common::{antlm, stdout};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// README.md and the pages in docs/: their paths from the root and their texts.
fn pages() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(root().join("docs")).unwrap();
    let names = entries.map(|entry| format!("docs/{}", entry.unwrap().file_name().into_string().unwrap()));
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".md")).collect();
    names.sort();
    names.insert(0, "README.md".into());
    let text = |name: &String| std::fs::read_to_string(root().join(name)).unwrap();
    names.into_iter().map(|name| (name.clone(), text(&name))).collect()
}

/// The lines between fences with their numbers from 1 on, and what stands behind the opening fence. A block between
/// `<!-- NAME:begin -->` and its end is `.ci/run`'s: `ci`.
struct Block<'a> {
    tag: &'a str,
    ci: bool,
    lines: Vec<(usize, &'a str)>,
}

/// A page's blocks, and its other lines.
fn parts(text: &str) -> (Vec<Block<'_>>, Vec<(usize, &str)>) {
    let (mut blocks, mut prose) = (Vec::new(), Vec::new());
    let (mut open, mut ci): (Option<Block>, bool) = (None, false);
    for (number, line) in (1..).zip(text.lines()) {
        match (open.as_mut(), line.strip_prefix("```")) {
            (None, Some(tag)) => open = Some(Block { tag, ci, lines: Vec::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.lines.push((number, line)),
            (None, None) => {
                ci = (ci || line.ends_with(":begin -->")) && !line.ends_with(":end -->");
                prose.push((number, line));
            }
        }
    }
    assert!(open.is_none(), "a block does not end");
    (blocks, prose)
}

/// The commands of a block with the numbers of their first lines: a line, what a `\` at its end joins to it, and a here-
/// document that it opens.
fn commands(block: &Block) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut lines = block.lines.iter();
    while let Some(&(number, line)) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut command = line.to_owned();
        let end = line.split_once("<<'").and_then(|(_, rest)| Some(rest.split_once('\'')?.0));
        while command.ends_with('\\') || end.is_some_and(|end| !command.ends_with(&format!("\n{end}"))) {
            let (_, next) = lines.next().unwrap_or_else(|| panic!("line {number}: the command does not end"));
            command = format!("{command}\n{next}");
        }
        found.push((number, command));
    }
    found
}

/// Runs a page's commands; the first that fails is told with its place and what it printed.
fn run(page: &str, text: &str) -> Result<usize, String> {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_antlm")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut count = 0;
    for block in parts(text).0.iter().filter(|block| block.tag == "sh" && !block.ci) {
        for (line, command) in commands(block) {
            let mut shell = Command::new("sh");
            shell.args(["-c", &command]).current_dir(folder.path()).env("PATH", &path).stdin(Stdio::null());
            let output = shell.output().unwrap();
            if !output.status.success() {
                let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
                return Err(format!("{page}, line {line}: {command}\n{}\n{out}{err}", output.status));
            }
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(unix)] // the pages are written for sh
#[test]
fn every_command_runs() {
    let mut commands = 0;
    for (page, text) in pages() {
        commands += run(&page, &text).unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(commands > 30, "only {commands} commands were found");
}

#[cfg(unix)]
#[test]
fn a_command_that_fails_is_told_with_its_line() {
    let page = "# x\n```sh\necho one   # fine\n# a comment\ncat <<'END' > f\na \\\nEND\n\ngrep -q 'a .' f && echo \\\n  two\n\
                antlm fly\n```\n";
    let error = run("x.md", page).unwrap_err();
    assert!(error.starts_with("x.md, line 11: antlm fly\n") && error.contains("unrecognized subcommand"), "{error}");
    assert_eq!(run("x.md", &page.replace("antlm fly", "antlm recipes")), Ok(4));
    let ci = format!("<!-- main:begin -->\n{page}<!-- main:end -->\n```console\nantlm fly\n```\n");
    assert_eq!(run("x.md", &ci), Ok(0));
}

/// The commands of antlm that a piece of text shows: `antlm …` or `cargo run … -- …`, each up to a pipe or a comment.
fn shown(text: &str) -> Vec<&str> {
    text.split(['|', ';', '&'])
        .map(|part| part.trim().trim_start_matches("$ "))
        .filter_map(|part| {
            part.strip_prefix("antlm ")
                .or_else(|| part.strip_prefix("cargo run")?.split_once(" -- ").map(|(_, rest)| rest))
        })
        .map(|command| command.split(" # ").next().unwrap_or(command))
        .collect()
}

/// `--name` of every option in a piece of text.
fn options(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words
        .filter(|word| word.strip_prefix("--").is_some_and(|name| !name.is_empty() && !name.starts_with('-')))
        .collect()
}

#[test]
fn what_is_only_shown_exists() {
    let folder = tempfile::tempdir().unwrap();
    let mut helps: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut checked = 0;
    for (page, text) in pages() {
        let (blocks, prose) = parts(&text);
        let mut texts: Vec<(usize, String)> = Vec::new();
        for block in blocks.iter().filter(|block| ["sh", "console", "text"].contains(&block.tag)) {
            texts.extend(block.lines.iter().map(|&(number, line)| (number, line.to_owned())));
        }
        for (number, line) in prose {
            // Code in the text; in tables a bar is written `\|`.
            texts.extend(line.split('`').skip(1).step_by(2).map(|code| (number, code.replace("\\|", "/"))));
        }
        for (number, text) in &texts {
            for command in shown(text) {
                let name = command.split_whitespace().next().unwrap_or_default();
                if name.starts_with('-') || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
                    continue; // `antlm --version`, `antlm SUBCOMMAND`
                }
                let help = helps.entry(name.to_owned()).or_insert_with(|| {
                    let help = antlm(folder.path(), &[name, "--help"]);
                    help.status.success().then(|| stdout(&help))
                });
                let Some(help) = help else { panic!("{page}, line {number}: antlm has no command {name}") };
                let known = self::options(help);
                for option in self::options(command) {
                    assert!(known.contains(&option), "{page}, line {number}: antlm {name} has no {option}");
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 60, "only {checked} commands were found");
}

/// A page that nobody finds, or a link that leads nowhere.
#[test]
fn pages_are_linked() {
    let all = pages();
    let (_, more) = all[0].1.split_once("\n## More\n").expect("README.md has a section More");
    for (page, text) in &all {
        assert!(page == "README.md" || more.contains(&format!("({page})")), "README.md's More does not link {page}");
        let (_, prose) = parts(text);
        for (number, line) in prose {
            for link in line.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
                let (file, _) = link.split_once('#').unwrap_or((link, ""));
                let there = root().join(page).parent().unwrap().join(file);
                assert!(link.contains("://") || there.exists(), "{page}, line {number}: no file {file}");
            }
        }
    }
}
