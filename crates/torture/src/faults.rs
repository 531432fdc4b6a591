//! System calls that fail from some moment on.

use anyhow::{Result, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    item::{Item, Outcome, Scale},
    strace,
    victim::{OVERRIDES, STAGES, Victim},
};

/// Calls, what they fail with, what is said of it, and from which call on: the loader of the program opens some files first.
const FAULTS: [(&str, &str, &str, std::ops::Range<usize>); 9] = [
    ("fsync,fdatasync", "ENOSPC", "No space left on device", 1..12),
    ("fsync,fdatasync", "EIO", "Input/output error", 1..12),
    ("fsync,fdatasync", "EDQUOT", "quota exceeded", 1..12),
    ("rename,renameat,renameat2", "ENOSPC", "No space left on device", 1..8),
    ("rename,renameat,renameat2", "EACCES", "Permission denied", 1..8),
    ("ftruncate", "EIO", "Input/output error", 1..5),
    ("openat", "EMFILE", "Too many open files", 60..400),
    ("openat", "EACCES", "Permission denied", 60..400),
    ("mkdir,mkdirat", "EROFS", "Read-only file system", 1..4),
];

pub fn run(scale: Scale, seed: u64) -> Result<Outcome> {
    let mut outcome = Outcome::new(Item::Faults);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let victim = Victim::new()?;
    let wanted = scale.pick(36, 400);
    while outcome.cases < wanted {
        victim.reset()?;
        for stage in STAGES {
            for (calls, error, words, moments) in FAULTS {
                if outcome.cases >= wanted || !random.random_bool(0.6) {
                    continue;
                }
                let moment = random.random_range(moments);
                let output = strace::failing(&victim.study.command(stage, &OVERRIDES), calls, error, moment)?;
                let told = String::from_utf8_lossy(&output.stderr).into_owned();
                // Further on than the stage ever comes, or where it may go on without.
                if output.status.success() {
                    outcome.count("not met");
                    continue;
                }
                let name = format!("{stage} with {calls} {error} from call {moment}");
                outcome.case(name, check(&victim, output.status.code(), &told, words));
            }
            victim.output(stage);
        }
        if let Err(error) = victim.finish() {
            outcome.failures.push(format!("after {} faults: {error:#}", outcome.cases));
        }
        outcome.count("studies compared in the end");
    }
    Ok(outcome)
}

/// The failure must be told clearly, and everything that stands under its final name must be whole.
fn check(victim: &Victim, code: Option<i32>, told: &str, words: &str) -> Result<()> {
    ensure!(code == Some(1) && !told.contains("panicked"), "it ended with {code:?}: {told}");
    ensure!(told.contains(words), "it does not say `{words}`: {told}");
    // Hints have commands in the same marks.
    let error = told.split("hint:").next().unwrap_or_default();
    ensure!(error.contains('`'), "it names no file: {told}");
    victim.require_sound()
}
