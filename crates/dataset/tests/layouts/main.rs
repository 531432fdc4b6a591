//! Opening each layout from real files, good and bad.

#![allow(clippy::unwrap_used, reason = "the helpers are part of the tests")]

mod class_folders;
mod fer2013;
mod ferplus;
mod real_ferplus;

use std::{io::Cursor, path::Path};

use dataset::{Dataset, DatasetError, OpenOptions};
use image::{GrayImage, ImageFormat, Luma};
use stage::HashMemo;
use tempfile::TempDir;

const VOTES_HEADER: &str =
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n";

/// A folder for a data set, and beside it one for what reading it leaves behind.
struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs_err::create_dir(root.path().join("data")).unwrap();
        Self { root }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.root.path().join("data").join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    }

    fn options(&self) -> OpenOptions {
        OpenOptions::new(self.root.path().join("cache"))
    }

    fn open(&self) -> Result<Dataset, DatasetError> {
        self.open_with(&self.options())
    }

    fn open_skipping(&self) -> Dataset {
        self.open_with(&OpenOptions { skip_bad: true, ..self.options() }).unwrap()
    }

    /// Opens with the memo that earlier calls have saved.
    fn open_with(&self, options: &OpenOptions) -> Result<Dataset, DatasetError> {
        let memo = HashMemo::open(&self.root.path().join("hashes"));
        let dataset = Dataset::open(&self.root.path().join("data"), options, &memo);
        memo.save().unwrap();
        dataset
    }

    fn error(&self) -> String {
        self.open().unwrap_err().to_string()
    }
}

/// A grey image of one shade.
fn shade(shade: u8, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    GrayImage::from_pixel(48, 48, Luma([shade])).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(level: u8) -> Vec<u8> {
    shade(level, ImageFormat::Png)
}

fn ids(dataset: &Dataset) -> Vec<&str> {
    dataset.images.iter().map(|image| image.id.as_str()).collect()
}

fn skipped(dataset: &Dataset) -> Vec<String> {
    dataset.audit.skipped.iter().map(ToString::to_string).collect()
}

#[test]
fn a_missing_folder_is_an_unknown_data_set() {
    let absent = Path::new("no/such/folder");
    let place = Place::new();
    let memo = HashMemo::open(&place.root.path().join("hashes"));
    let error = Dataset::open(absent, &place.options(), &memo).unwrap_err().to_string();
    assert!(error.contains("`no/such/folder` is no known data set") && error.contains("fer2013.csv"), "{error}");
}
