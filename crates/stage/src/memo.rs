//! Two files, each as [`store`] describes it: that of all hashes, and a small one of those that were learned since that was
//! written. What is learned is added to the small one until it has an eighth of the entries of the large one, which is then
//! written anew: a training that learns a few hashes need not write those of a million images.
//!
//! A process that ends between the two, or another process that writes them meanwhile, leaves a small file that knows things
//! that the large one knows better. Its hashes still have the stamps that they were taken under: that costs time, and what one process
//! forgets while another is at work may be remembered by that one.

mod sorted;
mod stamp;
pub(crate) mod store;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::SystemTime,
};

use bytemuck::{Pod, Zeroable};

use self::{sorted::Sorted, stamp::Stamp};
use crate::{
    ContentHash,
    atomic::{folder_of, sync_folder},
    warning::warn_once,
};

/// How many times fewer entries the file of recent ones has at most.
const RECENT_SHARE: usize = 8;

/// Remembered hashes of files, so that an unchanged file is not read again.
///
/// A hash is trusted while the file's size, times of modification and of change (nanoseconds) and inode are the ones it was taken
/// under. Losing the memo costs time only. A file that changes between these would be missed; the time of change is the system's, which
/// no program sets, and hashes of files that changed a moment ago are not remembered, since another change may have the same time.
#[derive(Debug)]
pub struct HashMemo {
    store: PathBuf,
    recent: PathBuf,
    /// Read by who first asks.
    state: OnceLock<RwLock<State>>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// Those of the large file, as they were read.
    stored: Sorted,
    /// Those of the small file.
    recent: Sorted,
    /// What has been learned since. A forgotten file has [`Stamp::NONE`].
    learned: HashMap<Key, Entry>,
}

/// First half of the hash of a file's path.
pub(crate) type Key = [u8; 16];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    stamp: Stamp,
    hash: [u8; 32],
}

impl HashMemo {
    /// The memo kept in the file `store` and, beside it, one whose name has `recent-` before. What is missing or unreadable
    /// starts empty.
    pub fn open(store: &Path) -> Self {
        let mut recent = std::ffi::OsString::from("recent-");
        recent.push(store.file_name().unwrap_or_default());
        Self { store: store.to_owned(), recent: store.with_file_name(recent), state: OnceLock::new() }
    }

    /// Reads the files now, unless they have been read: for who has a thread to spare.
    pub fn load(&self) {
        self.state();
    }

    /// The content hash of `path`: remembered if the file looks untouched, else computed and remembered.
    pub fn hash_file(&self, path: &Path) -> io::Result<ContentHash> {
        let reading = self.reading(path)?;
        if let Some(hash) = self.look().known(reading.key, reading.stamp) {
            return Ok(hash);
        }
        let hash = ContentHash::of_file(path)?;
        reading.remember(hash);
        Ok(hash)
    }

