//! Power cuts.
//!
//! All that a study's stages ask the file system for is recorded. A cut is then simulated by taking the calls up to some
//! moment and losing what no sync had brought to the disk: of a file's bytes any part of those written since it was synced, of
//! a folder's names any of those made, changed or taken away since the folder was. That is what POSIX allows, and worse than
//! what common file systems do. The stages must find nothing half-written in what is left, and go on to the same end.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    item::{Item, Outcome, Scale},
    strace::{self, Call},
    victim::{OVERRIDES, STAGES, Victim, require_success},
};

pub fn run(scale: Scale, seed: u64) -> Result<Outcome> {
    let mut outcome = Outcome::new(Item::Power);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let victim = Victim::new()?;
    let (folder, cache) = (victim.study.path(""), victim.study.path("cache"));
    let mut calls = Vec::new();
    // A command that has ended has promised that its results outlive a cut from then on.
    let mut ends = Vec::new();
    for stage in STAGES {
        let (output, done) = strace::record(&victim.study.command(stage, &OVERRIDES), &folder)?;
        require_success(stage, &output)?;
        calls.extend(done);
        ends.push(calls.len());
    }
    victim.require_same().context("a recorded study is like another")?;
    outcome.counts.insert("calls recorded", calls.len() as u64);

    for number in 0..scale.pick(40, 400) {
        // The first cuts come right after a command.
        let moment = ends.get(number).copied().unwrap_or_else(|| random.random_range(0..=calls.len()));
        let mut disk = Disk::default();
        calls[..moment].iter().try_for_each(|call| disk.apply(call))?;
        victim.reset()?;
        disk.cut(&mut random, &cache)?;
        outcome.case(format!("cut after {moment} calls"), check(&victim, ends.get(number).map(|_| number)));
    }
    Ok(outcome)
}

/// Nothing half-written may lie about, and the stages must go on to the same end. Stages up to the `promised` one had ended.
fn check(victim: &Victim, promised: Option<usize>) -> Result<()> {
    victim.require_sound()?;
    for stage in promised.iter().flat_map(|last| &STAGES[..=*last]) {
        let output = victim.output(stage);
        require_success(stage, &output)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(said.contains("nothing to do"), "{stage} had ended, and does its work again: {said}");
    }
    victim.finish()
}

/// A file's bytes.
#[derive(Clone, Debug, Default)]
struct Content {
    /// What a sync has brought to the disk.
    synced: Vec<u8>,
    /// What the processes see.
    seen: Vec<u8>,
    /// Whether somebody has gone elsewhere than to its end.
    is_sought: bool,
}

/// What happened to a name since its folder was synced.
#[derive(Clone, Debug)]
enum NameChange {
    /// It names this file, or a folder if none.
    Names(Option<usize>),
    /// It names nothing any more.
    Gone,
}

/// Files and names, on the disk and in memory.
#[derive(Debug, Default)]
struct Disk {
    files: Vec<Content>,
    /// What names name on the disk: a file, or a folder if none.
    synced: BTreeMap<PathBuf, Option<usize>>,
    /// What they name for the processes.
    seen: BTreeMap<PathBuf, Option<usize>>,
    /// What happened since the last syncs of folders, in order.
    pending: Vec<Vec<(PathBuf, NameChange)>>,
}

