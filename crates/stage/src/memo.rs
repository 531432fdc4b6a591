//! The file: [`MAGIC`], the entries in the order of their keys as they lie in memory, and the hash of all of it. A million
//! files are read and found again in a tenth of a second.

use std::{
    collections::HashMap,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::UNIX_EPOCH,
};

use bytemuck::{Pod, Zeroable};

use crate::{AtomicFile, ContentHash, warning::warn_once};

/// First bytes of the file; another version's, or those of a machine that writes numbers the other way round, are ignored
/// and the file is made anew.
const MAGIC: [u8; 16] = [*b"fmstudy hashes 2", *b"fmstudy hashes B"][cfg!(target_endian = "big") as usize];

/// Remembered hashes of files, so that an unchanged file is not read again.
///
/// A hash is trusted while the file's size, modification time (nanoseconds) and inode are the ones it was
/// taken under. The memo is an aid only: losing it costs time, never correctness.
#[derive(Debug)]
pub struct HashMemo {
    store: PathBuf,
    /// Read by who first asks.
    state: OnceLock<RwLock<State>>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// As they were read.
    stored: Sorted,
    /// What has been learned since; none where a file is forgotten.
    learned: HashMap<Key, Option<Entry>>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Stamp {
    size_bytes: u64,
    modified_ns: u64,
    inode: u64,
}

impl HashMemo {
    /// The memo kept in the file `store`. A missing or unreadable one starts empty.
    pub fn open(store: &Path) -> Self {
        Self { store: store.to_owned(), state: OnceLock::new() }
    }

    /// Reads the file now, unless it has been read: for who has a thread to spare.
    pub fn load(&self) {
        self.state();
    }

    /// The content hash of `path`: remembered if the file looks untouched, else computed and remembered.
    ///
    /// The stamp is taken before the content is read, so a write in between is noticed next time.
    pub fn hash_file(&self, path: &Path) -> io::Result<ContentHash> {
        let stamp = Stamp::of(path)?;
        let known = self.look().known(key(path), stamp);
        if let Some(hash) = known {
            return Ok(hash);
        }
        let hash = ContentHash::of_file(path)?;
        self.remember_as(path, stamp, hash);
        Ok(hash)
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
        let sought: Vec<(Key, Option<Stamp>)> = sought.collect();
        let state = self.look();
        for ((key, stamp), known) in sought.into_iter().zip(known) {
            *known = stamp.and_then(|stamp| state.known(key, stamp));
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

    /// Remembers a hash that the caller computed while writing or reading `path` just now.
    pub fn remember(&self, path: &Path, hash: ContentHash) -> io::Result<()> {
        self.remember_as(path, Stamp::of(path)?, hash);
        Ok(())
    }

    /// Forgets `path`, so that it is read again.
    pub fn forget(&self, path: &Path) {
        let key = key(path);
        let mut state = self.lock();
        if state.entry(key).is_some() {
            state.learned.insert(key, None);
        }
    }

    /// Writes the memo back if it changed.
    pub fn save(&self) -> io::Result<()> {
        // What nobody has asked has learned nothing.
        if self.state.get().is_none() {
            return Ok(());
        }
        let mut state = self.lock();
        if state.learned.is_empty() {
            return Ok(());
        }
        let State { stored, learned } = &*state;
        let kept = stored.entries.iter().filter(|entry| !learned.contains_key(&entry.key));
        let mut entries: Vec<Entry> = kept.chain(learned.values().flatten()).copied().collect();
        entries.sort_unstable_by_key(|entry| entry.key);
        write(&self.store, &entries)?;
        *state = State::of(entries);
        Ok(())
    }

    fn remember_as(&self, path: &Path, stamp: Stamp, hash: ContentHash) {
        let key = key(path);
        self.lock().learned.insert(key, Some(Entry { key, stamp, hash: *hash.as_bytes() }));
    }

    fn state(&self) -> &RwLock<State> {
        self.state.get_or_init(|| {
            let stored = read(&self.store).unwrap_or_else(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    let store = self.store.display();
                    tracing::warn!("`{store}` is damaged or of another version ({error}); it is made anew");
                }
                Vec::new()
            });
            RwLock::new(State::of(stored))
        })
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

impl State {
    pub(crate) fn of(stored: Vec<Entry>) -> Self {
        Self { stored: Sorted::new(stored), learned: HashMap::new() }
    }

    fn known(&self, key: Key, stamp: Stamp) -> Option<ContentHash> {
        let entry = self.entry(key).filter(|entry| entry.stamp == stamp)?;
        Some(ContentHash::from_bytes(entry.hash))
    }

    pub(crate) fn entry(&self, key: Key) -> Option<&Entry> {
        match self.learned.get(&key) {
            Some(learned) => learned.as_ref(),
            None => self.stored.find(&key),
        }
    }
}

/// Entries in the order of their keys.
#[derive(Debug, Default)]
struct Sorted {
    entries: Vec<Entry>,
    /// Where the entries begin whose keys begin with the same bits, for every such beginning. Keys are hashes and so spread
    /// evenly: a few entries share one, and a look for one meets a cache line or two instead of twenty.
    begins: Vec<u32>,
    bits: u32,
}

impl Sorted {
    fn new(entries: Vec<Entry>) -> Self {
        let bits = entries.len().checked_ilog2().unwrap_or_default().saturating_sub(1).clamp(1, 28);
        let mut begins = vec![0; (1 << bits) + 1];
        for entry in &entries {
            begins[Self::beginning(&entry.key, bits) + 1] += 1;
        }
        (1..begins.len()).for_each(|at| begins[at] += begins[at - 1]);
        Self { entries, begins, bits }
    }

    fn find(&self, key: &Key) -> Option<&Entry> {
        let at = Self::beginning(key, self.bits);
        let alike = self.begins.get(at..at + 2)?;
        self.entries[alike[0] as usize..alike[1] as usize].iter().find(|entry| entry.key == *key)
    }

    fn beginning(key: &Key, bits: u32) -> usize {
        let [a, b, c, d, ..] = *key;
        (u32::from_be_bytes([a, b, c, d]) >> (32 - bits)) as usize
    }
}

fn key(path: &Path) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&ContentHash::of(path.as_os_str().as_encoded_bytes()).as_bytes()[..16]);
    key
}

fn read(store: &Path) -> io::Result<Vec<Entry>> {
    let file = fs_err::File::open(store)?;
    let size_bytes = file.metadata()?.len();
    parse(file, size_bytes)
}

/// The entries of a `file` of `size_bytes`.
pub(crate) fn parse(mut file: impl Read, size_bytes: u64) -> io::Result<Vec<Entry>> {
    let damaged = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(damaged("it is of another version"));
    }
    let around = MAGIC.len() + size_of::<[u8; 32]>();
    let size = size_bytes.saturating_sub(around as u64) as usize;
    let mut entries: Vec<Entry> = vec![Entry::zeroed(); size / size_of::<Entry>()];
    file.read_exact(bytemuck::cast_slice_mut(&mut entries))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    if rest != seal(&entries) {
        return Err(damaged("its content and the hash at its end do not belong together"));
    }
    Ok(entries)
}

