//! Processes killed with SIGKILL at random moments.

use std::{
    fs,
    path::Path,
    process::{Child, ExitStatus},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stage::TEMPORARY_PREFIX;

use crate::{
    item::{Item, Outcome, Scale},
    victim::{OVERRIDES, Victim, require_success},
};

/// Where Linux shows which files a process has open.
const OPEN_FILES: &str = "/proc/self/fd";

/// Kills before a command may run to its end.
const KILLS_PER_COMMAND: usize = 3;

/// Commands, their binaries, and what is said of how often they were killed.
const COMMANDS: [(&str, &str, &str); 3] =
    [("extract", "extract", "extractions"), ("train", "train", "trainings"), ("study", "fmstudy", "whole studies")];

pub fn run(scale: Scale, seed: u64) -> Result<Outcome> {
    let wanted = scale.pick(18, 200);
    let mut outcome = Outcome::new(Item::Kill);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let sees_open_files = Path::new(OPEN_FILES).is_dir();
    if !sees_open_files {
        outcome.skipped.push(format!("kills while writing: there is no {OPEN_FILES} that tells of it"));
    }
    let victim = Victim::new()?;
    while outcome.cases < wanted {
        victim.reset()?;
        for (command, binary, counted) in COMMANDS {
            // How long it takes is known after the first time.
            let mut longest = Duration::from_millis(1500);
            for _ in 0..KILLS_PER_COMMAND {
                if outcome.cases >= wanted {
                    break;
                }
                let while_writing = sees_open_files && outcome.cases.is_multiple_of(2);
                let begun = Instant::now();
                let arguments = if command == "study" { vec!["study"] } else { Vec::new() };
                let child = victim.study.spawn(binary, &[arguments.as_slice(), &OVERRIDES].concat());
                let ended = if while_writing {
                    kill_while_writing(child, random.random_range(0..6))?
                } else {
                    kill_after(child, longest.mul_f64(random.random_range(0.0..1.0)))?
                };
                if let Some(status) = ended {
                    longest = begun.elapsed();
                    outcome.count("finished before they could be killed");
                    if !status.success() {
                        outcome.failures.push(format!("{command}, not killed, ended with {status}"));
                    }
                    break;
                }
                outcome.count(match (while_writing, victim.has_written()) {
                    (true, _) => "while writing",
                    (false, true) => "at any moment",
                    (false, false) => "before anything was written",
                });
                outcome.case(format!("after a killed {command}"), victim.require_sound());
                outcome.count(counted);
            }
            // Without features training would end by itself.
            if command == "extract" {
                require_success(command, &victim.output(binary))?;
            }
        }
        let finished = victim.finish();
        if let Err(error) = finished {
            outcome.failures.push(format!("after {} kills: {error:#}", outcome.cases));
        }
        outcome.count("studies compared in the end");
    }
    Ok(outcome)
}

/// Kills `child` after `pause`; how it ended if it has by then.
fn kill_after(mut child: Child, pause: Duration) -> Result<Option<ExitStatus>> {
    sleep(pause);
    kill(&mut child)
}

/// Kills `child` while it has an unfinished file open, after it has finished `skipped` of them; how it ended if it did before.
fn kill_while_writing(mut child: Child, skipped: usize) -> Result<Option<ExitStatus>> {
    let (mut seen, mut last) = (0, None);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let unfinished = open_unfinished(child.id());
        if unfinished.is_some() && unfinished != last {
            if seen == skipped {
                return kill(&mut child);
            }
            seen += 1;
        }
        last = unfinished;
    }
}

/// Kills `child`; how it ended if it had.
fn kill(child: &mut Child) -> Result<Option<ExitStatus>> {
    let ended = child.try_wait()?;
    if ended.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(ended)
}

/// Name of an unfinished file that the process has open.
fn open_unfinished(process: u32) -> Option<String> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.map(|target| target.to_string_lossy().into_owned()).find(|target| target.contains(TEMPORARY_PREFIX))
}
