//! For tests only: parsers as functions of bytes, which say whether they accept them, and seals that fit to whatever stands before them.

use std::{io, path::Path};

use crate::{
    HashMemo,
    memo::{self, State},
    sealed::{JSON_SEAL, LINES_SEAL, parse_sealed_json, parse_sealed_lines, seal_bytes, sealed},
};

/// The file of remembered hashes. All that is remembered in it is looked up.
pub fn memo(bytes: &[u8]) -> bool {
    let Ok(stored) = memo::store::parse(bytes, bytes.len() as u64) else { return false };
    let keys: Vec<memo::Key> = stored.iter().map(|entry| entry.key).collect();
    let state = State::of(stored, Vec::new());
    state.entries(&keys).flatten().count() <= keys.len()
}

/// Has the memo believe that what it knows as `known_as` is untouched, if it knows it: `path` is what has been touched.
pub fn believe(memo: &HashMemo, known_as: &Path, path: &Path) -> io::Result<()> {
    memo.restamp(known_as, path)
}

/// A sealed file of JSON or lines.
pub fn sealed_file(bytes: &[u8]) -> bool {
    let json = parse_sealed_json::<serde_json::Value>(Path::new("sealed.json"), bytes);
    let lines = parse_sealed_lines(Path::new("sealed"), bytes, bytes.len() as u64, |_| Ok(()));
    json.is_ok() || lines.is_ok()
}

/// Sealed JSON with the seal of its content, whatever stood there.
pub fn resealed_json(bytes: &[u8]) -> Vec<u8> {
    resealed(bytes, JSON_SEAL)
}

/// Sealed lines with the seal of their content, whatever stood there.
pub fn resealed_lines(bytes: &[u8]) -> Vec<u8> {
    resealed(bytes, LINES_SEAL)
}

/// The file of `lines`.
pub fn sealed_lines(lines: &str) -> Vec<u8> {
    sealed(lines.as_bytes().to_vec(), LINES_SEAL)
}

/// A file of remembered hashes with the seal of its content, whatever stood there.
pub fn resealed_memo(bytes: &[u8]) -> Vec<u8> {
    let content = &bytes[..bytes.len().saturating_sub(32)];
    [content, blake3::hash(content).as_bytes()].concat()
}

fn resealed(bytes: &[u8], marks: (&str, &str)) -> Vec<u8> {
    sealed(bytes[..bytes.len().saturating_sub(seal_bytes(marks))].to_vec(), marks)
}
