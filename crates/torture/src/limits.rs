//! What a machine has too little of: disk, permission, file descriptors; and a shard that is cut while it is read.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use harness::{exists_below, files_below};

use crate::{
    item::{Item, Outcome},
    victim::{OVERRIDES, STAGES, Victim, require_clear_failure, require_success},
};

/// Room that the extraction wants to see before it begins, and a little more.
const DISK_BYTES: u64 = 96 << 20;

pub fn run() -> Result<Outcome> {
    let mut outcome = Outcome::new(Item::Limits);
    let victim = Victim::new()?;
    if let Some(disk) = SmallDisk::mount(&victim.study.path("cache"))? {
        for left in [0, 4 << 10, 64 << 10, 512 << 10, 1 << 20] {
            outcome.met_case(format!("a disk with {left} bytes left"), full_disk(&victim, &disk, left));
        }
        outcome.case("a disk that fills up while shards are written", filling_disk(&victim, &disk));
    } else {
        outcome.skipped.push("full disks: this user may not mount a file system".to_owned());
    }
    victim.reset()?;
    for descriptors in 6..=10 {
        outcome.met_case(format!("{descriptors} file descriptors"), few_descriptors(&victim, descriptors));
    }
    for mib in [64, 128, 192, 256, 384, 512] {
        outcome.met_case(format!("{mib} MiB of memory"), little_memory(&victim, mib));
    }
    outcome.case("a shard cut while it is read", cut_shard(&victim));
    match without_power_over_folders()? {
        Some(powerless) => outcome.case("a folder that may not be written", read_only(&victim, powerless)),
        None => outcome.skipped.push("a folder that may not be written: this user may write anywhere".to_owned()),
    }
    Ok(outcome)
}

/// A small file system at a folder.
struct SmallDisk<'a> {
    folder: &'a Path,
}

impl<'a> SmallDisk<'a> {
    /// None if this user may not mount one.
    fn mount(folder: &'a Path) -> Result<Option<Self>> {
        fs_err::create_dir_all(folder)?;
        let size = format!("size={DISK_BYTES}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
        Ok(mount.is_ok_and(|output| output.status.success()).then_some(Self { folder }))
    }

    fn filler(&self) -> std::path::PathBuf {
        self.folder.join("filler")
    }

    /// Fills it but for `left` bytes.
    fn fill(&self, left: u64) -> Result<()> {
        let output = Command::new("df").args(["--output=avail", "-B1"]).arg(self.folder).output()?;
        let text = String::from_utf8(output.stdout)?;
        let available: u64 = text.lines().nth(1).context("df says nothing")?.trim().parse()?;
        let output = Command::new("fallocate")
            .arg("-l")
            .arg((available.saturating_sub(left)).max(1).to_string())
            .arg(self.filler())
            .output()?;
        require_success("fallocate", &output)
    }

    fn empty(&self) -> Result<()> {
        for entry in fs_err::read_dir(self.folder)? {
            let path = entry?.path();
            if path.is_dir() { fs_err::remove_dir_all(path)? } else { fs_err::remove_file(path)? }
        }
        Ok(())
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Somebody may just be looking into it. Left mounted it would be in the way of removing the study's folder.
        for _ in 0..50 {
            if Command::new("umount").arg(self.folder).output().is_ok_and(|output| output.status.success()) {
                break;
            }
            sleep(Duration::from_millis(100));
        }
    }
}

/// Each stage in turn finds the disk full, says so, and goes on when there is room again. Gives whether one met the end of it.
fn full_disk(victim: &Victim, disk: &SmallDisk<'_>, left: u64) -> Result<bool> {
    let mut is_met = false;
    disk.empty()?;
    for stage in STAGES {
        disk.fill(left)?;
        let output = victim.output(stage);
        fs_err::remove_file(disk.filler())?;
        if !output.status.success() {
            // The extraction asks before it begins.
            require_clear_failure(stage, &output, &["No space left on device", "B free"])?;
            victim.require_sound()?;
            is_met = true;
        }
        require_success(stage, &victim.output(stage))?;
    }
    victim.require_same()?;
    Ok(is_met)
}

/// The extraction finds room at its beginning, and none any more in its midst.
fn filling_disk(victim: &Victim, disk: &SmallDisk<'_>) -> Result<()> {
    disk.empty()?;
    let mut command = victim.study.command("extract", &OVERRIDES);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    while !exists_below(disk.folder, "00000.record.json") {
        sleep(Duration::from_millis(1));
    }
    disk.fill(0)?;
    let output = child.wait_with_output()?;
    require_clear_failure("extract", &output, &["No space left on device"])?;
    fs_err::remove_file(disk.filler())?;
    victim.require_sound()?;
    victim.finish()
}

/// The stages work with few descriptors, or say that they have too few. Gives whether one did.
fn few_descriptors(victim: &Victim, descriptors: usize) -> Result<bool> {
    let mut is_met = false;
    for stage in STAGES {
        let output = in_shell(victim, stage, &format!("ulimit -n {descriptors}"))?;
        // The loader of programs says it in its own words, and with its own code.
        let told = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && !told.contains("error while loading shared libraries") {
            require_clear_failure(stage, &output, &["Too many open files"])?;
            is_met = true;
        }
        victim.require_sound()?;
        require_success(stage, &victim.output(stage))?;
    }
    victim.finish()?;
    Ok(is_met)
}

/// The stages work with little memory, or say that they have too little; nothing that was done is lost by it. Gives whether
/// one said so.
fn little_memory(victim: &Victim, mib: usize) -> Result<bool> {
    let mut is_met = false;
    /// The allocator's words, the system's, also for a thread that it cannot start, and those of the loader of programs.
    const WORDS: [&str; 5] = [
        "memory allocation of",
        "out of memory",
        "Cannot allocate memory",
        "Resource temporarily unavailable",
        "failed to map segment",
    ];
    for stage in STAGES {
        let output = in_shell(victim, stage, &format!("ulimit -v {}", mib << 10))?;
        let told = String::from_utf8_lossy(&output.stderr);
        // There is no way back from an allocation that fails: the process ends itself with a signal.
        ensure!(
            output.status.success() || WORDS.iter().any(|words| told.contains(words)),
            "{stage} fails without a word of memory: {} {told}",
            output.status
        );
        is_met |= !output.status.success();
        victim.require_sound()?;
        require_success(stage, &victim.output(stage))?;
    }
    victim.finish()?;
    Ok(is_met)
}

/// A stage behind a command of the shell that changes its limits.
fn in_shell(victim: &Victim, stage: &str, before: &str) -> Result<Output> {
    let command = victim.study.command(stage, &OVERRIDES);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{before}; exec \"$@\"")).arg("sh").arg(command.get_program()).args(command.get_args());
    shell.current_dir(command.get_current_dir().context("a command has its folder")?);
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ok(shell.output()?)
}

