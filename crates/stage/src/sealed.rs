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
    io,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{ContentHash, warning::warn_once, write_atomically};

/// What stands between the content of a JSON file and its hash, and behind the hash.
pub(crate) const JSON_SEAL: (&str, &str) = (",\n  \"blake3\": \"", "\"\n}\n");

/// The same in a file of lines.
pub(crate) const LINES_SEAL: (&str, &str) = ("blake3 ", "\n");

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
    let json = [content(path, bytes, JSON_SEAL)?.0, b"\n}"].concat();
    serde_json::from_slice(&json).map_err(|error| damaged(path, error.to_string()))
}

/// Writes `lines`, each of which ends with a line break, to `path` atomically, with their seal.
pub fn write_sealed_lines(path: &Path, lines: Vec<u8>) -> io::Result<()> {
    write_atomically(path, &sealed(lines, LINES_SEAL))
}

/// Reads what [`write_sealed_lines`] wrote to `path`, with its hash; none if there is no such file.
pub fn read_sealed_lines(path: &Path) -> Result<Option<(String, ContentHash)>, SealError> {
    read(path)?.map(|bytes| parse_sealed_lines(path, bytes)).transpose()
}

/// The same from the file's `bytes`.
pub fn parse_sealed_lines(path: &Path, bytes: Vec<u8>) -> Result<(String, ContentHash), SealError> {
    let (content, hash) = content(path, &bytes, LINES_SEAL)?;
    let length = content.len();
    let mut text = String::from_utf8(bytes).map_err(|error| damaged(path, error.to_string()))?;
    text.truncate(length);
    Ok((text, hash))
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

/// The content of a sealed file and its hash, if the whole seal is as it must be: no byte of the file goes unchecked.
fn content<'a>(path: &Path, bytes: &'a [u8], marks: (&str, &str)) -> Result<(&'a [u8], ContentHash), SealError> {
    let seal_bytes = marks.0.len() + HASH_DIGITS + marks.1.len();
    let split = bytes.len().checked_sub(seal_bytes).map(|content_bytes| bytes.split_at(content_bytes));
    let hashed = split.map(|(content, found)| (content, ContentHash::of(content), found));
    match hashed {
        Some((content, hash, found)) if found == seal(hash, marks).as_bytes() => Ok((content, hash)),
        _ => Err(damaged(path, "its content and the hash at its end do not belong together".to_owned())),
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
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
        assert!(read_sealed_lines(&path).unwrap().is_none());
        for text in ["", "one\ntwo\n"] {
            write_sealed_lines(&path, text.as_bytes().to_vec()).unwrap();
            let hash = ContentHash::of(text.as_bytes());
            assert_eq!(read_sealed_lines(&path).unwrap().unwrap(), (text.to_owned(), hash));
            check_seal(&path).unwrap();
            let sound = fs_err::read(&path).unwrap();
            for length in 0..sound.len() {
                fs_err::write(&path, &sound[..length]).unwrap();
                read_sealed_lines(&path).unwrap_err();
            }
        }
    }

    #[test]
    fn only_objects_can_be_sealed() {
        let folder = tempfile::tempdir().unwrap();
        write_sealed_json(&folder.path().join("list.json"), &[1, 2]).unwrap_err();
    }
}
