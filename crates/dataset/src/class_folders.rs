//! A folder per split, in it a folder per class: the form in which most other expression sets come.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use choice::nearest;
use stage::ContentHash;

use crate::{
    annotation::Annotation,
    audit::Audit,
    classes::Emotion,
    error::DatasetError,
    fault::{BadInput, BadInputs, Fault},
    files::{FoundImage, fits_on_a_line, is_litter, list_images},
    foreign::ClassName,
    layout::Layout,
    split::Split,
};

/// Without a folder for validation, one in this many training images is set apart for it.
const VALID_SHARE: u64 = 10;

const VALID_EXPECTED: &str = "neutral, happiness (happy, joy), surprise (surprised), sadness (sad), anger (angry), \
                              disgust (disgusted), fear (fearful, afraid), contempt, or RAF-DB's 1 to 7";

/// Names of class folders, in lower case.
const NAMES: [(&str, Emotion); 24] = [
    ("neutral", Emotion::Neutral),
    ("neutrality", Emotion::Neutral),
    ("happiness", Emotion::Happiness),
    ("happy", Emotion::Happiness),
    ("joy", Emotion::Happiness),
    ("surprise", Emotion::Surprise),
    ("surprised", Emotion::Surprise),
    ("sadness", Emotion::Sadness),
    ("sad", Emotion::Sadness),
    ("anger", Emotion::Anger),
    ("angry", Emotion::Anger),
    ("disgust", Emotion::Disgust),
    ("disgusted", Emotion::Disgust),
    ("fear", Emotion::Fear),
    ("fearful", Emotion::Fear),
    ("afraid", Emotion::Fear),
    ("contempt", Emotion::Contempt),
    // RAF-DB's readme numbers its basic emotions so.
    ("1", Emotion::Surprise),
    ("2", Emotion::Fear),
    ("3", Emotion::Disgust),
    ("4", Emotion::Happiness),
    ("5", Emotion::Sadness),
    ("6", Emotion::Anger),
    ("7", Emotion::Neutral),
];

/// Whether `dir` has folders for training and test.
pub(crate) fn is_at(dir: &Path) -> bool {
    split_folder(dir, Split::Train).is_some() && split_folder(dir, Split::Test).is_some()
}

/// Lists the images of `dir`. Without a folder for validation, a training image whose id hashes to a
/// multiple of ten is for validation: about a tenth, whichever other images there are.
pub(crate) fn read(dir: &Path, bad: &mut BadInputs, audit: &mut Audit) -> Result<Vec<FoundImage>, DatasetError> {
    audit.valid_set_apart = split_folder(dir, Split::Valid).is_none();
    let mut found = Vec::new();
    for split in Split::ALL {
        if let [(first, _), (second, _), ..] = split_folders(dir, *split).as_slice() {
            return Err(DatasetError::TwoFolders { split: *split, first: first.clone(), second: second.clone() });
        }
        let Some((folder, folder_name)) = split_folder(dir, *split) else {
            if *split == Split::Valid {
                continue;
            }
            let advice = "put the images into `train/<class>` and `test/<class>`";
            return Err(DatasetError::Missing { path: dir.join(split.name()), layout: Layout::Folders, advice });
        };
        for (class_folder, class_name, emotion) in class_folders(&folder, &[], bad)? {
            let Some(emotion) = emotion else { continue };
            for id in list_images(&class_folder, &format!("{folder_name}/{class_name}/"), &[], bad)? {
                let set_apart = *split == Split::Train && audit.valid_set_apart && is_set_apart(&id);
                let split = if set_apart { Split::Valid } else { *split };
                found.push(FoundImage { id, split, annotation: Annotation::Class(emotion) });
            }
        }
    }
    Ok(found)
}

fn is_set_apart(id: &str) -> bool {
    let hash = ContentHash::of(id.as_bytes());
    let number = hash.as_bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    number.is_multiple_of(VALID_SHARE)
}

/// The folder of a split and its name as written on disk.
fn split_folder(dir: &Path, split: Split) -> Option<(PathBuf, String)> {
    split_folders(dir, split).into_iter().next()
}

/// The folder for testing of `dir`, if it has one.
pub(crate) fn test_folder(dir: &Path) -> Option<PathBuf> {
    split_folder(dir, Split::Test).map(|(folder, _)| folder)
}

