//! Reads at a place in a file.

use std::{fs::File, io};

/// Reads the bytes at `offset`, waiting for the disk if need be.
#[cfg(unix)]
pub(crate) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Reads the bytes at `offset`, waiting for the disk if need be.
#[cfg(not(unix))]
pub(crate) fn read_exact_at(mut file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

/// Reads the bytes at `offset` if all of them lie in memory. False where they do not, and where the system or the file system
/// cannot tell.
#[cfg(target_os = "linux")]
pub(crate) fn read_cached_at(file: &File, buffer: &mut [u8], offset: u64) -> bool {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut [io::IoSliceMut::new(&mut buffer[done..])];
        match preadv2(file, rest, offset + done as u64, ReadWriteFlags::NOWAIT) {
            // The end of the file or an error: whoever waits for the disk will find out what is wrong.
            Ok(0) | Err(_) => return false,
            Ok(read) => done += read,
        }
    }
    true
}

/// Elsewhere nobody can tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn read_cached_at(_: &File, _: &mut [u8], _: u64) -> bool {
    false
}

/// Has the system fetch `length` bytes at `offset` meanwhile. It is free not to.
#[cfg(target_os = "linux")]
pub(crate) fn fetch(file: &File, offset: u64, length: usize) {
    let length = std::num::NonZeroU64::new(length as u64);
    let _ = rustix::fs::fadvise(file, offset, length, rustix::fs::Advice::WillNeed);
}

/// Elsewhere it cannot be asked to.
#[cfg(not(target_os = "linux"))]
pub(crate) fn fetch(_: &File, _: u64, _: usize) {}
