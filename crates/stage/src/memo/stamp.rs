use std::{io, path::Path, time::UNIX_EPOCH};

use bytemuck::{Pod, Zeroable};

/// What a file has been changed since, if it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Stamp {
    size_bytes: u64,
    modified_ns: u64,
    inode: u64,
}

impl Stamp {
    /// That of no file.
    pub(super) const NONE: Self = Self { size_bytes: u64::MAX, modified_ns: u64::MAX, inode: u64::MAX };

    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs_err::metadata(path)?;
        let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Enough for five centuries.
        Ok(Self { size_bytes: metadata.len(), modified_ns: since.as_nanos() as u64, inode: inode(&metadata) })
    }

    /// That of the file `name` in an open folder.
    #[cfg(unix)]
    pub(super) fn within(folder: &fs_err::File, name: &str) -> Option<Self> {
        use std::time::Duration;

        let stat = rustix::fs::statat(folder, name, rustix::fs::AtFlags::empty()).ok()?;
        let since = |seconds| Duration::new(seconds, stat.st_mtime_nsec as u32);
        let modified = u64::try_from(stat.st_mtime).map_or(Duration::ZERO, since);
        Some(Self { size_bytes: stat.st_size as u64, modified_ns: modified.as_nanos() as u64, inode: stat.st_ino })
    }

    #[cfg(not(unix))]
    pub(super) fn within(folder: &fs_err::File, name: &str) -> Option<Self> {
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
