//! A file of entries: [`MAGIC`], the entries in the order of their keys as they lie in memory, and the hash of all of it. A
//! million files are read and found again in a tenth of a second.

use std::{
    io::{self, Read, Write as _},
    path::Path,
};

use bytemuck::Zeroable;

use super::Entry;
use crate::AtomicFile;

/// First bytes of the file; another version's, or those of a machine that writes numbers the other way round, are ignored
/// and the file is made anew.
const MAGIC: [u8; 16] = [*b"fmstudy hashes 3", *b"fmstudy hashes C"][cfg!(target_endian = "big") as usize];

pub(super) fn read(store: &Path) -> io::Result<Vec<Entry>> {
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

pub(super) fn write(store: &Path, entries: &[Entry]) -> io::Result<()> {
    let mut file = AtomicFile::create(store)?;
    file.write_all(&MAGIC)?;
    file.write_all(bytemuck::cast_slice(entries))?;
    file.write_all(&seal(entries))?;
    file.commit()
}

fn seal(entries: &[Entry]) -> [u8; 32] {
    *blake3::Hasher::new().update(&MAGIC).update(bytemuck::cast_slice(entries)).finalize().as_bytes()
}
