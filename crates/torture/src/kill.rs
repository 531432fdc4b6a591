//! Processes killed with SIGKILL at random moments.

use std::{
    fs,
    process::Child,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stage::TEMPORARY_PREFIX;

use crate::{
    item::{Item, Outcome, Scale},
    victim::{OVERRIDES, Victim},
};

/// Kills before a command may run to its end.
const KILLS_PER_COMMAND: usize = 3;

/// Commands and their binaries.
const COMMANDS: [(&str, &str); 3] = [("extract", "extract"), ("train", "train"), ("study", "fmstudy")];

pub fn run(scale: Scale, seed: u64) -> Result<Outcome> {
    let wanted = scale.pick(18, 200);
    let mut outcome = Outcome::new(Item::Kill);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let victim = Victim::new()?;
    while outcome.cases < wanted {
        victim.reset()?;
        for (command, binary) in COMMANDS {
            // How long it takes is known after the first time.
            let mut longest = Duration::from_millis(1500);
            for _ in 0..KILLS_PER_COMMAND {
                if outcome.cases >= wanted {
                    break;
                }
                let while_writing = outcome.cases.is_multiple_of(2);
                let begun = Instant::now();
                let arguments = if command == "study" { vec!["study"] } else { Vec::new() };
                let child = victim.study.spawn(binary, &[arguments.as_slice(), &OVERRIDES].concat());
                let killed = if while_writing {
                    kill_while_writing(child, random.random_range(0..6))?
                } else {
                    kill_after(child, longest.mul_f64(random.random_range(0.0..1.0)))?
                };
                if !killed {
                    longest = begun.elapsed();
                    outcome.count("finished before they could be killed");
                    break;
                }
                outcome.count(if while_writing { "while writing" } else { "at any moment" });
                outcome.case(format!("after a killed {command}"), victim.require_sound());
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

/// Kills `child` after `pause`; false if it has ended by then.
fn kill_after(mut child: Child, pause: Duration) -> Result<bool> {
    sleep(pause);
    kill(&mut child)
}

/// Kills `child` while it has an unfinished file open, after it has finished `skipped` of them; false if it ended before.
fn kill_while_writing(mut child: Child, skipped: usize) -> Result<bool> {
    let (mut seen, mut last) = (0, None);
    loop {
        if child.try_wait()?.is_some() {
            return Ok(false);
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

fn kill(child: &mut Child) -> Result<bool> {
    let ended = child.try_wait()?.is_some();
    if !ended {
        child.kill()?;
        child.wait()?;
    }
    Ok(!ended)
}

/// Name of an unfinished file that the process has open.
fn open_unfinished(process: u32) -> Option<String> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.map(|target| target.to_string_lossy().into_owned()).find(|target| target.contains(TEMPORARY_PREFIX))
}
