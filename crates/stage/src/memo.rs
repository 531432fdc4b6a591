use std::{
    collections::HashMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Mutex,
    time::UNIX_EPOCH,
};

use crate::{AtomicFile, ContentHash};

/// First line of the memo's file; another version is ignored and made anew.
const HEADER: &str = "fmstudy-hashes 1";

/// Remembered hashes of files, so that an unchanged file is not read again.
///
/// A hash is trusted while the file's size, modification time (nanoseconds) and inode are the ones it was
/// taken under. The memo is an aid only: losing it costs time, never correctness.
#[derive(Debug)]
pub struct HashMemo {
    store: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<PathBuf, (Stamp, ContentHash)>,
    changed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size_bytes: u64,
    modified_ns: u128,
    inode: u64,
}

impl HashMemo {
    /// Opens the memo kept in the file `store`. A missing or unreadable one starts empty.
    pub fn open(store: &Path) -> Self {
        let known = std::fs::read_to_string(store).map(|text| parse(&text)).unwrap_or_default();
        Self { store: store.to_owned(), state: Mutex::new(State { known, changed: false }) }
    }

    /// The content hash of `path`: remembered if the file looks untouched, else computed and remembered.
    ///
    /// The stamp is taken before the content is read, so a write in between is noticed next time.
    pub fn hash_file(&self, path: &Path) -> io::Result<ContentHash> {
        let stamp = Stamp::of(path)?;
        if let Some((known, hash)) = self.lock().known.get(path)
            && *known == stamp
        {
            return Ok(*hash);
        }
        let hash = ContentHash::of_file(path)?;
        self.remember_as(path, stamp, hash);
        Ok(hash)
    }

    /// Whether the remembered hash of `path` still stands, and which it is. Reads no content.
    pub fn known(&self, path: &Path) -> Option<ContentHash> {
        let stamp = Stamp::of(path).ok()?;
        self.lock().known.get(path).filter(|(known, _)| *known == stamp).map(|(_, hash)| *hash)
    }

    /// Remembers a hash that the caller computed while writing or reading `path` just now.
    pub fn remember(&self, path: &Path, hash: ContentHash) -> io::Result<()> {
        self.remember_as(path, Stamp::of(path)?, hash);
        Ok(())
    }

    /// Forgets `path`, so that it is read again.
    pub fn forget(&self, path: &Path) {
        let mut state = self.lock();
        state.changed |= state.known.remove(path).is_some();
    }

    /// Writes the memo back if it changed.
    pub fn save(&self) -> io::Result<()> {
        let mut state = self.lock();
        if !state.changed {
            return Ok(());
        }
        let mut file = AtomicFile::create(&self.store)?;
        writeln!(file, "{HEADER}")?;
        let mut entries: Vec<_> = state.known.iter().collect();
        entries.sort_by_key(|(path, _)| path.as_path());
        for (path, (stamp, hash)) in entries {
            let Some(path) = path.to_str().filter(|path| !path.contains('\n')) else { continue };
            writeln!(file, "{hash} {} {} {} {path}", stamp.size_bytes, stamp.modified_ns, stamp.inode)?;
        }
        file.commit()?;
        state.changed = false;
        Ok(())
    }

    fn remember_as(&self, path: &Path, stamp: Stamp, hash: ContentHash) {
        let mut state = self.lock();
        state.known.insert(path.to_owned(), (stamp, hash));
        state.changed = true;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere leaves the map usable: every update is a single insertion.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs_err::metadata(path)?;
        let modified_ns = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        Ok(Self { size_bytes: metadata.len(), modified_ns, inode: inode(&metadata) })
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

/// Lines of `hash size modified inode path`; a damaged line is dropped, which costs one re-hash.
fn parse(text: &str) -> HashMap<PathBuf, (Stamp, ContentHash)> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return HashMap::new();
    }
    lines
        .filter_map(|line| {
            let mut fields = line.splitn(5, ' ');
            let hash = fields.next()?.parse().ok()?;
            let size_bytes = fields.next()?.parse().ok()?;
            let modified_ns = fields.next()?.parse().ok()?;
            let inode = fields.next()?.parse().ok()?;
            Some((PathBuf::from(fields.next()?), (Stamp { size_bytes, modified_ns, inode }, hash)))
        })
        .collect()
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
    fn a_damaged_memo_only_costs_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("hashes");
        fs_err::write(&store, format!("{HEADER}\nnonsense\n")).unwrap();
        assert_eq!(HashMemo::open(&store).known(&store), None);
    }
}
