//! Files that carry the hash of their own content.
//!
//! What the program writes for itself is small text that decides over gigabytes: which shards are whole, which run is
//! trained. A flipped bit in it could name another number without being bad JSON. So each such file ends with the hash of
//! all that stands before:
//!
//! ```text
//! {
//!   "images": 256,
//!   "blake3": "5c1f…"          the hash of the text up to and including the line before
//! }
//! ```

use std::{
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{AtomicFile, ContentHash, warning::warn_once, write_atomically};

/// What stands between the content of a JSON file and its hash, and behind the hash.
pub(crate) const JSON_SEAL: (&str, &str) = (",\n  \"blake3\": \"", "\"\n}\n");

/// The same in a file of lines.
pub(crate) const LINES_SEAL: (&str, &str) = ("blake3 ", "\n");

/// The same in a file of bytes, whatever they are: the hash alone.
const BYTES_SEAL: (&str, &str) = ("", "");

/// Hexadecimal digits of a hash.
pub(crate) const HASH_DIGITS: usize = 64;

/// Why a sealed file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("`{path}` is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        reason: String,
    },
}

/// Writes `value`, which becomes a JSON object with at least one member, to `path` atomically, with its seal.
pub fn write_sealed_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut json = serde_json::to_vec_pretty(value)?;
    match json.strip_suffix(b"\n}").map(<[u8]>::len) {
        Some(length) => json.truncate(length),
        None => return Err(io::Error::other(format!("`{}` would hold no JSON object", path.display()))),
    }
    write_atomically(path, &sealed(json, JSON_SEAL))
}

/// Reads what [`write_sealed_json`] wrote to `path`; none if there is no such file.
pub fn read_sealed_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SealError> {
    read(path)?.map(|bytes| parse_sealed_json(path, &bytes)).transpose()
}

/// The same, but damage counts as no file: says so, and what follows from it.
pub fn read_sound_json<T: DeserializeOwned>(path: &Path, consequence: &str) -> Option<T> {
    read_sealed_json(path).unwrap_or_else(|error| {
        warn_once(format!("{error}; {consequence}"));
        None
    })
}

/// The same from the file's `bytes`.
pub fn parse_sealed_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, SealError> {
    // The value is read without its seal, which would be a member too many for some.
    let json = [content(path, bytes, JSON_SEAL)?, b"\n}"].concat();
    serde_json::from_slice(&json).map_err(|error| damaged(path, error.to_string()))
}

/// Writes `blocks` of lines, each of which ends with a line break, to `path` atomically, with their seal.
pub fn write_sealed_lines(path: &Path, blocks: impl IntoIterator<Item = String>) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    let mut hasher = blake3::Hasher::new();
    for block in blocks {
        hasher.update(block.as_bytes());
        file.write_all(block.as_bytes())?;
    }
    file.write_all(seal(ContentHash::from_hasher(&hasher), LINES_SEAL).as_bytes())?;
    file.commit()
}

/// Gives `each` the lines that [`write_sealed_lines`] wrote to `path`, and then their hash; none if there is no such file.
///
/// Lines come before it is known that all are as they were written: what was made of them counts only if this succeeds.
///
/// # Errors
/// If the file cannot be read, is not what was written, or `each` says what is wrong with a line.
pub fn read_sealed_lines(
    path: &Path,
    each: impl FnMut(&str) -> Result<(), String>,
) -> Result<Option<ContentHash>, SealError> {
    let file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let size_bytes = file.metadata()?.len();
    parse_sealed_lines(path, file, size_bytes, each).map(Some)
}

/// The same of a `file` of `size_bytes`.
pub fn parse_sealed_lines(
    path: &Path,
    mut file: impl Read,
    size_bytes: u64,
    mut each: impl FnMut(&str) -> Result<(), String>,
) -> Result<ContentHash, SealError> {
    /// What is held in memory at a time: a plan of a million images has a hundred million bytes.
    const BLOCK_BYTES: u64 = 1 << 20;
    let content_bytes = size_bytes.checked_sub(seal_bytes(LINES_SEAL) as u64).ok_or_else(|| unsealed(path))?;
    let mut content = file.by_ref().take(content_bytes);
    let mut hasher = blake3::Hasher::new();
    let mut block = Vec::new();
    loop {
        let rest = block.len();
        if content.by_ref().take(BLOCK_BYTES).read_to_end(&mut block)? == 0 {
            break;
        }
        hasher.update(&block[rest..]);
        let whole = block.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = str::from_utf8(&block[..whole]).map_err(|error| damaged(path, error.to_string()))?;
        lines.split_terminator('\n').try_for_each(&mut each).map_err(|reason| damaged(path, reason))?;
        block.drain(..whole);
    }
    let mut found = Vec::new();
    file.read_to_end(&mut found)?;
    let hash = ContentHash::from_hasher(&hasher);
    if block.is_empty() && found == seal(hash, LINES_SEAL).as_bytes() { Ok(hash) } else { Err(unsealed(path)) }
}

