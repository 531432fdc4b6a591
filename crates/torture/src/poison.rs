//! Values that are not finite, in features and in training.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use harness::{SHARD_IMAGES, files_below, write_unnoticed};
use sources::Source;

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
    let shard = victim.study.features().join("fm3/00000.safetensors");
    let sound = fs_err::read(&shard)?;
    for (name, bytes) in POISONS {
        outcome.case(format!("{name} in a shard"), poisoned_shard(&victim, &shard, name, bytes));
        // Whatever became of it: the next begins with a sound one, whose hash is known.
        fs_err::write(&shard, &sound)?;
        require_success("extract", &victim.output("extract"))?;
    }
    outcome.case("in the end", victim.finish());
    outcome.case("a learning rate that no weight survives", exploding(&victim));
    outcome.case("the other runs stand", victim.finish());
    Ok(outcome)
}

/// A value of one image is replaced behind the program's back; the step that meets it says whose it is, and the checkpoint
/// before it stays.
fn poisoned_shard(victim: &Victim, shard: &Path, name: &str, poison: [u8; 2]) -> Result<()> {
    let sound = fs_err::read(shard)?;
    let image_bytes = Source::Fm3.values_per_image() * size_of_val(&poison);
    // Images that have a label are drawn in the first epoch's three steps; one that is drawn in the third comes behind the
    // checkpoint of the second.
    let mut behind = None;
    for back in 0..SHARD_IMAGES {
        let mut bytes = sound.clone();
        let place = sound.len() - back * image_bytes - image_bytes / 4 * 2;
        bytes[place..place + poison.len()].copy_from_slice(&poison);
        write_unnoticed(shard, &bytes);
        let output = victim.output_with("train", &["combo=fm3"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if told.contains("the checkpoint of step 2 is kept") {
            behind = Some((output, told));
            break;
        }
        ensure!(output.status.success() || told.contains("no checkpoint had been written"), "{told}");
        forget_run(victim, "fm3")?;
    }
    let (output, told) = behind.context("no image of the shard is drawn behind the first checkpoint")?;
    require_clear_failure("train", &output, &[&format!("holds {name}")])?;
    ensure!(told.contains("fm3 of image `FER2013Train/") && told.contains("in batch "), "no image is named: {told}");
    // It is found, and its shard alone is made anew.
    ensure!(!victim.look(&["verify"]).status.success(), "verify finds nothing");
    victim.require_made_anew(shard, &sound)?;
    // The next training goes on from the checkpoint.
    let trained = victim.study.json("train", &[&OVERRIDES[..], &["combo=fm3"]].concat());
    let resumed_from = &trained["runs"][0]["trained"]["outcome"]["resumed_from"];
    ensure!(*resumed_from == 2, "the checkpoint is not used: {trained}");
    forget_run(victim, "fm3")
}

/// Training stops at the step; the last checkpoint before stays.
fn exploding(victim: &Victim) -> Result<()> {
    let output = victim.output_with("train", &["combo=fm3", "recipe.lr=1e30", "train.checkpoint_every=1"]);
    require_clear_failure("train", &output, &["is NaN", "is inf"])?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(told.contains("at step ") && told.contains("its images are "), "step and images are not named: {told}");
    let runs = files_below(&victim.study.path("cache")).into_iter();
    let mut exploded =
        runs.filter(|path| path.ends_with("metrics.jsonl") && !path.with_file_name("train.json").exists());
    let folder = exploded.next_back().context("there is no trace of the run")?;
    ensure!(folder.with_file_name("checkpoint.safetensors").exists(), "no checkpoint is kept");
    victim.require_sound()?;
    fs_err::remove_dir_all(folder.parent().context("a run has a folder")?)?;
    Ok(())
}

/// Takes the runs of `combination` away.
fn forget_run(victim: &Victim, combination: &str) -> Result<()> {
    Ok(fs_err::remove_dir_all(victim.study.path("cache/faces/runs-v2").join(combination))?)
}
