//! Files for parsers that only take paths.

use std::{
    env,
    io::{Cursor, Write},
    path::Path,
};

use backbone::Weights;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Where files cost no disk.
const IN_MEMORY: &str = "/dev/shm";

/// Reads `bytes` as a file of weights with this ending, and what can be asked of them; whether they are accepted.
pub(crate) fn read_weights(ending: &str, bytes: &[u8]) -> bool {
    let folder = Some(Path::new(IN_MEMORY)).filter(|folder| folder.is_dir()).map_or_else(env::temp_dir, Path::to_owned);
    let mut file = tempfile::Builder::new().suffix(ending).tempfile_in(folder).expect("a file can be made");
    file.write_all(bytes).expect("a file can be written");
    let Ok(weights) = Weights::read(file.path()) else { return false };
    let _ = weights.get("conv.weight", &[3, 2, 1, 1]);
    true
}

/// A zip archive of `entries`, names and contents.
pub(crate) fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(*name, stored).expect("an entry can be begun in memory");
        zip.write_all(content).expect("an entry can be written in memory");
    }
    zip.finish().expect("an archive can be finished in memory").into_inner()
}
