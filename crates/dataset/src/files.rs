//! Finding image files and hashing them.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use stage::{ContentHash, HashMemo};

use crate::{
    annotation::Annotation,
    container,
    dataset::{ImageRecord, Location},
    error::DatasetError,
    fault::{BadInput, BadInputs, Fault},
    image_file,
    split::Split,
    undecodable::Undecodable,
};

/// Endings of image files, in lower case.
pub const IMAGE_ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "bmp"];

/// Files that operating systems and archivers leave behind, besides those whose names begin with a dot.
const LITTER: [&str; 3] = ["Thumbs.db", "desktop.ini", "__MACOSX"];

/// An image file that has not been looked into.
#[derive(Debug)]
pub(crate) struct FoundImage {
    /// Path below the data set, with `/` between its parts.
    pub(crate) id: String,
    /// What it is for.
    pub(crate) split: Split,
    /// What is known about it.
    pub(crate) annotation: Annotation,
}

/// Whether the name ends like an image's.
pub fn has_image_ending(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| IMAGE_ENDINGS.iter().any(|known| known.eq_ignore_ascii_case(ending)))
}

/// Whether the entry is no part of any data set.
pub(crate) fn is_litter(name: &str) -> bool {
    name.starts_with('.') || LITTER.contains(&name)
}

/// Whether a name can stand in a list of names, one to a line, and be shown on a terminal.
pub(crate) fn fits_on_a_line(name: &str) -> bool {
    !name.contains(char::is_control)
}

/// The images in `folder`, sorted by their names, which stand behind `prefix`. Whatever else lies there is bad input, but for
/// `expected` names and litter.
pub(crate) fn list_images(
    folder: &Path,
    prefix: &str,
    expected: &[&str],
    bad: &mut BadInputs,
) -> Result<Vec<String>, DatasetError> {
    let mut images = Vec::new();
    let mut others = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let is_folder = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
        let other = |fault| BadInput::file(&entry.path(), fault);
        match entry.file_name().into_string() {
            Err(_) => others.push(other(Fault::Name)),
            Ok(name) if is_litter(&name) || expected.contains(&name.as_str()) => {}
            Ok(name) if !fits_on_a_line(&name) => others.push(other(Fault::Name)),
            Ok(_) if is_folder => others.push(other(Fault::Folder)),
            Ok(name) if !has_image_ending(Path::new(&name)) => others.push(other(Fault::Ending)),
            Ok(name) => images.push((head(&name), format!("{prefix}{name}"))),
        }
    }
    // The file system's order is arbitrary; reports and records are not.
    others.sort_by(|one, other| one.path.cmp(&other.path));
    others.into_iter().try_for_each(|other| bad.take(other))?;
    images.par_sort_unstable();
    Ok(images.into_iter().map(|(_, image)| image).collect())
}

/// The first bytes of a name, which order it among most others without a look at the names: those lie all over the memory.
fn head(name: &str) -> u128 {
    let mut head = [0; size_of::<u128>()];
    let length = name.len().min(head.len());
    head[..length].copy_from_slice(&name.as_bytes()[..length]);
    u128::from_be_bytes(head)
}

/// Hashes the images, in parallel, reading only those that `memo` does not know.
pub(crate) fn hash_images(
    dir: &Path,
    found: Vec<FoundImage>,
    memo: &HashMemo,
    undecodable: &Undecodable,
    bad: &mut BadInputs,
) -> Result<Vec<ImageRecord>, DatasetError> {
    /// Images that are looked for in the memo together.
    const TOGETHER: usize = 64;
    let mut known = vec![None; found.len()];
    known.par_chunks_mut(TOGETHER).zip(found.par_chunks(TOGETHER)).for_each(|(known, found)| {
        let paths: Vec<PathBuf> = found.iter().map(|image| dir.join(&image.id)).collect();
        memo.known_among(&paths, known);
    });
    let images: Vec<Result<ImageRecord, Box<BadInput>>> = found
        .into_par_iter()
        .zip(known)
        .map(|(FoundImage { id, split, annotation }, known)| {
            let path = || dir.join(&id);
            let hash = known.map_or_else(|| hash_image(&path(), memo), Ok);
            let hash = hash.and_then(|hash| match undecodable.fault(&hash) {
                Some(fault) => Err(fault.clone()),
                None => Ok(hash),
            });
            let hash = hash.map_err(|fault| Box::new(BadInput::file(&path(), fault)))?;
            Ok(ImageRecord { id, split, hash, annotation, location: Location::File })
        })
        .collect();
    let sound = |image: Result<ImageRecord, Box<BadInput>>| match image {
        Ok(image) => Some(Ok(image)),
        Err(file) => bad.take(*file).err().map(Err),
    };
    images.into_iter().filter_map(sound).collect()
}

/// The hash of one image file that the memo does not know. A file that is visibly no whole image is a fault and not remembered, so that
/// it is one the next time, too.
fn hash_image(path: &Path, memo: &HashMemo) -> Result<ContentHash, Fault> {
    let unreadable = |error: std::io::Error| Fault::Unreadable { reason: error.to_string() };
    let bytes = image_file::read(path)?;
    container::check(&bytes)?;
    let hash = ContentHash::of(&bytes);
    memo.remember(path, hash).map_err(unreadable)?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_come_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let long = "a name that is longer than sixteen bytes";
        let mut names: Vec<String> =
            ["b.png", "a.png", "a.b.png", "aé.png", "B.jpg", "~.bmp"].map(String::from).to_vec();
        names.extend((0..20).rev().map(|number| format!("{long}{number}.png")));
        names.iter().for_each(|name| fs_err::write(folder.path().join(name), b"").unwrap());
        names.sort();
        assert_eq!(list_images(folder.path(), "", &[], &mut BadInputs::new(false)).unwrap(), names);
    }

    #[test]
    #[cfg(unix)]
    fn names_that_would_break_a_list_of_names_are_bad_input() {
        for name in ["a\nb.png", "a\tb.png", "\u{1b}[2Ja.png", "a\u{85}.png", "a\r.png"] {
            let folder = tempfile::tempdir().unwrap();
            fs_err::write(folder.path().join(name), b"").unwrap();
            fs_err::write(folder.path().join("sound ✓.png"), b"").unwrap();
            let error = list_images(folder.path(), "", &[], &mut BadInputs::new(false)).unwrap_err();
            assert!(matches!(&error, DatasetError::Bad(bad) if bad.fault == Fault::Name), "{error}");
            let message = error.to_string();
            assert!(message.contains(&name.escape_default().to_string()), "{message}");
            let mut skipped = BadInputs::new(true);
            assert_eq!(list_images(folder.path(), "", &[], &mut skipped).unwrap(), ["sound ✓.png"]);
            assert_eq!(skipped.into_skipped().len(), 1);
        }
    }
}
