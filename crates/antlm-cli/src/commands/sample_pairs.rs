//! `antlm sample-pairs`: minimal pairs of the built-in grammar, in BLiMP's format.

use std::io::Write;

use antlm::text::sample::pairs;
use anyhow::Result;

use crate::args::SamplePairs;

pub fn run(args: &SamplePairs, out: &mut impl Write) -> Result<()> {
    let all = pairs::make(args.per_phenomenon, args.seed);
    pairs::save(&all, &args.out)?;
    for (uid, pairs) in pairs::phenomena().zip(&all) {
        writeln!(out, "{}: {} pairs", args.out.join(uid).with_extension("jsonl").display(), pairs.len())?;
    }
    Ok(())
}
