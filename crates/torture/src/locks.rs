//! Two processes on one cache: kept apart where they would collide, side by side where they would not.

use std::{
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Result, ensure};
use harness::exists_below;
use serde_json::Value;

use crate::{
    item::{Item, Outcome, Scale},
    victim::{OVERRIDES, Victim, require_clear_failure, require_success},
};

pub fn run(scale: Scale) -> Result<Outcome> {
    let mut outcome = Outcome::new(Item::Locks);
    let victim = Victim::new()?;
    for _ in 0..scale.pick(2, 30) {
        victim.reset()?;
        let looks = readers_beside_an_extraction(&victim);
        *outcome.counts.entry("looks while it was written").or_default() += looks.as_ref().map_or(0, |looks| *looks);
        outcome.case("readers beside an extraction", looks.map(|_| ()));
        victim.reset()?;
        let mut together = |name, stage, first_file, more: &[&str]| {
            let told = two_at_once(&victim, stage, first_file, more);
            *outcome.counts.entry("told of the other").or_default() += told.as_ref().map_or(0, |told| *told);
            outcome.case(name, told.map(|_| ()));
        };
        together("two extractions", "extract", "/plan", &[]);
        require_success("extract", &victim.output("extract"))?;
        together("two trainings of one run", "train", "/fingerprint.json", &["combo=fm3"]);
        outcome.case("two trainings of different runs", side_by_side(&victim));
        outcome.case("a lock of a dead process", dead_lock(&victim));
        outcome.case("in the end", victim.finish());
    }
    Ok(outcome)
}

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [OVERRIDES.as_slice(), more].concat()
}

fn start(victim: &Victim, stage: &str, more: &[&str]) -> Result<Child> {
    let mut command = victim.study.command(stage, &arguments(more));
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

fn outputs(children: [Child; 2]) -> Result<[Output; 2]> {
    let [one, other] = children;
    Ok([one.wait_with_output()?, other.wait_with_output()?])
}

/// Two processes that would write the same. The first is halted when it has written the `first_file` behind its lock, so that the
/// second is told who is there; if the first was done before it could be halted, both succeed. Gives how many were told.
fn two_at_once(victim: &Victim, stage: &str, first_file: &str, more: &[&str]) -> Result<u64> {
    let mut first = start(victim, stage, more)?;
    while first.try_wait()?.is_none() && !exists_below(&victim.study.path("cache/faces"), first_file) {
        sleep(Duration::from_millis(1));
    }
    signal("STOP", &first)?;
    let second = start(victim, stage, more)?.wait_with_output();
    signal("CONT", &first)?;
    let outputs = [first.wait_with_output()?, second?];
    ensure!(outputs.iter().any(|output| output.status.success()), "neither {stage} succeeded");
    for output in outputs.iter().filter(|output| !output.status.success()) {
        require_clear_failure(stage, output, &["is in use by process", "is being read by another process"])?;
    }
    victim.require_sound()?;
    Ok(outputs.iter().filter(|output| !output.status.success()).count() as u64)
}

/// Sends a signal to a process, which may have ended.
fn signal(name: &str, to: &Child) -> Result<()> {
    Command::new("kill").args(["-s", name, &to.id().to_string()]).stderr(Stdio::null()).status()?;
    Ok(())
}

/// Two trainings that share the features only.
fn side_by_side(victim: &Victim) -> Result<()> {
    let more = [["seed=1", "combo=fm3"], ["seed=1", "combo=orig+fm4"]];
    for output in outputs([start(victim, "train", &more[0])?, start(victim, "train", &more[1])?])? {
        require_success("train beside another", &output)?;
    }
    // They are no part of what the study is compared with.
    for more in more {
        let report = victim.study.json("train", &arguments(&more));
        let folder = report["runs"][0]["folder"].as_str().unwrap_or_default();
        fs_err::remove_dir_all(victim.study.path(folder))?;
    }
    Ok(())
}

/// `status` never calls fresh what is still being written, and never fails. Gives how often it looked.
fn readers_beside_an_extraction(victim: &Victim) -> Result<u64> {
    let mut extraction = start(victim, "extract", &[])?;
    let (mut looks, mut called_fresh) = (0, None);
    while extraction.try_wait()?.is_none() {
        let status = victim.look(&["status", "--json"]);
        require_success("status", &status)?;
        let status: Value = serde_json::from_slice(&status.stdout)?;
        looks += 1;
        if status["extract"]["state"] == "fresh" {
            called_fresh = Some(victim.study.feature_files());
            break;
        }
    }
    require_success("extract beside readers", &extraction.wait_with_output()?)?;
    // The process may take a moment to end when all is written; then it writes no more.
    let is_same = called_fresh.is_none_or(|files| files == victim.study.feature_files());
    ensure!(is_same, "status calls fresh what is being extracted");
    victim.require_sound()?;
    Ok(looks)
}

/// A process that died left its number in the lock, or one that is another's by now.
fn dead_lock(victim: &Victim) -> Result<()> {
    let mut dead = Command::new("true").spawn()?;
    dead.wait()?;
    for process in [dead.id(), std::process::id()] {
        fs_err::write(victim.study.features().join(".lock"), format!("{process}\n"))?;
        require_success("extract behind a dead lock", &victim.output("extract"))?;
        require_success("train behind a dead lock", &victim.output("train"))?;
    }
    Ok(())
}
