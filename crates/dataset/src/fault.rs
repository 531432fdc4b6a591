use std::{
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{DatasetError, split::Split};

/// What is wrong with one image or one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// The file cannot be opened or read.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// What the operating system says.
        reason: String,
    },
    /// A pipe, a device or the like.
    #[error("is no regular file")]
    NotAFile,
    /// The file is too long to be an image.
    #[error("has {bytes} bytes, more than the {limit} allowed")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// Allowed bytes.
        limit: u64,
    },
    /// The file has no content.
    #[error("is empty")]
    Empty,
    /// The content does not begin as an image does.
    #[error("is no PNG, JPEG or BMP image")]
    NotAnImage,
    /// The file ends before the image does.
    #[error("is a truncated {format} image")]
    Truncated {
        /// PNG, JPEG or BMP.
        format: String,
    },
    /// The image decoder gave up.
    #[error("cannot be decoded: {reason}")]
    Undecodable {
        /// What the decoder says.
        reason: String,
    },
    /// The image would take too much memory.
    #[error("is {width}×{height}, more than the {limit} pixels allowed")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Allowed pixels.
        limit: u64,
    },
    /// The name ends like no supported image's.
    #[error("is not named like an image, expected the ending .png, .jpg, .jpeg or .bmp")]
    Ending,
    /// The name is not UTF-8, or holds a control character: a line break in it would be one in every list of names.
    #[error("has a name that is not UTF-8 or holds a control character")]
    Name,
    /// A folder lies among the images.
    #[error("is a folder, expected an image")]
    Folder,
    /// A file lies beside the class folders.
    #[error("lies in no class folder")]
    NotInClass,
    /// A label row names an image that is not there.
    #[error("names `{name}`, which is not in `{folder}`")]
    MissingImage {
        /// The name in the row.
        name: String,
        /// Where it should be.
        folder: String,
    },
    /// A label row puts an image into another split than its folder does.
    #[error("says `{name}` is for {expected}, but the image lies in the folder for {got}")]
    OtherSplit {
        /// The name in the row.
        name: String,
        /// The row's split.
        expected: Split,
        /// The split of the folder that the image lies in.
        got: Split,
    },
    /// A row of pixels has the wrong length.
    #[error("has {got} pixels, expected {expected}")]
    PixelCount {
        /// 48×48.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A pixel is no number from 0 to 255.
    #[error("has `{got}` as pixel {position}, expected a number from 0 to 255")]
    PixelValue {
        /// Which pixel, from 1.
        position: usize,
        /// What is written there.
        got: String,
    },
}

/// A [`Fault`] and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadInput {
    /// The file.
    pub path: PathBuf,
    /// The line in it, from 1; none when the file as a whole is meant.
    pub line: Option<u64>,
    /// What is wrong.
    pub fault: Fault,
}

impl BadInput {
    pub(crate) fn file(path: &Path, fault: Fault) -> Self {
        Self { path: path.to_owned(), line: None, fault }
    }

    pub(crate) fn row(path: &Path, line: u64, fault: Fault) -> Self {
        Self { path: path.to_owned(), line: Some(line), fault }
    }
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('`')?;
        for character in self.path.to_string_lossy().chars() {
            // What a terminal would obey instead of showing it.
            match character.is_control() {
                true => write!(f, "{}", character.escape_default())?,
                false => f.write_char(character)?,
            }
        }
        f.write_char('`')?;
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        write!(f, " {}", self.fault)
    }
}

/// Takes what is bad: stops at the first, or keeps a list.
#[derive(Debug)]
pub(crate) struct BadInputs {
    skip: bool,
    skipped: Vec<BadInput>,
}

impl BadInputs {
    pub(crate) const fn new(skip: bool) -> Self {
        Self { skip, skipped: Vec::new() }
    }

    /// Lists `bad` if bad input is to be skipped, else makes it the error.
    pub(crate) fn take(&mut self, bad: BadInput) -> Result<(), DatasetError> {
        if !self.skip {
            return Err(DatasetError::Bad(bad));
        }
        self.skipped.push(bad);
        Ok(())
    }

    pub(crate) fn into_skipped(self) -> Vec<BadInput> {
        self.skipped
    }
}
