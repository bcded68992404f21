//! `antlm info`: what a run has done so far.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;

use crate::args;
use crate::output::{grouped, table};
use crate::progress::duration;

pub fn run(args: &args::Info, out: &mut impl Write) -> Result<()> {
    let info = antlm::train::info::read(&args.run)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&info)?)?;
        return Ok(());
    }
    if let Some(from) = &info.imported {
        writeln!(out, "imported    {from} ({})", info.schedule)?;
        writeln!(out, "parameters  {}", grouped(info.parameters))?;
        return Ok(());
    }
    let state = if info.finished { "finished" } else { "not finished" };
    writeln!(out, "recipe      {} ({}), seed {}", info.recipe, info.schedule, info.seed)?;
    writeln!(out, "parameters  {}", grouped(info.parameters))?;
    writeln!(out, "steps       {} of {}, {state}", grouped(info.step), grouped(info.steps))?;
    writeln!(out, "words seen  {} of {}", grouped(info.words_seen), grouped(info.words))?;
    if let Some(time) = &info.time {
        let percent = 100.0 * time.saving / time.seconds.max(1e-9);
        writeln!(out, "time        {}, {percent:.2} % of it saving", duration(Duration::from_secs_f64(time.seconds)))?;
    }
    for (objective, loss) in &info.training_loss {
        writeln!(out, "last loss   {loss:.4} ({objective}, training)")?;
    }
    if !info.dev.is_empty() {
        writeln!(out, "\ndev loss (nats per target)")?;
        let row = |dev: &antlm::train::info::DevLoss| {
            let moment = serde_json::to_value(dev.at).ok();
            let moment = moment.as_ref().and_then(|m| m.as_str()).unwrap_or_default();
            let mark = if dev.worse_than_unigram { "worse than token frequencies" } else { "" };
            vec![
                grouped(dev.step),
                (dev.block + 1).to_string(),
                moment.to_owned(),
                dev.backend.to_string(),
                format!("{:.4}", dev.loss),
                mark.to_owned(),
            ]
        };
        let rows: Vec<Vec<String>> = info.dev.iter().map(row).collect();
        table(out, &[">step", ">block", "at", "backend", ">loss", ""], &rows)?;
    } else if info.step > 0 {
        writeln!(
            out,
            "\nno dev loss: the text was too small to hold any of it out; train with --dev PATH to have one"
        )?;
    }
    for (count, what) in [(info.skipped, "skipped"), (info.spikes, "trained on though the loss leapt")] {
        if count > 0 {
            let steps = if count == 1 { "step was" } else { "steps were" };
            writeln!(out, "\n{} {steps} {what}; log.jsonl says which", grouped(count))?;
        }
    }
    if !info.checkpoints.is_empty() {
        writeln!(out, "\ncheckpoints")?;
        for saved in &info.checkpoints {
            let mark = match saved.kept {
                Some(true) => "  (kept: end of a block)",
                Some(false) => "",
                None => "  (damaged: its state.json cannot be read)",
            };
            writeln!(out, "{}{mark}", saved.folder)?;
        }
    } else if !info.finished {
        writeln!(out, "\nno checkpoint yet")?;
    }
    if !info.finished {
        writeln!(out, "\ngo on with: antlm train --resume {}", args.run.display())?;
    }
    Ok(())
}
