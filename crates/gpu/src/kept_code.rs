//! Machine code of kernels, kept from one start of a program to the next: compiling takes seconds.

use std::{io, path::PathBuf};

use stage::{ContentHash, read_sealed_bytes, write_sealed_bytes};

/// Where in the user's cache it is kept: `~/.cache` on Linux, or `$XDG_CACHE_HOME`. Who removes it loses seconds.
#[cfg(feature = "cuda")]
const FOLDER: &str = "fmstudy/kernels";

/// What is, or will be, kept of one compilation.
#[derive(Debug)]
pub(crate) struct KeptCode {
    path: PathBuf,
}

impl KeptCode {
    /// Of a compilation that depends on `parts`; none where users have no cache.
    #[cfg(feature = "cuda")]
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        Some(Self::within(dirs::cache_dir()?.join(FOLDER), parts))
    }

    fn within<'a>(folder: PathBuf, parts: impl IntoIterator<Item = &'a str>) -> Self {
        Self { path: folder.join(format!("{}.cubin", ContentHash::of_parts(parts))) }
    }

    /// The code; none if it was not kept, or is not what was written.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        read_sealed_bytes(&self.path).ok().flatten()
    }

    /// Keeps `code`, and behind it its hash.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, code: &[u8]) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        write_sealed_bytes(&self.path, code.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_read_as_it_was_written_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let kept = |parts: &[&'static str]| KeptCode::within(folder.path().join("new"), parts.iter().copied());
        let (one, other) = (kept(&["source", "--sm_90"]), kept(&["source--", "sm_90"]));
        assert_eq!(one.read(), None);
        one.write(b"code").unwrap();
        assert_eq!(one.read().as_deref(), Some(&b"code"[..]));
        assert_eq!(other.read(), None, "where one part ends and the next begins counts");
        let whole = fs_err::read(&one.path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs_err::write(&one.path, &flipped).unwrap();
            assert_eq!(one.read(), None, "byte {at} flipped");
            fs_err::write(&one.path, &whole[..at]).unwrap();
            assert_eq!(one.read(), None, "cut at {at}");
        }
        one.write(b"other code").unwrap();
        assert_eq!(one.read().as_deref(), Some(&b"other code"[..]));
    }
}
