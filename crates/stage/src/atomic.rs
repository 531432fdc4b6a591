use std::{
    fs::File,
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// Names of unfinished files start with this; `clean-stale` removes the ones that a killed process left.
pub const TEMPORARY_PREFIX: &str = ".unfinished-";

/// A file that appears under its name only when it is complete and on disk.
///
/// Dropping it without [`commit`](Self::commit) removes the temporary file and leaves the old one, if any.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// Starts writing what will become `path`; makes its folder if need be.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), writer: BufWriter::with_capacity(1 << 20, temporary_for(path)?) })
    }

    /// The unfinished file, for who makes room in it before writing. What is written goes through a buffer.
    pub fn as_file(&self) -> &File {
        self.writer.get_ref().as_file()
    }

    /// Syncs the content, renames it to its final name and syncs the folder.
    pub fn commit(self) -> io::Result<()> {
        let path = self.path;
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()));
        let temporary = self.writer.into_inner().map_err(|error| named(error.into_error()))?;
        appear(temporary, &path)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.writer.seek(to)
    }
}

/// An unfinished file in the folder of `path`, which is made if need be.
pub(crate) fn temporary_for(path: &Path) -> io::Result<NamedTempFile> {
    let folder = folder_of(path);
    create_folder(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    // As readable as any file that the user makes, not private as temporary files usually are.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot create a file in `{}`: {error}", folder.display()))
    })?;
    // Tells others that somebody is at work. A file system that knows no locks does without.
    if let Err(error) = file.as_file().try_lock() {
        tracing::debug!("an unfinished file is not locked: {error}");
    }
    Ok(file)
}

/// Whether the unfinished file `path` belongs to no process any more.
pub fn is_abandoned(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// Syncs a finished file, renames it to `path` and syncs the folder.
pub(crate) fn appear(temporary: NamedTempFile, path: &Path) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()));
    temporary.as_file().sync_all().map_err(named)?;
    temporary.persist(path).map_err(|error| named(error.error))?;
    sync_folder(folder_of(path)).map_err(named)
}

/// Writes `bytes` to `path` atomically.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes)?;
    file.commit()
}

/// Makes `folder` and those around it, if need be, so that they outlive a power cut: a folder's name is in the folder
/// around it, which is synced too.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let around = folder_of(folder);
    create_folder(around)?;
    match fs_err::create_dir(folder) {
        // Another process may have been quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    sync_folder(around)
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    fs_err::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_finished_file_is_as_readable_as_any_other() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let [ours, usual] = ["ours", "usual"].map(|name| folder.path().join(name));
        write_atomically(&ours, b"x").unwrap();
        fs_err::write(&usual, b"x").unwrap();
        let mode = |path| fs_err::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&usual));
    }

    #[test]
    fn an_abandoned_file_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/manifest.json");
        write_atomically(&path, b"old").unwrap();
        let mut unfinished = AtomicFile::create(&path).unwrap();
        unfinished.write_all(b"half").unwrap();
        assert!(!is_abandoned(unfinished.writer.get_ref().path()));
        drop(unfinished);
        assert_eq!(fs_err::read(&path).unwrap(), b"old");
        assert_eq!(fs_err::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"new");
    }
}