impl Disk {
    fn apply(&mut self, call: &Call) -> Result<()> {
        match call {
            Call::Create(path) => {
                self.files.push(Content::default());
                self.rename(vec![(path.clone(), NameChange::Names(Some(self.files.len() - 1)))]);
            }
            Call::Write(path, place, bytes) => {
                if let Some(file) = self.file(path) {
                    ensure!(place.is_some() || !file.is_sought, "no model of a write within `{}`", path.display());
                    let at = place.map_or(file.seen.len(), |place| place as usize);
                    file.seen.resize(file.seen.len().max(at + bytes.len()), 0);
                    file.seen[at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
            Call::Seek(path, place) => {
                if let Some(file) = self.file(path) {
                    file.is_sought = *place != file.seen.len() as u64;
                }
            }
            Call::Truncate(path, length) => {
                if let Some(file) = self.file(path) {
                    file.seen.resize(*length as usize, 0);
                }
            }
            Call::Sync(path) => self.sync(path),
            Call::Rename(from, to) => {
                let Some(named) = self.seen.get(from).copied() else { return Ok(()) };
                let changes = vec![(from.clone(), NameChange::Gone), (to.clone(), NameChange::Names(named))];
                self.rename(changes);
            }
            Call::Remove(path) => self.rename(vec![(path.clone(), NameChange::Gone)]),
            Call::MakeFolder(path) => self.rename(vec![(path.clone(), NameChange::Names(None))]),
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Option<&mut Content> {
        let number = self.seen.get(path).copied().flatten()?;
        self.files.get_mut(number)
    }

    fn sync(&mut self, path: &Path) {
        if let Some(file) = self.file(path) {
            file.synced = file.seen.clone();
            return;
        }
        let is_in = |(name, _): &(PathBuf, NameChange)| name.parent() == Some(path);
        for changes in self.pending.extract_if(.., |changes| changes.iter().any(is_in)) {
            change(&mut self.synced, &changes);
        }
    }

    /// Does `changes` to names, all or none.
    fn rename(&mut self, changes: Vec<(PathBuf, NameChange)>) {
        change(&mut self.seen, &changes);
        self.pending.push(changes);
    }

    /// Writes to `folder` what a cut at this moment may leave.
    fn cut(mut self, random: &mut ChaCha8Rng, folder: &Path) -> Result<()> {
        let mut lost: BTreeSet<PathBuf> = BTreeSet::new();
        for changes in std::mem::take(&mut self.pending) {
            // What is lost of a name makes all that happened to it later meaningless.
            let is_lost = random.random() || changes.iter().any(|(name, _)| lost.contains(name));
            if is_lost {
                lost.extend(changes.into_iter().map(|(name, _)| name));
            } else {
                change(&mut self.synced, &changes);
            }
        }
        for (path, named) in &self.synced {
            // Below a folder that is lost nothing is found.
            let around = path.ancestors().skip(1).take_while(|around| around.starts_with(folder));
            if !around.into_iter().all(|around| matches!(self.synced.get(around), Some(None))) {
                continue;
            }
            match named {
                None => fs_err::create_dir_all(path)?,
                Some(number) => fs_err::write(path, self.files[*number].after_cut(random))?,
            }
        }
        Ok(())
    }
}

impl Content {
    /// What may be found: what was synced, with any part of what was written since.
    fn after_cut(&self, random: &mut ChaCha8Rng) -> Vec<u8> {
        /// Disks write sectors whole.
        const SECTOR_BYTES: usize = 512;
        let Self { synced, seen, .. } = self;
        if synced == seen {
            return seen.clone();
        }
        let length = match random.random_range(0..3) {
            0 => synced.len(),
            1 => seen.len(),
            _ => random.random_range(synced.len().min(seen.len())..=seen.len().max(synced.len())),
        };
        let mut found = vec![0; length];
        for start in (0..length).step_by(SECTOR_BYTES) {
            let end = length.min(start + SECTOR_BYTES);
            let from = if random.random() { seen } else { synced };
            // Sectors that were never written hold zeros.
            let sector = from.get(start..end.min(from.len())).unwrap_or_default();
            found[start..start + sector.len()].copy_from_slice(sector);
        }
        found
    }
}

fn change(names: &mut BTreeMap<PathBuf, Option<usize>>, changes: &[(PathBuf, NameChange)]) {
    for (path, change) in changes {
        match change {
            NameChange::Names(named) => _ = names.insert(path.clone(), *named),
            NameChange::Gone => _ = names.remove(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What may be found under the name `b` after the calls, over many cuts.
    fn found(calls: &[Call]) -> BTreeSet<Option<Vec<u8>>> {
        let cuts = (0..200).map(|seed| {
            let folder = tempfile::tempdir().unwrap();
            let below = |path: &Path| folder.path().join(path.strip_prefix("/cache").unwrap());
            let mut disk = Disk::default();
            disk.synced.insert(folder.path().to_owned(), None);
            for call in calls {
                disk.apply(&match call {
                    Call::Create(path) => Call::Create(below(path)),
                    Call::Write(path, place, bytes) => Call::Write(below(path), *place, bytes.clone()),
                    Call::Sync(path) => Call::Sync(below(path)),
                    Call::Rename(from, to) => Call::Rename(below(from), below(to)),
                    other => other.clone(),
                })
                .unwrap();
            }
            disk.cut(&mut ChaCha8Rng::seed_from_u64(seed), folder.path()).unwrap();
            fs_err::read(folder.path().join("b")).ok()
        });
        cuts.collect()
    }

    #[test]
    fn a_cut_loses_what_was_not_synced_and_nothing_else() {
        let path = |name: &str| PathBuf::from("/cache").join(name);
        let create = Call::Create(path("a"));
        let write = Call::Write(path("a"), None, b"whole".to_vec());
        let (sync, rename) = (Call::Sync(path("a")), Call::Rename(path("a"), path("b")));
        let folder = Call::Sync(PathBuf::from("/cache"));
        let whole = Some(b"whole".to_vec());
        let safe = [create.clone(), write.clone(), sync, rename.clone(), folder.clone()];
        assert_eq!(found(&safe), BTreeSet::from([whole.clone()]));
        assert_eq!(found(&safe[..4]), BTreeSet::from([None, whole.clone()]));
        let careless = found(&[create, write, rename, folder]);
        assert!(careless.contains(&whole) && careless.contains(&Some(Vec::new())), "{careless:?}");
        assert!(careless.len() > 2, "it may be torn: {careless:?}");
    }
}
