use std::{
    fs::{File, TryLockError},
    io::{self, ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::atomic::create_folder;

/// A lock on a folder, held as long as the value lives: exclusive for who writes there, or shared by all who read.
///
/// It is an advisory lock on the folder's file `.lock`, which the operating system drops with the process:
/// a killed process leaves the file, not the lock.
#[derive(Debug)]
pub struct Lock {
    /// None where this process may only read and nobody has written yet: there is nobody to wait for.
    _file: Option<File>,
}

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else writes there.
    #[error("`{folder}` is in use by {holder}; wait for it or stop it")]
    Written {
        /// The locked folder.
        folder: PathBuf,
        /// The process that the lock file names.
        holder: String,
    },
    /// Others read what is there.
    #[error("`{folder}` is being read by another process; wait for it or stop it")]
    Read {
        /// The locked folder.
        folder: PathBuf,
    },
    /// The lock file cannot be made or read.
    #[error("cannot lock `{folder}`")]
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
        let io_error = |source| LockError::Io { folder: folder.to_owned(), source };
        let mut file = open_to_write(folder).map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => {}
            // Readers let another one in.
            Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {
                return Err(LockError::Read { folder: folder.to_owned() });
            }
            Err(TryLockError::WouldBlock) => return Err(held(folder, file)),
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
        }
        let holder = format!("{}\n", std::process::id());
        // In this order nobody finds it empty.
        let written = file.rewind().and_then(|()| file.write_all(holder.as_bytes()));
        written.and_then(|()| file.set_len(holder.len() as u64)).map_err(io_error)?;
        Ok(Self { _file: Some(file) })
    }

    /// Locks `folder` against writers, or says which one holds it. Other readers may lock it too. A folder that is there need not be
    /// writable.
    pub fn shared(folder: &Path) -> Result<Self, LockError> {
        let io_error = |source| LockError::Io { folder: folder.to_owned(), source };
        let opened = match File::open(lock_file(folder)) {
            Err(error) if error.kind() == ErrorKind::NotFound => open_to_write(folder),
            opened => opened,
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_read_only(&error) && folder.is_dir() => return Ok(Self { _file: None }),
            Err(error) => return Err(io_error(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(held(folder, file)),
            Err(TryLockError::Error(source)) => Err(io_error(source)),
        }
    }
}

fn lock_file(folder: &Path) -> PathBuf {
    folder.join(".lock")
}

fn open_to_write(folder: &Path) -> io::Result<File> {
    create_folder(folder)?;
    File::options().read(true).write(true).create(true).truncate(false).open(lock_file(folder))
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

fn held(folder: &Path, mut file: File) -> LockError {
    let mut holder = String::new();
    let is_named = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
    let holder = if is_named { format!("process {}", holder.trim()) } else { "another process".to_owned() };
    LockError::Written { folder: folder.to_owned(), holder }
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
        let refused = Lock::acquire(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("read by another process"), "{refused}");
        drop(readers);
        let _writer = Lock::acquire(folder.path()).unwrap();
        let refused = Lock::shared(folder.path()).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
    }

    #[test]
    fn readers_leave_the_lock_file_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(lock_file(folder.path()), "123456\n").unwrap();
        let _reader = Lock::shared(folder.path()).unwrap();
        assert_eq!(fs_err::read_to_string(lock_file(folder.path())).unwrap(), "123456\n");
    }
}