/// Training whose shard becomes shorter under its hands ends with an error that names it, not with a signal.
fn cut_shard(victim: &Victim) -> Result<()> {
    require_success("extract", &victim.output("extract"))?;
    let shard = victim.study.features().join("fm3/00001.safetensors");
    let sound = fs_err::read(&shard)?;
    let long = [&OVERRIDES[..], &["combo=fm3", "seed=7", "recipe.steps=100000", "train.validate_every=0"]].concat();
    let child = victim.study.command("train", &long).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let runs = victim.study.path("cache/faces/runs-v2/fm3");
    let is_under_way =
        |path: &PathBuf| path.ends_with("checkpoint.safetensors") && path.to_string_lossy().contains("/seed7-");
    while !(runs.is_dir() && files_below(&runs).iter().any(is_under_way)) {
        sleep(Duration::from_millis(2));
    }
    fs_err::OpenOptions::new().write(true).open(&shard)?.file().set_len(sound.len() as u64 / 2)?;
    let output = child.wait_with_output()?;
    require_clear_failure("train", &output, &["00001.safetensors` is damaged: it has become shorter"])?;
    victim.require_made_anew(&shard, &sound)?;
    // The long run is no part of what the study is compared with.
    for run in fs_err::read_dir(victim.study.path("cache/faces/runs-v2/fm3"))? {
        let run = run?.path();
        if run.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed7-")) {
            fs_err::remove_dir_all(run)?;
        }
    }
    victim.finish()
}

/// A cache that may not be written is refused where it would be, and read where reading is enough.
fn read_only(victim: &Victim, powerless: &str) -> Result<()> {
    let cache = victim.study.path("cache");
    victim.reset()?;
    for (at, stage) in STAGES.iter().enumerate() {
        require_success(stage, &victim.output(stage))?;
        chmod(&cache, "a-w")?;
        let looked = in_shell(victim, "fmstudy", &format!("{powerless} \"$1\" status"))?;
        let next = STAGES.get(at + 1);
        let refused = next.map(|next| in_shell(victim, next, &format!("{powerless} \"$@\""))).transpose()?;
        chmod(&cache, "u+w")?;
        require_success("status", &looked)?;
        if let Some((next, refused)) = next.zip(refused) {
            require_clear_failure(next, &refused, &["Permission denied"])?;
        }
    }
    victim.finish()
}

/// How a shell runs a command that may write to no folder whose permissions forbid it; none if there is no way.
fn without_power_over_folders() -> Result<Option<&'static str>> {
    // Root may write anywhere, unless that power is taken from it.
    const WAYS: [&str; 2] = ["exec", "exec setpriv --bounding-set -dac_override"];
    let folder = tempfile::tempdir()?;
    chmod(folder.path(), "a-w")?;
    let succeeds = |command: String| -> Result<bool> {
        Ok(Command::new("sh").arg("-c").arg(command).current_dir(&folder).output()?.status.success())
    };
    for (number, way) in WAYS.into_iter().enumerate() {
        // A new file each: one's own may be touched anywhere.
        if succeeds(format!("{way} true"))? && !succeeds(format!("{way} touch {number}"))? {
            return Ok(Some(way));
        }
    }
    Ok(None)
}

fn chmod(folder: &Path, mode: &str) -> Result<()> {
    require_success("chmod", &Command::new("chmod").arg("-R").arg(mode).arg(folder).output()?)
}
