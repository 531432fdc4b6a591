use std::path::{Path, PathBuf};

use choice::choice;

use crate::{class_folders, error::DatasetError, fer2013, ferplus};

choice! {
    /// How a data set lies in its folder.
    #[derive(Default)]
    pub enum Layout for "data.layout" {
        /// Recognised by what is there.
        #[default]
        Auto = "auto",
        /// FERPlus's folders of images beside its tables of votes.
        Ferplus = "ferplus",
        /// Kaggle's table of pixels beside FERPlus's table of votes.
        Fer2013 = "fer2013",
        /// One folder per split, in it one per class.
        Folders = "folders",
    }
}

choice! {
    /// Which of FERPlus's label files counts. They disagree on some images.
    #[derive(Default)]
    pub enum LabelSource for "data.label_source" {
        /// The table above the folders, as Microsoft publishes and maintains it.
        #[default]
        Fer2013new = "fer2013new",
        /// The `label.csv` in each folder.
        Folders = "folder",
    }
}

const ADVICE: &str = "`data.dir` must be one of
  ferplus: FER2013Train, FER2013Valid and FER2013Test with PNG images, beside fer2013new.csv
  fer2013: Kaggle's fer2013.csv beside fer2013new.csv
  folders: train/<class>/* and test/<class>/*, classes named after emotions
fer2013new.csv is at https://github.com/microsoft/FERPlus, fer2013.csv in Kaggle's \"Challenges in Representation \
Learning: Facial Expression Recognition Challenge\"";

/// How many entries of an unknown folder the error lists.
const LISTED_ENTRIES: usize = 8;

impl Layout {
    /// The layout of `dir`: itself, unless it is to be recognised.
    ///
    /// Images made from `fer2013.csv` may lie beside it; they win, being faster to read. FERPlus's own
    /// repository has the folders without images; those do not count.
    pub(crate) fn resolve(self, dir: &Path) -> Result<Self, DatasetError> {
        if self != Self::Auto {
            return Ok(self);
        }
        recognise(dir).map_or_else(|| Err(unrecognised(dir)), Ok)
    }
}

fn recognise(dir: &Path) -> Option<Layout> {
    let candidates = [
        (Layout::Ferplus, ferplus::is_at(dir)),
        (Layout::Fer2013, fer2013::is_at(dir)),
        (Layout::Folders, class_folders::is_at(dir)),
    ];
    candidates.into_iter().find(|(_, found)| *found).map(|(layout, _)| layout)
}

fn unrecognised(dir: &Path) -> DatasetError {
    let mut entries: Vec<PathBuf> = match fs_err::read_dir(dir) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(error) => {
            let found = error.to_string();
            return DatasetError::Unrecognised { dir: dir.to_owned(), found, advice: ADVICE.to_owned() };
        }
    };
    entries.sort();
    let inner = entries.iter().filter(|path| path.is_dir()).find_map(|path| Some((path, recognise(path)?)));
    let advice = inner.map_or_else(
        || ADVICE.to_owned(),
        |(path, layout)| format!("`{0}` looks like layout {layout}; set `data.dir = \"{0}\"`", path.display()),
    );
    let names: Vec<String> = entries
        .iter()
        .take(LISTED_ENTRIES)
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let found = match entries.len() {
        0 => "it is empty".to_owned(),
        count if count > LISTED_ENTRIES => format!("it has {} and {} more", names.join(", "), count - LISTED_ENTRIES),
        _ => format!("it has {}", names.join(", ")),
    };
    DatasetError::Unrecognised { dir: dir.to_owned(), found, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_folder_is_described() {
        let dir = tempfile::tempdir().unwrap();
        let message = |dir: &Path| Layout::Auto.resolve(dir).unwrap_err().to_string();
        assert!(message(dir.path()).contains("it is empty"));
        assert!(message(&dir.path().join("absent")).contains("absent"));
        for index in 0..10 {
            fs_err::write(dir.path().join(format!("{index}.txt")), "").unwrap();
        }
        let listed = message(dir.path());
        assert!(listed.contains("it has 0.txt, 1.txt"), "{listed}");
        assert!(listed.contains("and 2 more") && listed.contains("github.com/microsoft/FERPlus"), "{listed}");
    }

    #[test]
    fn a_data_set_one_folder_down_is_pointed_at() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(dir.path().join("raf/train/happy")).unwrap();
        fs_err::create_dir_all(dir.path().join("raf/test/happy")).unwrap();
        let message = Layout::Auto.resolve(dir.path()).unwrap_err().to_string();
        assert!(message.contains("raf` looks like layout folders"), "{message}");
    }
}
