//! Values that are not finite, in features and in training.

use anyhow::{Context as _, Result, ensure};
use harness::files_below;

use crate::{
    item::{Item, Outcome},
    victim::{OVERRIDES, Victim, require_clear_failure, require_success},
};

/// f16 numbers that are none, little-endian.
const POISONS: [(&str, [u8; 2]); 3] = [("NaN", [0x00, 0x7e]), ("inf", [0x00, 0x7c]), ("-inf", [0x00, 0xfc])];

pub fn run() -> Result<Outcome> {
    let mut outcome = Outcome::new(Item::Poison);
    let victim = Victim::new()?;
    require_success("extract", &victim.output("extract"))?;
    for (name, bytes) in POISONS {
        outcome.case(format!("{name} in a shard"), poisoned_shard(&victim, name, bytes));
    }
    outcome.case("in the end", victim.finish());
    outcome.case("a learning rate that no weight survives", exploding(&victim));
    outcome.case("the other runs stand", victim.finish());
    Ok(outcome)
}

/// A value in the middle of a shard is replaced behind the program's back; the step that meets it says whose it is.
fn poisoned_shard(victim: &Victim, name: &str, poison: [u8; 2]) -> Result<()> {
    let shard = victim.study.features().join("fm3/00000.safetensors");
    let (sound, modified) = (fs_err::read(&shard)?, fs_err::metadata(&shard)?.modified()?);
    let mut bytes = sound.clone();
    let middle = bytes.len() / 4 * 2;
    bytes[middle..middle + 2].copy_from_slice(&poison);
    fs_err::write(&shard, &bytes)?;
    fs_err::OpenOptions::new().write(true).open(&shard)?.file().set_modified(modified)?;

    let output = victim.study.output("train", &[&OVERRIDES[..], &["combo=fm3"]].concat());
    require_clear_failure("train", &output, &[&format!("holds {name}")])?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(told.contains("fm3 of image `FER2013Train/") && told.contains("in batch "), "no image is named: {told}");
    // It is found, and its shard alone is made anew.
    let verified = victim.study.output("fmstudy", &[&["verify"], &OVERRIDES[..]].concat());
    ensure!(!verified.status.success(), "verify finds nothing");
    let extracted = victim.study.json("extract", &OVERRIDES);
    ensure!(extracted["shards_written"] == 1, "more than the damaged shard is made anew: {extracted}");
    ensure!(fs_err::read(&shard)? == sound, "the shard is not what it was");
    Ok(())
}

/// Training stops at the step; the last checkpoint before stays.
fn exploding(victim: &Victim) -> Result<()> {
    let output = victim
        .study
        .output("train", &[&OVERRIDES[..], &["combo=fm3", "recipe.lr=1e30", "train.checkpoint_every=1"]].concat());
    require_clear_failure("train", &output, &["is NaN", "is inf"])?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(told.contains("at step ") && told.contains("its images are "), "step and images are not named: {told}");
    let runs = files_below(&victim.study.path("cache")).into_iter();
    let mut exploded =
        runs.filter(|path| path.ends_with("metrics.jsonl") && !path.with_file_name("train.json").exists());
    let folder = exploded.next_back().context("there is no trace of the run")?;
    fs_err::remove_dir_all(folder.parent().context("a run has a folder")?)?;
    Ok(())
}
