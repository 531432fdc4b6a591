use std::{
    io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytemuck::{Pod, Zeroable};

/// How long two changes may have the same time, where times are finer than milliseconds: a tick of the kernel's clock, and more.
const TICK: Duration = Duration::from_millis(50);

/// The same where they are not: two seconds on FAT.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// What a file has been changed since, if it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Stamp {
    size_bytes: u64,
    modified_ns: u64,
    /// When the file's content, name or rights last changed by the system's clock, which no program can set back for a file.
    changed_ns: u64,
    inode: u64,
}

impl Stamp {
    /// That of no file.
    pub(super) const NONE: Self =
        Self { size_bytes: u64::MAX, modified_ns: u64::MAX, changed_ns: u64::MAX, inode: u64::MAX };

    #[cfg(unix)]
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;

        let metadata = fs_err::metadata(path)?;
        Ok(Self {
            size_bytes: metadata.len(),
            modified_ns: since_epoch_ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: since_epoch_ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        })
    }

    #[cfg(not(unix))]
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs_err::metadata(path)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        Ok(Self { size_bytes: metadata.len(), modified_ns: modified, changed_ns: modified, inode: 0 })
    }

    /// That of the file `name` in an open folder.
    #[cfg(unix)]
    pub(super) fn within(folder: &fs_err::File, name: &str) -> Option<Self> {
        let stat = rustix::fs::statat(folder, name, rustix::fs::AtFlags::empty()).ok()?;
        Some(Self {
            size_bytes: stat.st_size as u64,
            modified_ns: since_epoch_ns(stat.st_mtime, stat.st_mtime_nsec as i64),
            changed_ns: since_epoch_ns(stat.st_ctime, stat.st_ctime_nsec as i64),
            inode: stat.st_ino,
        })
    }

    #[cfg(not(unix))]
    pub(super) fn within(folder: &fs_err::File, name: &str) -> Option<Self> {
        Self::of(&folder.path().join(name)).ok()
    }

    /// Whether a change from `now` on gives another stamp: one in the same tick of the clock may not.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let is_fine = !self.changed_ns.is_multiple_of(Duration::from_millis(1).as_nanos() as u64);
        let tick = if is_fine { TICK } else { COARSE_TICK };
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_nanos(self.changed_ns) + tick < now
    }
}

/// Nanoseconds since 1970, which are enough for five centuries; 0 before.
#[cfg(unix)]
fn since_epoch_ns(seconds: i64, nanoseconds: i64) -> u64 {
    let since = |seconds| Duration::new(seconds, nanoseconds as u32);
    u64::try_from(seconds).map_or(Duration::ZERO, since).as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_settles_a_tick_after_the_change() {
        let at = |milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds);
        let changed = |nanoseconds| Stamp { changed_ns: nanoseconds, ..Stamp::NONE };
        let fine = changed(7_000_000_123);
        assert!(!fine.is_settled(at(7_001)) && !fine.is_settled(at(6_000)) && fine.is_settled(at(7_051)));
        let coarse = changed(7_000_000_000);
        assert!(!coarse.is_settled(at(8_999)) && coarse.is_settled(at(9_001)));
    }

    #[cfg(unix)]
    #[test]
    fn an_edit_that_hides_its_time_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        fs_err::write(&path, b"one").unwrap();
        let (before, modified) = (Stamp::of(&path).unwrap(), fs_err::metadata(&path).unwrap().modified().unwrap());
        std::thread::sleep(TICK);
        fs_err::write(&path, b"two").unwrap();
        fs_err::OpenOptions::new().write(true).open(&path).unwrap().file().set_modified(modified).unwrap();
        let after = Stamp::of(&path).unwrap();
        assert_eq!(
            (before.size_bytes, before.modified_ns, before.inode),
            (after.size_bytes, after.modified_ns, after.inode)
        );
        assert_ne!(before, after);
        let open = fs_err::File::open(folder.path()).unwrap();
        assert_eq!(Stamp::within(&open, "a.png"), Some(after));
    }
}
