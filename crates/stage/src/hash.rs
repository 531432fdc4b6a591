use std::{fmt, io, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

/// A blake3 hash of some content, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Hash of a whole file, read in chunks.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(fs_err::File::open(path)?)?;
        Ok(Self::from_hasher(&hasher))
    }

    /// Hash of a sequence of parts. Each part's length goes in as well, so that moving a byte from one part
    /// to the next changes the result.
    pub fn of_parts(parts: impl IntoIterator<Item: AsRef<[u8]>>) -> Self {
        /// What is hashed at a time: a hasher of many short pieces works in one lane only.
        const BLOCK_BYTES: usize = 1 << 16;
        let mut hasher = blake3::Hasher::new();
        let mut block: Vec<u8> = Vec::new();
        for part in parts {
            let part = part.as_ref();
            block.extend_from_slice(&(part.len() as u64).to_le_bytes());
            if part.len() < BLOCK_BYTES {
                block.extend_from_slice(part);
            } else {
                hasher.update(&block).update(part);
                block.clear();
            }
            if block.len() >= BLOCK_BYTES {
                hasher.update(&block);
                block.clear();
            }
        }
        Self::from_hasher(hasher.update(&block))
    }

    /// The state of a running hasher.
    pub fn from_hasher(hasher: &blake3::Hasher) -> Self {
        Self(*hasher.finalize().as_bytes())
    }

    /// The hash that these bytes are.
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its first eight bytes: a number that orders hashes as they are ordered, as far as it tells them apart.
    pub const fn begin(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// That `path` has this hash and should have another, in words.
    pub fn instead_of(&self, expected: Self, path: &Path) -> String {
        format!("`{}` has content hash {}, expected {}", path.display(), self.short(), expected.short())
    }

    /// The first eight hexadecimal digits, for folder names and messages.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no blake3 hash, expected 64 hexadecimal digits")]
pub struct ParseHashError(String);

impl FromStr for ContentHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        // The decoder would take a prefix `0x`.
        match const_hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if text.len() == 2 * bytes.len() => Ok(Self(bytes)),
            _ => Err(ParseHashError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ContentHash {
    type Error = ParseHashError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> Self {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_hashed_in_their_order_however_long_they_are() {
        let parts: Vec<Vec<u8>> =
            [0, 1, 70_000, 3, 65_536, 65_535, 2].map(|length: usize| vec![length as u8; length]).into();
        let mut hasher = blake3::Hasher::new();
        for part in &parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        assert_eq!(ContentHash::of_parts(&parts), ContentHash::from_hasher(&hasher));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let one = ContentHash::of_parts([b"ab".as_slice(), b"c"]);
        let other = ContentHash::of_parts([b"a".as_slice(), b"bc"]);
        assert_ne!(one, other);
        assert_eq!(one.to_string().parse::<ContentHash>().unwrap(), one);
        for other in ["xyz".to_owned(), format!("0x{one}"), one.to_string()[..63].to_owned(), format!("{one}0")] {
            assert!(other.parse::<ContentHash>().is_err(), "{other}");
        }
    }
}
