//! `antlm push`: exported folders to the Hugging Face Hub.

use std::io::Write;

use antlm::hub::push::{Plan, plan};
use anyhow::Result;

use crate::args::Push;
use crate::output::{grouped, table};

pub fn run(args: &Push, out: &mut impl Write) -> Result<()> {
    let plan = plan(&args.dir, &args.repo, args.private)?;
    if args.dry_run {
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&plan)?)?;
        } else if !args.quiet {
            show(&plan, out)?;
        }
        return Ok(());
    }
    if !args.quiet {
        for path in &plan.left_out {
            eprintln!("not uploaded: {}", path.display());
        }
    }
    let commits = upload(&plan, args)?;
    if args.json {
        writeln!(out, "{}", serde_json::json!({"repo": plan.repo, "commits": commits}))?;
    } else if !args.quiet {
        writeln!(out, "{}: {}", plan.repo, commits.join(" "))?;
    }
    Ok(())
}

/// What would be done.
fn show(plan: &Plan, out: &mut impl Write) -> Result<()> {
    let private = if plan.private { ", private if it is made now" } else { "" };
    writeln!(out, "would upload to {}{private}:", plan.repo)?;
    let mut rows = Vec::new();
    for branch in &plan.branches {
        for file in &branch.files {
            rows.push(vec![branch.name.clone(), file.name.clone(), grouped(file.bytes)]);
        }
    }
    table(out, &["branch", "file", ">bytes"], &rows)?;
    for path in &plan.left_out {
        writeln!(out, "not uploaded: {}", path.display())?;
    }
    Ok(())
}

#[cfg(feature = "hub")]
fn upload(plan: &Plan, args: &Push) -> Result<Vec<String>> {
    use antlm::hub::push::{Progress, push};
    use std::sync::Mutex;
    use std::time::Instant;
    /// Seconds between two lines of progress.
    const EVERY: f64 = 2.0;
    let clock = Mutex::new((Instant::now(), Instant::now()));
    let tell = |progress: Progress<'_>| {
        let mut clock = clock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match progress {
            Progress::Branch(branch) => {
                *clock = (Instant::now(), Instant::now());
                let (files, bytes) = (branch.files.len(), grouped(branch.bytes()));
                eprintln!("{}: {files} files, {bytes} bytes", branch.name);
            }
            Progress::Bytes(done, all) if clock.1.elapsed().as_secs_f64() >= EVERY => {
                clock.1 = Instant::now();
                let speed = done as f64 / clock.0.elapsed().as_secs_f64().max(0.1);
                let left = all.saturating_sub(done) as f64 / speed.max(1.0);
                eprintln!("  {} of {} bytes, {:.1} MB/s, {left:.0} s left", grouped(done), grouped(all), speed / 1e6);
            }
            Progress::Bytes(..) => {}
        }
    };
    let quiet = args.quiet;
    Ok(push(plan, &|progress| {
        if !quiet {
            tell(progress);
        }
    })?)
}

#[cfg(not(feature = "hub"))]
fn upload(_: &Plan, args: &Push) -> Result<Vec<String>> {
    let what = "this antlm was built without uploads; build it with `--features hub` (--dry-run needs nothing)";
    Err(antlm::Error::Usage(format!("{}: {what}", args.dir.display())).into())
}
