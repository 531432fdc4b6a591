//! What is fresh, what must run again, and why.
//!
//! A stage's result is fresh when the [`Fingerprint`] stored beside it equals the one computed now.
//! Fingerprints are made of contents: configuration values and [`ContentHash`]es of inputs, never of
//! modification times, paths or thread counts. So that looking costs no re-reading, [`HashMemo`] remembers
//! the hash of a file for as long as its size, modification time and inode stay the same; `verify` forgets
//! the memory and reads everything again.
//!
//! Results are written through [`AtomicFile`] or, if they are large, [`LargeFile`]: to a temporary sibling, synced, renamed,
//! and the folder synced. A reader therefore sees the old file or the new one, never a half. Small files that decide over
//! large ones end with their own hash ([`write_sealed_json`]), so that a flipped bit is never taken for a number. [`Lock`]
//! keeps two writers apart; the operating system releases it when a process dies.

mod atomic;
mod fingerprint;
#[doc(hidden)]
pub mod fuzzing;
mod hash;
mod large_file;
mod lock;
mod memo;
mod sealed;
mod warning;

pub use atomic::{AtomicFile, TEMPORARY_PREFIX, is_abandoned, write_atomically};
pub use fingerprint::{Change, Fingerprint, Freshness};
pub use hash::{ContentHash, ParseHashError};
pub use large_file::LargeFile;
pub use lock::{Lock, LockError};
pub use memo::{HashMemo, Reading};
pub use sealed::{
    SealError, check_seal, parse_sealed_json, parse_sealed_lines, read_sealed_bytes, read_sealed_json,
    read_sealed_lines, read_sound_json, write_sealed_bytes, write_sealed_json, write_sealed_lines,
};
pub use warning::warn_once;
