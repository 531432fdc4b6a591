//! For tests only: finds the real data set and the real weights, and counts the memory that a program asks for.
//!
//! Neither is part of the repository. They are looked for where an environment variable says, or in a folder
//! `shared` beside the repository. A test that does not find them says so and passes.

mod counted;

pub use counted::{Counted, asked_bytes};

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// The unpacked FERPlus folder: `FMSTUDY_DATA`, or `shared/ferplus.tar.xz` unpacked once into the target
/// folder. None, with the reason on stderr, where there is neither.
pub fn real_ferplus() -> Option<PathBuf> {
    if let Some(dir) = env::var_os("FMSTUDY_DATA") {
        return Some(PathBuf::from(dir));
    }
    let Some(archive) = shared_file("ferplus.tar.xz") else {
        eprintln!("skipped: no `shared/ferplus.tar.xz` beside the repository and FMSTUDY_DATA is not set");
        return None;
    };
    match unpacked(&archive) {
        Ok(dir) => Some(dir),
        Err(error) => {
            eprintln!("skipped: cannot unpack `{}`: {error}", archive.display());
            None
        }
    }
}

/// The ResNet-18 weights: `FMSTUDY_WEIGHTS`, or `shared/resnet18.safetensors`. None, with the reason on
/// stderr, where there is neither.
pub fn real_weights() -> Option<PathBuf> {
    let weights = env::var_os("FMSTUDY_WEIGHTS").map(PathBuf::from).or_else(|| shared_file("resnet18.safetensors"));
    if weights.is_none() {
        eprintln!("skipped: no `shared/resnet18.safetensors` beside the repository and FMSTUDY_WEIGHTS is not set");
    }
    weights
}

fn shared_file(name: &str) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().map(|folder| folder.join("shared").join(name)).find(|path| path.is_file())
}

/// Unpacks under a lock and renames at the end, so that tests in several processes unpack once and never see
/// a half.
fn unpacked(archive: &Path) -> io::Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let folder = target.join("test-data");
    let (complete, unfinished) = (folder.join("ferplus"), folder.join("unpacking"));
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join(".lock"))?;
    lock.lock()?;
    if !complete.is_dir() {
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir(&unfinished)?;
        let status = Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(&unfinished).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("tar: {status}")));
        }
        fs::rename(unfinished.join("ferplus"), &complete)?;
        fs::remove_dir_all(&unfinished)?;
    }
    Ok(complete)
}
