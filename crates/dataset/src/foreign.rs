//! Images of another data set, on which a study's models are judged.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{
    class_folders::{class_folders, test_folder},
    classes::Emotion,
    error::DatasetError,
    fault::BadInputs,
    files::list_images,
};

/// An image with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignImage {
    /// Its file.
    pub path: PathBuf,
    /// What it shows.
    pub emotion: Emotion,
}

/// What a class folder's name means where the usual names do not say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClassName {
    /// The folder's name, in any case.
    pub name: String,
    /// What it shows; none if its images are to be left out.
    pub emotion: Option<Emotion>,
}

/// The word for a class that is left out.
const NO_CLASS: &str = "none";

impl FromStr for ClassName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || format!("expected name=class, for example joy=happiness, or name={NO_CLASS}");
        let (name, class) = text.split_once('=').ok_or_else(expected)?;
        let emotion = match class.trim() {
            NO_CLASS => None,
            class => Some(class.parse().map_err(|error| format!("{error}"))?),
        };
        Ok(Self { name: name.trim().to_owned(), emotion })
    }
}

impl TryFrom<String> for ClassName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ClassName> for String {
    fn from(ClassName { name, emotion }: ClassName) -> Self {
        format!("{name}={}", emotion.map_or(NO_CLASS, Emotion::name))
    }
}

/// Lists the images of `dir`, a folder with a folder for each class, sorted; those of its `test` folder if it has one. `names` come
/// before the usual names of classes.
///
/// # Errors
/// If a class folder has an unknown name, or holds anything but images; if there are no images.
pub fn foreign_images(dir: &Path, names: &[ClassName]) -> Result<Vec<ForeignImage>, DatasetError> {
    let folder = test_folder(dir).unwrap_or_else(|| dir.to_owned());
    let mut bad = BadInputs::new(false);
    let mut images = Vec::new();
    for (class_folder, _, emotion) in class_folders(&folder, names, &mut bad)? {
        let Some(emotion) = emotion else { continue };
        for name in list_images(&class_folder, "", &[], &mut bad)? {
            images.push(ForeignImage { path: class_folder.join(name), emotion });
        }
    }
    match images.is_empty() {
        true => Err(DatasetError::NoImages { dir: folder }),
        false => Ok(images),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names_are_what_they_say() {
        let joy = ClassName { name: "joy".to_owned(), emotion: Some(Emotion::Happiness) };
        assert_eq!("joy=happiness".parse(), Ok(joy.clone()));
        assert_eq!(String::from(joy), "joy=happiness");
        assert_eq!("calm = none".parse(), Ok(ClassName { name: "calm".to_owned(), emotion: None }));
        assert!("joy".parse::<ClassName>().unwrap_err().contains("joy=happiness"));
        assert!("joy=hapiness".parse::<ClassName>().unwrap_err().contains("did you mean `happiness`?"));
    }

    #[test]
    fn folders_of_classes_with_and_without_a_test_folder() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = folder.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, b"").unwrap();
        };
        let listed = |names: &[ClassName]| foreign_images(folder.path(), names);
        assert!(listed(&[]).unwrap_err().to_string().contains("has no images"));
        put("happy/a.png");
        put("wrath/b.jpg");
        assert!(matches!(listed(&[]).unwrap_err(), DatasetError::UnknownClass { .. }));
        let wrath: ClassName = "Wrath=anger".parse().unwrap();
        let found: Vec<Emotion> = listed(&[wrath]).unwrap().iter().map(|image| image.emotion).collect();
        assert_eq!(found, [Emotion::Happiness, Emotion::Anger]);
        let none: ClassName = "wrath=none".parse().unwrap();
        assert_eq!(listed(&[none]).unwrap().len(), 1);
        put("test/fear/c.png");
        let found = listed(&[]).unwrap();
        assert_eq!((found.len(), found[0].emotion), (1, Emotion::Fear), "only the images for testing");
    }
}