/// Writes `bytes` to `path` atomically, with their seal.
pub fn write_sealed_bytes(path: &Path, bytes: Vec<u8>) -> io::Result<()> {
    write_atomically(path, &sealed(bytes, BYTES_SEAL))
}

/// Reads what [`write_sealed_bytes`] wrote to `path`; none if there is no such file.
pub fn read_sealed_bytes(path: &Path) -> Result<Option<Vec<u8>>, SealError> {
    let Some(mut bytes) = read(path)? else { return Ok(None) };
    let length = content(path, &bytes, BYTES_SEAL)?.len();
    bytes.truncate(length);
    Ok(Some(bytes))
}

/// Whether the sealed file `path`, JSON or lines, is what was written.
pub fn check_seal(path: &Path) -> Result<(), SealError> {
    let bytes = fs_err::read(path)?;
    content(path, &bytes, JSON_SEAL).or_else(|_| content(path, &bytes, LINES_SEAL)).map(|_| ())
}

pub(crate) fn sealed(mut content: Vec<u8>, marks: (&str, &str)) -> Vec<u8> {
    let seal = seal(ContentHash::of(&content), marks);
    content.extend_from_slice(seal.as_bytes());
    content
}

fn seal(hash: ContentHash, (before, behind): (&str, &str)) -> String {
    format!("{before}{hash}{behind}")
}

pub(crate) const fn seal_bytes(marks: (&str, &str)) -> usize {
    marks.0.len() + HASH_DIGITS + marks.1.len()
}

/// The content of a sealed file, if the whole seal is as it must be: no byte of the file goes unchecked.
fn content<'a>(path: &Path, bytes: &'a [u8], marks: (&str, &str)) -> Result<&'a [u8], SealError> {
    let content_bytes = bytes.len().checked_sub(seal_bytes(marks)).ok_or_else(|| unsealed(path))?;
    let (content, found) = bytes.split_at(content_bytes);
    if found == seal(ContentHash::of(content), marks).as_bytes() { Ok(content) } else { Err(unsealed(path)) }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn unsealed(path: &Path) -> SealError {
    damaged(path, "its content and the hash at its end do not belong together".to_owned())
}

fn damaged(path: &Path, reason: String) -> SealError {
    SealError::Damaged { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_single_flipped_bit_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        let value = BTreeMap::from([("images".to_owned(), 256_u32), ("size".to_owned(), 12)]);
        write_sealed_json(&path, &value).unwrap();
        let sound = fs_err::read(&path).unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&sound).unwrap();
        assert_eq!((&parsed["images"], parsed["blake3"].as_str().unwrap().len()), (&256.into(), HASH_DIGITS));
        let read = || read_sealed_json::<BTreeMap<String, u32>>(&path);
        assert_eq!(read().unwrap().unwrap(), value);
        for bit in 0..sound.len() * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs_err::write(&path, flipped).unwrap();
            let error = read().unwrap_err();
            assert!(matches!(error, SealError::Damaged { .. }) && error.to_string().contains("record.json"), "{error}");
            check_seal(&path).unwrap_err();
        }
    }

    #[test]
    fn lines_come_back_and_a_cut_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        let read = || {
            let mut lines = Vec::new();
            let hash = read_sealed_lines(&path, |line| {
                lines.push(line.to_owned());
                Ok(())
            });
            hash.map(|hash| hash.map(|hash| (lines, hash)))
        };
        assert!(read().unwrap().is_none());
        for text in ["", "one\ntwo\n"] {
            write_sealed_lines(&path, text.split_inclusive('\n').map(str::to_owned)).unwrap();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            assert_eq!(read().unwrap().unwrap(), (lines, ContentHash::of(text.as_bytes())));
            check_seal(&path).unwrap();
            let sound = fs_err::read(&path).unwrap();
            for length in 0..sound.len() {
                fs_err::write(&path, &sound[..length]).unwrap();
                read().unwrap_err();
            }
            for bit in 0..sound.len() * 8 {
                let mut flipped = sound.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs_err::write(&path, flipped).unwrap();
                read().unwrap_err();
            }
        }
    }

    #[test]
    fn lines_of_many_blocks_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        let lines =
            |length: usize| (0..3_000_000 / length).map(move |number| format!("{number}{}", "-".repeat(length)));
        for length in [6, 1000, 2_500_000] {
            write_sealed_lines(&path, lines(length).map(|line| line + "\n")).unwrap();
            let mut expected = lines(length);
            read_sealed_lines(&path, |line| {
                expected.next().filter(|next| next == line).map(|_| ()).ok_or_else(|| line.to_owned())
            })
            .unwrap();
            assert!(expected.next().is_none());
        }
        let refused = read_sealed_lines(&path, |_| Err("it is odd".to_owned())).unwrap_err().to_string();
        assert!(refused.ends_with("plan` is damaged: it is odd"), "{refused}");
    }

    #[test]
    fn only_objects_can_be_sealed() {
        let folder = tempfile::tempdir().unwrap();
        write_sealed_json(&folder.path().join("list.json"), &[1, 2]).unwrap_err();
    }
}