    /// To be asked before the content of `path` is read, so that a write in between is noticed next time.
    pub fn reading(&self, path: &Path) -> io::Result<Reading<'_>> {
        Ok(Reading { memo: self, key: key(path), stamp: Stamp::of(path)?, begun: SystemTime::now() })
    }

    /// Whether the remembered hash of `path` still stands, and which it is. Reads no content.
    pub fn known(&self, path: &Path) -> Option<ContentHash> {
        let stamp = Stamp::of(path).ok()?;
        self.look().known(key(path), stamp)
    }

    /// The same of each of the files `names` in a `folder`, written to `known`. Looks for many at once do not wait for each other's
    /// memory, and the system need not find the folder anew for each.
    pub fn known_among<'a>(
        &self,
        folder: &Path,
        names: impl IntoIterator<Item = &'a str>,
        known: &mut [Option<ContentHash>],
    ) {
        let open = fs_err::File::open(folder);
        // With a separator at its end.
        let folder = folder.join("");
        let mut path = PathBuf::new();
        let sought = names.into_iter().map(|name| {
            let text = path.as_mut_os_string();
            text.clear();
            text.push(&folder);
            text.push(name);
            (key(&path), open.as_ref().ok().and_then(|folder| Stamp::within(folder, name)))
        });
        let (keys, stamps): (Vec<Key>, Vec<Option<Stamp>>) = sought.unzip();
        let state = self.look();
        for ((entry, stamp), known) in state.entries(&keys).zip(stamps).zip(known) {
            *known = entry.filter(|entry| Some(entry.stamp) == stamp).map(Entry::hash);
        }
    }

    /// What is wrong with `path` if its content hash is not `expected`.
    pub fn fault(&self, path: &Path, expected: ContentHash) -> Option<String> {
        match self.hash_file(path) {
            Ok(hash) if hash == expected => None,
            Ok(hash) => Some(hash.instead_of(expected, path)),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Whether the content hash of `path` is `expected`; says so if it is not, and what follows from it.
    pub fn is_sound(&self, path: &Path, expected: ContentHash, consequence: &str) -> bool {
        let fault = self.fault(path, expected);
        let is_sound = fault.is_none();
        fault.into_iter().for_each(|fault| warn_once(format!("{fault}; {consequence}")));
        is_sound
    }

    /// The content hash of `path`, which this process has just written and nobody else writes, computed and remembered.
    pub fn hash_written(&self, path: &Path) -> io::Result<ContentHash> {
        let hash = ContentHash::of_file(path)?;
        self.remember(path, hash)?;
        Ok(hash)
    }

    /// Remembers a hash that the caller computed while writing `path` just now, which nobody else writes.
    pub fn remember(&self, path: &Path, hash: ContentHash) -> io::Result<()> {
        self.remember_as(key(path), Stamp::of(path)?, hash);
        Ok(())
    }

    /// Gives the hash of `known_as`, if there is one, the stamp that `path` has now.
    pub(crate) fn restamp(&self, known_as: &Path, path: &Path) -> io::Result<()> {
        let (key, stamp) = (key(known_as), Stamp::of(path)?);
        let mut state = self.lock();
        if let Some(entry) = state.entry(&key).copied().filter(|entry| entry.stamp != Stamp::NONE) {
            state.learned.insert(key, Entry { stamp, ..entry });
        }
        Ok(())
    }

    /// Forgets `path`, so that it is read again.
    pub fn forget(&self, path: &Path) {
        let key = key(path);
        let mut state = self.lock();
        if state.entry(&key).is_some() {
            state.learned.insert(key, Entry { key, stamp: Stamp::NONE, hash: [0; 32] });
        }
    }

    /// Writes what has been learned.
    pub fn save(&self) -> io::Result<()> {
        // What nobody has asked has learned nothing.
        if self.state.get().is_none() {
            return Ok(());
        }
        let mut state = self.lock();
        if state.learned.is_empty() {
            return Ok(());
        }
        let State { stored, recent, learned } = &*state;
        // What is forgotten is taken out of the large file: if the small one were lost, it would be known again.
        let forgets = learned.values().any(|entry| entry.stamp == Stamp::NONE);
        let recent = merge(recent.entries(), learned);
        if !forgets && recent.len() * RECENT_SHARE <= stored.entries().len() {
            store::write(&self.recent, &recent)?;
            state.recent = Sorted::new(recent);
            state.learned.clear();
            return Ok(());
        }
        let recent = recent.into_iter().chain(learned.values().copied()).map(|entry| (entry.key, entry)).collect();
        let entries = merge(stored.entries(), &recent);
        store::write(&self.store, &entries)?;
        *state = State::of(entries, Vec::new());
        match fs_err::remove_file(&self.recent) {
            // What is forgotten stays so after a power cut.
            Ok(()) => sync_folder(folder_of(&self.recent)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn remember_as(&self, key: Key, stamp: Stamp, hash: ContentHash) {
        self.lock().learned.insert(key, Entry { key, stamp, hash: *hash.as_bytes() });
    }

    fn state(&self) -> &RwLock<State> {
        let read = |path: &Path| {
            store::read(path).unwrap_or_else(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    let path = path.display();
                    tracing::warn!("`{path}` is damaged or of another version ({error}); it is made anew");
                }
                Vec::new()
            })
        };
        self.state.get_or_init(|| RwLock::new(State::of(read(&self.store), read(&self.recent))))
    }

    fn look(&self) -> RwLockReadGuard<'_, State> {
        // A panic elsewhere leaves the map usable: every update is a single insertion.
        self.state().read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> RwLockWriteGuard<'_, State> {
        // As above.
        self.state().write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file whose content is read, as it was before.
#[derive(Debug)]
pub struct Reading<'a> {
    memo: &'a HashMemo,
    key: Key,
    stamp: Stamp,
    begun: SystemTime,
}

impl Reading<'_> {
    /// Remembers the hash of what was read, unless the file had changed a moment before: another change may have the same time.
    pub fn remember(self, hash: ContentHash) {
        if self.stamp.is_settled(self.begun) {
            self.memo.remember_as(self.key, self.stamp, hash);
        }
    }
}

impl State {
    pub(crate) fn of(stored: Vec<Entry>, recent: Vec<Entry>) -> Self {
        Self { stored: Sorted::new(stored), recent: Sorted::new(recent), learned: HashMap::new() }
    }

    fn known(&self, key: Key, stamp: Stamp) -> Option<ContentHash> {
        self.entry(&key).filter(|entry| entry.stamp == stamp).map(Entry::hash)
    }

    fn entry(&self, key: &Key) -> Option<&Entry> {
        self.newer(key).or_else(|| self.stored.find(key))
    }

    /// The entry of each of `keys`.
    pub(crate) fn entries<'a>(&'a self, keys: &'a [Key]) -> impl Iterator<Item = Option<&'a Entry>> {
        keys.iter().zip(self.stored.find_each(keys)).map(|(key, stored)| self.newer(key).or(stored))
    }

    fn newer(&self, key: &Key) -> Option<&Entry> {
        self.learned.get(key).or_else(|| self.recent.find(key))
    }
}

impl Entry {
    fn hash(&self) -> ContentHash {
        ContentHash::from_bytes(self.hash)
    }
}

/// The entries of `old` and `new`, in order; where both know a file, that of `new`. What is forgotten is left out.
fn merge(old: &[Entry], new: &HashMap<Key, Entry>) -> Vec<Entry> {
    let old = old.iter().filter(|entry| !new.contains_key(&entry.key));
    let new = new.values().filter(|entry| entry.stamp != Stamp::NONE);
    let mut entries: Vec<Entry> = old.chain(new).copied().collect();
    entries.sort_unstable_by_key(|entry| entry.key);
    entries
}

fn key(path: &Path) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&ContentHash::of(path.as_os_str().as_encoded_bytes()).as_bytes()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until what was written is old enough for its hash to be remembered.
    fn settle() {
        std::thread::sleep(std::time::Duration::from_millis(60));
    }

    #[test]
    fn remembers_across_runs_and_notices_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file) = (folder.path().join("hashes"), folder.path().join("a b.png"));
        fs_err::write(&file, b"one").unwrap();
        let memo = HashMemo::open(&store);
        assert_eq!(memo.known(&file), None);
        // Another change might have the same time.
        let first = memo.hash_file(&file).unwrap();
        assert_eq!(memo.known(&file), None);
        settle();
        assert_eq!(memo.hash_file(&file).unwrap(), first);
        memo.save().unwrap();

        let memo = HashMemo::open(&store);
        assert_eq!(memo.known(&file), Some(first));
        fs_err::write(&file, b"two!").unwrap();
        assert_eq!(memo.known(&file), None);
        assert_eq!(memo.hash_file(&file).unwrap(), ContentHash::of(b"two!"));
    }

    #[test]
    fn what_is_forgotten_is_forgotten_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("hashes");
        let files: Vec<PathBuf> = (0..5).map(|number| folder.path().join(number.to_string())).collect();
        let memo = HashMemo::open(&store);
        files.iter().for_each(|file| fs_err::write(file, b"content").unwrap());
        settle();
        for file in &files {
            memo.hash_file(file).unwrap();
        }
        memo.save().unwrap();
        let memo = HashMemo::open(&store);
        memo.forget(&files[2]);
        memo.save().unwrap();
        let memo = HashMemo::open(&store);
        let known: Vec<Option<ContentHash>> = files.iter().map(|file| memo.known(file)).collect();
        assert_eq!(known.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, true, true]);
        let names: Vec<String> = (0..files.len()).map(|number| number.to_string()).collect();
        let mut among = vec![None; files.len()];
        memo.known_among(folder.path(), names.iter().map(String::as_str), &mut among);
        assert_eq!(among, known);
    }

    #[test]
    fn few_new_hashes_are_written_without_the_many_known_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (store, recent) = (folder.path().join("hashes"), folder.path().join("recent-hashes"));
        let file = |number: usize| folder.path().join(number.to_string());
        let learn = |numbers: std::ops::Range<usize>| {
            let memo = HashMemo::open(&store);
            numbers.clone().for_each(|number| fs_err::write(file(number), number.to_string()).unwrap());
            settle();
            for number in numbers {
                memo.hash_file(&file(number)).unwrap();
            }
            memo.save().unwrap();
        };
        let known = |numbers: std::ops::Range<usize>| {
            let memo = HashMemo::open(&store);
            let right =
                |number: &usize| memo.known(&file(*number)) == Some(ContentHash::of(number.to_string().as_bytes()));
            numbers.filter(right).count()
        };
        learn(0..40);
        assert!(!recent.exists());
        let large = fs_err::read(&store).unwrap();
        // One changed file and new ones; the second time with those that the small file knows already.
        learn(39..41);
        learn(41..44);
        assert!(fs_err::read(&store).unwrap() == large && known(0..44) == 44);

        // Without the small file only its hashes are lost.
        let small = fs_err::read(&recent).unwrap();
        for damaged in [&small[..small.len() - 1], &[]] {
            fs_err::write(&recent, damaged).unwrap();
            assert_eq!(known(0..44), 39);
        }
        fs_err::write(&recent, &small).unwrap();

        // With an eighth of the large one, it becomes part of it. Were it still there, all would be known.
        learn(44..45);
        assert!(!recent.exists() && known(0..45) == 45);
        fs_err::write(&recent, &small).unwrap();
        assert_eq!(known(0..45), 45);

        // What is forgotten is in neither.
        let memo = HashMemo::open(&store);
        memo.forget(&file(39));
        memo.save().unwrap();
        assert!(!recent.exists() && known(0..45) == 44 && known(39..40) == 0);
    }

    #[test]
    fn a_damaged_memo_only_costs_time() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file) = (folder.path().join("hashes"), folder.path().join("a.png"));
        fs_err::write(&file, b"one").unwrap();
        settle();
        let memo = HashMemo::open(&store);
        memo.hash_file(&file).unwrap();
        memo.save().unwrap();
        let sound = fs_err::read(&store).unwrap();
        for byte in 0..sound.len() {
            let mut flipped = sound.clone();
            flipped[byte] ^= 0x10;
            fs_err::write(&store, &flipped).unwrap();
            assert_eq!(HashMemo::open(&store).known(&file), None, "byte {byte}");
            fs_err::write(&store, &sound[..byte]).unwrap();
            assert_eq!(HashMemo::open(&store).known(&file), None, "cut at {byte}");
        }
    }
}
