use std::{
    fs::{File, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::atomic::create_folder;

/// A lock on a folder, held as long as the value lives: exclusive for who writes there, or shared by all who read.
///
/// It is an advisory lock on the folder's file `.lock`, which the operating system drops with the process:
/// a killed process leaves the file, not the lock.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else works there.
    #[error("`{folder}` is in use by process {holder}; wait for it or stop it")]
    Held {
        /// The locked folder.
        folder: PathBuf,
        /// The process id that the holder wrote into the lock file.
        holder: String,
    },
    /// The lock file cannot be made.
    #[error("cannot lock `{folder}`: {source}")]
    Io {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl Lock {
    /// Locks `folder`, which is made if need be, for this process alone, or says who holds it.
    pub fn acquire(folder: &Path) -> Result<Self, LockError> {
        Self::with(folder, File::try_lock)
    }

    /// Locks `folder` against writers, or says which one holds it. Other readers may lock it too.
    pub fn shared(folder: &Path) -> Result<Self, LockError> {
        Self::with(folder, File::try_lock_shared)
    }

    fn with(folder: &Path, try_lock: fn(&File) -> Result<(), TryLockError>) -> Result<Self, LockError> {
        let io_error = |source| LockError::Io { folder: folder.to_owned(), source };
        create_folder(folder).map_err(io_error)?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(".lock"))
            .map_err(io_error)?;
        match try_lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(io_error)?;
                return Err(LockError::Held { folder: folder.to_owned(), holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io_error)?;
        writeln!(file, "{}", std::process::id()).map_err(io_error)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::acquire(folder.path()).unwrap();
        let refused = Lock::acquire(folder.path()).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        Lock::acquire(folder.path()).unwrap();
    }

    #[test]
    fn readers_share_what_no_writer_gets() {
        let folder = tempfile::tempdir().unwrap();
        let readers = [Lock::shared(folder.path()).unwrap(), Lock::shared(folder.path()).unwrap()];
        Lock::acquire(folder.path()).unwrap_err();
        drop(readers);
        let _writer = Lock::acquire(folder.path()).unwrap();
        Lock::shared(folder.path()).unwrap_err();
    }
}
