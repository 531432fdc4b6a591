//! For tests and torture only: a study of drawn faces in a folder of its own, and the binaries to run on it.
//!
//! What cannot be set up panics: nothing could be said about the program then.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a harness that cannot set itself up has failed")]

mod binaries;
mod files;
mod results;
mod study;

pub use binaries::binary;
pub use files::{exists_below, files_below, only_folder, write_unnoticed};
pub use results::{Results, results_below};
pub use study::{CONFIGURATION, SHARD_IMAGES, Study, kill_when};
