use std::{
    io::Write,
    path::{Path, PathBuf},
};

use stage::HashMemo;

/// Where remembered hashes lie in a study's folder.
const MEMO: &str = "cache/faces/hashes";

/// Writes `bytes`, as many as there are, to `path` in a study's folder as if a disk had done it by itself: no size, time or inode says so
/// to who remembers the file's hash.
pub fn write_unnoticed(path: &Path, bytes: &[u8]) {
    let before = fs_err::metadata(path).unwrap();
    assert_eq!(before.len(), bytes.len() as u64, "another size is noticed");
    let mut file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.file().set_modified(before.modified().unwrap()).unwrap();
    // No program can set back the time of change.
    if let Some(study) = path.ancestors().find(|folder| folder.join(MEMO).exists()) {
        let memo = HashMemo::open(&study.join(MEMO));
        // As the study's commands call it.
        stage::fuzzing::believe(&memo, path.strip_prefix(study).unwrap(), path).unwrap();
        memo.save().unwrap();
    }
}

/// All files below `folder`, but for locks.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.file_name().unwrap() != ".lock" {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Whether a file whose path ends with `ending` lies below `folder`.
pub fn exists_below(folder: &Path, ending: &str) -> bool {
    folder.is_dir() && files_below(folder).iter().any(|path| path.to_string_lossy().ends_with(ending))
}

/// The one folder in `folder`.
pub fn only_folder(folder: &Path) -> PathBuf {
    let mut folders: Vec<PathBuf> = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders.remove(0)
}

/// Copies all that lies below `from`.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs_err::copy(path, target).unwrap();
        }
    }
}
