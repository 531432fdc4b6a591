//! Single bytes flipped in files.
//!
//! Half of the flips change a file behind an unchanged size and modification time: `verify` must find those. The others look
//! like any change of a file: the next commands must see them by themselves. Either way the file must be named, and what the
//! program made must be made anew from what is sound, piece by piece.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use harness::{files_below, write_unnoticed};
use rand::{RngExt, SeedableRng, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    item::{Item, Outcome, Scale},
    victim::{STAGES, Victim, require_success},
};

/// What a file is to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It made it and can make it anew.
    Made,
    /// It made it to go on from there: what it leads to is taken away before the flip.
    Checkpoint,
    /// It made it to save time.
    Memo,
    /// It came from elsewhere.
    Given,
}

pub fn run(scale: Scale, seed: u64) -> Result<Outcome> {
    let mut outcome = Outcome::new(Item::Flips);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let victim = Victim::new()?;
    victim.finish()?;
    let groups = groups(&victim);
    for _ in 0..scale.pick(60, 1000) {
        let (what, kind, files) = groups.choose(&mut random).context("there are no files")?;
        let path = files.choose(&mut random).context("there are no files")?;
        let hidden: bool = random.random();
        if *kind == Kind::Checkpoint && !hidden {
            forget_training(path)?;
        }
        let flip = Flip::at(path, random.random(), random.random_range(0..8), hidden)?;
        let name = format!("{what} `{}`, byte {} bit {}, hidden: {hidden}", path.display(), flip.byte, flip.bit);
        outcome.case(name, check(&victim, *kind, &flip));
        outcome.count(what);
        // A finished run needs no checkpoint: a damaged one is told, and stays.
        if *kind == Kind::Given || (*kind == Kind::Checkpoint && hidden) {
            flip.undo()?;
        }
        if let Err(error) = victim.finish() {
            outcome.failures.push(format!("after a flip in `{}`: {error:#}", path.display()));
            victim.reset()?;
            victim.finish()?;
        }
    }
    Ok(outcome)
}

/// The files of a finished study by what they are, so that each kind has the same chance.
fn groups(victim: &Victim) -> Vec<(&'static str, Kind, Vec<PathBuf>)> {
    let ending = |folder: &str, endings: &[&str]| {
        let mut files = files_below(&victim.study.path(folder));
        files.retain(|path| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)));
        files
    };
    let made = |what, endings: &[&str]| (what, Kind::Made, ending("cache", endings));
    let given = |what, endings: &[&str]| (what, Kind::Given, ending("faces", endings));
    let weights = vec![victim.study.path("resnet18.safetensors")];
    vec![
        made("shards", &["/00000.safetensors", "/00001.safetensors", "/00002.safetensors", "/00003.safetensors"]),
        made("records", &[".record.json"]),
        made("manifests and plans", &["manifest.json", "/plan"]),
        ("checkpoints", Kind::Checkpoint, ending("cache", &["checkpoint.safetensors"])),
        ("remembered hashes", Kind::Memo, ending("cache", &["/hashes", "/recent-hashes"])),
        made("models", &["model.safetensors"]),
        made("run files", &["fingerprint.json", "study.json", "train.json", "metrics.jsonl"]),
        made("evaluations", &["evaluation.json", ".npy", "_predictions.csv"]),
        made("audits, inputs and copies", &["audit.json", "inputs.json", "copies.json"]),
        given("images", &[".png"]),
        given("label files", &["fer2013new.csv", "label.csv"]),
        ("weights", Kind::Given, weights),
    ]
}

/// The flip must be found before what was flipped is used, and named.
fn check(victim: &Victim, kind: Kind, flip: &Flip) -> Result<()> {
    let name = flip.path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
    let mut told = String::new();
    if kind == Kind::Memo {
        let output = victim.look(&["status"]);
        require_success("status", &output)?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(told.contains("hashes` is damaged or"), "status does not name the file: {told}");
        return Ok(());
    }
    if flip.hidden || kind == Kind::Given {
        let output = victim.look(&["verify"]);
        told += &String::from_utf8_lossy(&output.stdout);
        told += &String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "verify found nothing");
        ensure!(told.contains(&name), "verify does not name the file: {told}");
        return Ok(());
    }
    // Whatever is wrong shows in what the stages say and do.
    for stage in STAGES {
        let output = victim.output(stage);
        told += &String::from_utf8_lossy(&output.stderr);
        require_success(stage, &output)?;
    }
    ensure!(told.contains(&name), "no stage names the file: {told}");
    victim.require_same()
}

/// Takes away what the training of the checkpoint at `path` led to, as if it had been interrupted just then.
fn forget_training(path: &Path) -> Result<()> {
    for name in ["train.json", "model.safetensors"] {
        fs_err::remove_file(path.with_file_name(name))?;
    }
    Ok(())
}

/// A flipped bit.
struct Flip {
    path: PathBuf,
    sound: Vec<u8>,
    byte: usize,
    bit: u32,
    hidden: bool,
}

impl Flip {
    /// Flips a bit of `path` at `place`, a share of its size; `hidden` behind an unchanged modification time.
    fn at(path: &Path, place: f64, bit: u32, hidden: bool) -> Result<Self> {
        let sound = fs_err::read(path)?;
        let byte = (place * sound.len() as f64) as usize;
        let mut flipped = sound.clone();
        flipped[byte] ^= 1 << bit;
        match hidden {
            true => write_unnoticed(path, &flipped),
            false => fs_err::write(path, flipped)?,
        }
        Ok(Self { path: path.to_owned(), sound, byte, bit, hidden })
    }

    fn undo(&self) -> Result<()> {
        Ok(fs_err::write(&self.path, &self.sound)?)
    }
}
