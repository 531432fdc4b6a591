use std::{
    io,
    path::{Path, PathBuf},
};

/// One file of a corpus.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Its file name.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The folder of a target's corpus, `corpus/TARGET` in this crate's sources.
///
/// Names of inputs that once failed, or were made to, begin with `found-`; the others are valid files. All that are there
/// come from `cargo run -p fuzz --example make_corpus`.
pub fn corpus_folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

impl Seed {
    /// Whether it is a valid file.
    pub(crate) fn is_valid(&self) -> bool {
        !self.name.starts_with("found-")
    }
}

/// The corpus of a target in the order of the names.
///
/// # Errors
/// If it cannot be read.
pub fn corpus(target: &str) -> io::Result<Vec<Seed>> {
    let entries: io::Result<Vec<_>> = fs_err::read_dir(corpus_folder(target))?.collect();
    let mut seeds = entries?
        .into_iter()
        .map(|entry| {
            Ok(Seed { name: entry.file_name().to_string_lossy().into_owned(), bytes: fs_err::read(entry.path())? })
        })
        .collect::<io::Result<Vec<_>>>()?;
    seeds.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(seeds)
}
