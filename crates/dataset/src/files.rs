//! Finding image files and hashing them.

use std::{io, iter, path::Path};

use compact_str::CompactString;
use fs_err::DirEntry;
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

impl FoundImage {
    /// Its folder below the data set, and its name there.
    fn folder_and_name(&self) -> (&str, &str) {
        self.id.rsplit_once('/').unwrap_or(("", &self.id))
    }
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
    /// Entries that are looked at together.
    const TOGETHER: usize = 1024;
    let mut entries = fs_err::read_dir(folder)?;
    // While one thread reads the folder, the others look at what it has read.
    let chunks = iter::from_fn(|| {
        let chunk: Vec<io::Result<DirEntry>> = entries.by_ref().take(TOGETHER).collect();
        Some(chunk).filter(|chunk| !chunk.is_empty())
    });
    let looked: Vec<LookedAt> = chunks.par_bridge().map(|chunk| look_at(chunk, expected)).collect::<io::Result<_>>()?;
    let mut images = Vec::with_capacity(looked.iter().map(|looked| looked.images.len()).sum());
    let mut others = Vec::new();
    for looked in looked {
        images.extend(looked.images);
        others.extend(looked.others);
    }
    // The file system's order is arbitrary; reports and records are not.
    others.sort_by(|one, other| one.path.cmp(&other.path));
    others.into_iter().try_for_each(|other| bad.take(other))?;
    images.par_sort_unstable();
    // Made in this order, they lie in it: later walks along them are walks along the memory.
    Ok(images.par_iter().map(|(_, name)| [prefix, name].concat()).collect())
}

/// What some entries of a folder are.
struct LookedAt {
    /// Behind their [`head`]s. Most names are short enough to lie in place, so that they are put in order without looks all over
    /// the memory.
    images: Vec<(u128, CompactString)>,
    others: Vec<BadInput>,
}

fn look_at(entries: Vec<io::Result<DirEntry>>, expected: &[&str]) -> io::Result<LookedAt> {
    let mut images = Vec::with_capacity(entries.len());
    let mut others = Vec::new();
    for entry in entries {
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
            Ok(name) => images.push((head(&name), CompactString::from(name))),
        }
    }
    Ok(LookedAt { images, others })
}

/// The first bytes of a name, which tell it from most others at one look.
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
    let known = known_hashes(dir, &found, memo);
    let hashed = found.into_par_iter().zip(known).map(|(FoundImage { id, split, annotation }, known)| {
        let path = || dir.join(&id);
        let hash = known.map_or_else(|| hash_image(&path(), memo), Ok);
        let hash = hash.and_then(|hash| match undecodable.fault(&hash) {
            Some(fault) => Err(fault.clone()),
            None => Ok(hash),
        });
        let hash = hash.map_err(|fault| Box::new(BadInput::file(&path(), fault)))?;
        Ok(ImageRecord { id, split, hash, annotation, location: Location::File })
    });
    let images: Vec<Result<ImageRecord, Box<BadInput>>> = hashed.collect();
    let sound = |image: Result<ImageRecord, Box<BadInput>>| match image {
        Ok(image) => Some(Ok(image)),
        Err(file) => bad.take(*file).err().map(Err),
    };
    images.into_iter().filter_map(sound).collect()
}

/// What `memo` knows of the images, in their order: that of their names, in which neighbours mostly were made one after the other.
/// The system finds their sizes and times faster in that order than in a folder's own.
fn known_hashes(dir: &Path, found: &[FoundImage], memo: &HashMemo) -> Vec<Option<ContentHash>> {
    /// Images that are looked for together.
    const TOGETHER: usize = 256;
    let mut known = vec![None; found.len()];
    known.par_chunks_mut(TOGETHER).zip(found.par_chunks(TOGETHER)).for_each(|(mut known, found)| {
        for images in found.chunk_by(|one, other| one.folder_and_name().0 == other.folder_and_name().0) {
            let (these, rest) = known.split_at_mut(images.len());
            let names = images.iter().map(|image| image.folder_and_name().1);
            memo.known_among(&dir.join(images[0].folder_and_name().0), names, these);
            known = rest;
        }
    });
    known
}

/// The hash of one image file that the memo does not know. A file that is visibly no whole image is a fault and not remembered, so that
/// it is one the next time, too.
fn hash_image(path: &Path, memo: &HashMemo) -> Result<ContentHash, Fault> {
    let unreadable = |error: std::io::Error| Fault::Unreadable { reason: error.to_string() };
    let reading = memo.reading(path).map_err(unreadable)?;
    let bytes = image_file::read(path)?;
    container::check(&bytes)?;
    let hash = ContentHash::of(&bytes);
    reading.remember(hash);
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
        let ids = list_images(folder.path(), "a/", &[], &mut BadInputs::new(false)).unwrap();
        assert_eq!(ids, names.iter().map(|name| format!("a/{name}")).collect::<Vec<_>>());
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
