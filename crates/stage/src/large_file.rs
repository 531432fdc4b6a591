use std::{
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bytemuck::{Pod, Zeroable};
use tempfile::NamedTempFile;

use crate::atomic::{appear, temporary_for};

/// What direct writes are aligned to, in memory and in the file: enough for every common disk.
const PAGE_BYTES: usize = 4096;

/// Pages that are written at once. Disks reach their full rate from about a megabyte on.
const BUFFER_PAGES: usize = 1024;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// A large file that appears under its name only when it is complete and on disk, as an
/// [`AtomicFile`](crate::AtomicFile) does, written past the page cache where the system allows it (`O_DIRECT`, Linux).
///
/// Gigabytes that nobody reads back soon cost a copy each in the page cache and drive out what is needed.
pub struct LargeFile {
    path: PathBuf,
    temporary: NamedTempFile,
    buffer: Vec<Page>,
    /// Bytes in the buffer.
    filled: usize,
    /// Bytes in the file.
    written: u64,
    /// Bytes in the file and the buffer.
    size_bytes: u64,
}

impl LargeFile {
    /// Starts writing what will become `path`; makes its folder if need be.
    pub fn create(path: &Path) -> io::Result<Self> {
        let temporary = temporary_for(path)?;
        // Where it is refused, as in memory, writes go through the page cache.
        set_direct(&temporary, true).unwrap_or_else(|error| tracing::debug!("no direct writes: {error}"));
        let buffer = vec![Page::zeroed(); BUFFER_PAGES];
        Ok(Self { path: path.to_owned(), temporary, buffer, filled: 0, written: 0, size_bytes: 0 })
    }

    /// Bytes written so far.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Writes the rest, syncs, renames to the final name and syncs the folder.
    pub fn commit(mut self) -> io::Result<()> {
        let size_bytes = self.size_bytes;
        // Whole pages only; what is too much is cut off again.
        let padding = self.filled.next_multiple_of(PAGE_BYTES) - self.filled;
        let filled = self.filled;
        self.bytes_mut()[filled..filled + padding].fill(0);
        self.filled += padding;
        self.write_buffer()?;
        self.temporary.as_file().set_len(size_bytes).map_err(|error| named(&self.path, &error))?;
        appear(self.temporary, &self.path)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.buffer)
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let bytes = &bytemuck::cast_slice(&self.buffer)[..self.filled];
        let mut file = self.temporary.as_file();
        let written = file.write_all(bytes).or_else(|error| match error.kind() {
            // Some file systems refuse direct writes only when the first comes.
            io::ErrorKind::InvalidInput => set_direct(&self.temporary, false)
                .and_then(|()| file.seek(SeekFrom::Start(self.written)))
                .and_then(|_| file.write_all(bytes)),
            _ => Err(error),
        });
        self.written += self.filled as u64;
        self.filled = 0;
        written.map_err(|error| named(&self.path, &error))
    }
}

impl Write for LargeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BUFFER_PAGES * PAGE_BYTES - self.filled;
        let taken = bytes.len().min(room);
        let filled = self.filled;
        self.bytes_mut()[filled..filled + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        self.size_bytes += taken as u64;
        if taken == room {
            self.write_buffer()?;
        }
        Ok(taken)
    }

    /// Does nothing: pages are written whole, and the rest with [`commit`](Self::commit).
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for LargeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LargeFile").field("path", &self.path).field("size_bytes", &self.size_bytes).finish()
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()))
}

#[cfg(target_os = "linux")]
fn set_direct(file: &NamedTempFile, direct: bool) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let mut flags = fcntl_getfl(file.as_file())?;
    flags.set(OFlags::DIRECT, direct);
    Ok(fcntl_setfl(file.as_file(), flags)?)
}

#[cfg(not(target_os = "linux"))]
fn set_direct(_: &NamedTempFile, _: bool) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_about_pages_and_buffers_come_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard");
        let full = PAGE_BYTES * BUFFER_PAGES;
        for size in [0, 1, PAGE_BYTES - 1, PAGE_BYTES, full / 2 + 3, full - 1, full, full + 5, 2 * full + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
            let mut file = LargeFile::create(&path).unwrap();
            for part in bytes.chunks(100_003) {
                file.write_all(part).unwrap();
            }
            assert_eq!(file.size_bytes(), size as u64);
            file.commit().unwrap();
            assert!(fs_err::read(&path).unwrap() == bytes, "{size} bytes");
        }
    }

    #[test]
    fn an_abandoned_file_never_appears() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = LargeFile::create(&folder.path().join("shard")).unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        drop(file);
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
    }
}