/// All folders that go by a name of the split. More than one would leave the others' images out silently.
fn split_folders(dir: &Path, split: Split) -> Vec<(PathBuf, String)> {
    let names: &[&str] = match split {
        Split::Train => &["train"],
        Split::Valid => &["valid", "val", "validation"],
        Split::Test => &["test"],
    };
    let mut folders: Vec<(PathBuf, String)> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?)))
        .filter(|(path, name)| names.iter().any(|known| known.eq_ignore_ascii_case(name)) && path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// The class folders of one split with their names and emotions, sorted by name; `names` come before the usual ones, and may
/// say that a class is none. An unknown one is never skipped: numbers beyond RAF-DB's would mean that the known ones are
/// numbered otherwise, too.
pub(crate) fn class_folders(
    folder: &Path,
    names: &[ClassName],
    bad: &mut BadInputs,
) -> Result<Vec<(PathBuf, String, Option<Emotion>)>, DatasetError> {
    let mut entries: Vec<PathBuf> =
        fs_err::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    let mut classes = Vec::new();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_litter(&name) {
            continue;
        }
        if !path.is_dir() {
            bad.take(BadInput::file(&path, Fault::NotInClass))?;
            continue;
        }
        if path.file_name().and_then(OsStr::to_str).is_none_or(|name| !fits_on_a_line(name)) {
            bad.take(BadInput::file(&path, Fault::Name))?;
            continue;
        }
        let given = names.iter().find(|given| given.name.eq_ignore_ascii_case(name.trim())).map(|given| given.emotion);
        let emotion = given.or_else(|| emotion_named(&name).map(Some)).ok_or_else(|| unknown_class(&path, &name))?;
        classes.push((path, name, emotion));
    }
    Ok(classes)
}

fn emotion_named(name: &str) -> Option<Emotion> {
    NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.trim())).map(|(_, emotion)| *emotion)
}

fn unknown_class(path: &Path, name: &str) -> DatasetError {
    // One digit is at distance one from any other: only words have a nearest.
    let words = NAMES.iter().map(|(known, _)| *known).filter(|known| known.len() > 1);
    let hint = nearest(name, words).map_or_else(String::new, |word| format!("; did you mean `{word}`?"));
    DatasetError::UnknownClass { path: path.to_owned(), expected: VALID_EXPECTED.to_owned(), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_in_any_case_and_form() {
        assert_eq!(emotion_named("Happy"), Some(Emotion::Happiness));
        assert_eq!(emotion_named("FEARFUL"), Some(Emotion::Fear));
        assert_eq!(emotion_named("6"), Some(Emotion::Anger));
        assert_eq!(emotion_named("0"), None);
        assert_eq!(emotion_named("calm"), None);
        for emotion in Emotion::ALL {
            assert_eq!(emotion_named(emotion.name()), Some(*emotion));
        }
    }

    #[test]
    fn an_unknown_class_is_answered_with_the_nearest() {
        let message = unknown_class(Path::new("train/hapy"), "hapy").to_string();
        assert!(message.contains("did you mean `happy`?") && message.contains("RAF-DB"), "{message}");
        assert!(!unknown_class(Path::new("train/0"), "0").to_string().contains("did you mean"));
    }

    #[test]
    #[cfg(unix)]
    fn a_class_whose_name_would_break_a_list_is_bad_input() {
        use std::os::unix::ffi::OsStrExt as _;
        for name in [b"happy\n".as_slice(), b"\tsad", b"ang\xffry"] {
            let folder = tempfile::tempdir().unwrap();
            fs_err::create_dir(folder.path().join(OsStr::from_bytes(name))).unwrap();
            fs_err::create_dir(folder.path().join("fear")).unwrap();
            let error = class_folders(folder.path(), &[], &mut BadInputs::new(false)).unwrap_err();
            assert!(matches!(&error, DatasetError::Bad(bad) if bad.fault == Fault::Name), "{error}");
            let found = class_folders(folder.path(), &[], &mut BadInputs::new(true)).unwrap();
            assert_eq!(found.len(), 1);
        }
    }

    #[test]
    fn about_a_tenth_is_set_apart() {
        let count = (0..10_000).filter(|index| is_set_apart(&format!("train/happy/{index}.png"))).count();
        assert!((900..1100).contains(&count), "{count}");
    }
}