fn write(store: &Path, entries: &[Entry]) -> io::Result<()> {
    let mut file = AtomicFile::create(store)?;
    file.write_all(&MAGIC)?;
    file.write_all(bytemuck::cast_slice(entries))?;
    file.write_all(&seal(entries))?;
    file.commit()
}

fn seal(entries: &[Entry]) -> [u8; 32] {
    *blake3::Hasher::new().update(&MAGIC).update(bytemuck::cast_slice(entries)).finalize().as_bytes()
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs_err::metadata(path)?;
        let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Enough for five centuries.
        Ok(Self { size_bytes: metadata.len(), modified_ns: since.as_nanos() as u64, inode: inode(&metadata) })
    }

    /// That of the file `name` in an open folder.
    #[cfg(unix)]
    fn within(folder: &fs_err::File, name: &str) -> Option<Self> {
        use std::time::Duration;

        let stat = rustix::fs::statat(folder, name, rustix::fs::AtFlags::empty()).ok()?;
        let since = |seconds| Duration::new(seconds, stat.st_mtime_nsec as u32);
        let modified = u64::try_from(stat.st_mtime).map_or(Duration::ZERO, since);
        Some(Self { size_bytes: stat.st_size as u64, modified_ns: modified.as_nanos() as u64, inode: stat.st_ino })
    }

    #[cfg(not(unix))]
    fn within(folder: &fs_err::File, name: &str) -> Option<Self> {
        Self::of(&folder.path().join(name)).ok()
    }
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_across_runs_and_notices_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file) = (folder.path().join("hashes"), folder.path().join("a b.png"));
        fs_err::write(&file, b"one").unwrap();
        let memo = HashMemo::open(&store);
        assert_eq!(memo.known(&file), None);
        let first = memo.hash_file(&file).unwrap();
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
        for file in &files {
            fs_err::write(file, b"content").unwrap();
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
    fn every_key_is_found_and_no_other() {
        for count in [0_u32, 1, 2, 3, 17, 1000] {
            let keyed = |number: u32| key(Path::new(&number.to_string()));
            let entry = |number| Entry { key: keyed(number), ..Entry::zeroed() };
            let mut entries: Vec<Entry> = (0..count).map(entry).collect();
            entries.sort_unstable_by_key(|entry| entry.key);
            let sorted = Sorted::new(entries);
            assert!((0..count).all(|number| sorted.find(&keyed(number)) == Some(&entry(number))));
            assert!((count..2 * count + 9).all(|number| sorted.find(&keyed(number)).is_none()));
        }
    }

    #[test]
    fn a_damaged_memo_only_costs_time() {
        let folder = tempfile::tempdir().unwrap();
        let (store, file) = (folder.path().join("hashes"), folder.path().join("a.png"));
        fs_err::write(&file, b"one").unwrap();
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
