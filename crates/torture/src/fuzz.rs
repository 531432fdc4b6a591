//! Damaged and hostile bytes for everything that parses files which others wrote.

use ::fuzz::{Outcome as Fuzzed, TARGETS, Target};
use anyhow::Result;

use crate::item::{Item, Outcome, Scale};

/// Targets of which a case takes ten times as long as one of the others.
const SLOW: [&str; 12] =
    ["fer2013", "study", "model", "checkpoint", "safetensors", "npz", "npy", "pth", "pickle", "png", "jpeg", "bmp"];

pub fn run(scale: Scale, seed: u64) -> Result<Outcome> {
    let mut outcome = Outcome::new(Item::Fuzz);
    let folder = tempfile::tempdir()?;
    for target in TARGETS {
        add(&mut outcome, target, ::fuzz::replay(target)?);
        add(&mut outcome, target, ::fuzz::run(target, cases(target, scale), seed, folder.path())?);
    }
    outcome.counts.insert("parsers", TARGETS.len() as u64);
    if !outcome.failures.is_empty() {
        // The inputs that failed are worth keeping.
        let kept = folder.keep();
        outcome.failures.push(format!("the inputs are in `{}`", kept.display()));
    }
    Ok(outcome)
}

fn cases(target: &Target, scale: Scale) -> u64 {
    match SLOW.contains(&target.name) {
        true => scale.pick(2_000, 250_000) as u64,
        false => scale.pick(20_000, 800_000) as u64,
    }
}

fn add(outcome: &mut Outcome, target: &Target, Fuzzed { cases, failures }: Fuzzed) {
    outcome.cases += cases as usize;
    let failed = failures.into_iter().map(|failure| {
        let (place, message, input) = (failure.place, failure.message, failure.input.display());
        format!("{}: {} cases at {place}: {message} (`{input}`)", target.name, failure.cases)
    });
    outcome.failures.extend(failed);
}
