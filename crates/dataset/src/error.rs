use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{fault::BadInput, layout::Layout, split::Split};

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file system refused; the message names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// One image or row is bad.
    #[error("{0}\n\nhint: mend or remove it, or set `data.skip_bad = true` to leave it out and list it in the audit")]
    Bad(BadInput),
    /// There is nothing to look at.
    #[error("`{dir}` has no images\n\nhint: put them into a folder for each class, `{dir}/happiness/…`")]
    NoImages {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder is none of the known layouts.
    #[error("`{dir}` is no known data set: {found}\n\nhint: {advice}")]
    Unrecognised {
        /// The folder.
        dir: PathBuf,
        /// What lies in it.
        found: String,
        /// What each layout looks like, and how to get one.
        advice: String,
    },
    /// A file or folder that the layout needs is not there.
    #[error("`{path}` is missing, which the layout {layout} needs\n\nhint: {advice}")]
    Missing {
        /// What should be there.
        path: PathBuf,
        /// The layout.
        layout: Layout,
        /// Where to get it, or what to do without it.
        advice: &'static str,
    },
    /// A table's first line is another one than expected.
    #[error("`{path}` line 1 is `{got}`, expected `{expected}`")]
    Header {
        /// The table.
        path: PathBuf,
        /// The header or the columns needed.
        expected: String,
        /// The line that is there.
        got: String,
    },
    /// A row of a table cannot be understood. Never skipped: a damaged table says nothing about an image.
    #[error(
        "`{path}` line {line} has {got} as {column}, expected {expected}\n\nhint: mend the line, or fetch the file anew"
    )]
    Row {
        /// The table.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Which part of the row.
        column: String,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// Two tables that are joined by row have different lengths.
    #[error(
        "`{path}` has {got} rows, expected {expected} as in `{other}`\n\nhint: both must be complete and in their published order"
    )]
    RowCount {
        /// The table of pixels.
        path: PathBuf,
        /// Its rows.
        got: usize,
        /// The table of votes.
        other: PathBuf,
        /// Its rows.
        expected: usize,
    },
    /// Two tables that are joined by row put a row into different splits.
    #[error(
        "`{path}` line {line} is for `{got}`, but `{other}` line {other_line} for `{expected}`\n\nhint: the rows of \
         both must be in their published order"
    )]
    RowSplit {
        /// The table of pixels.
        path: PathBuf,
        /// The line in it.
        line: u64,
        /// Its usage.
        got: &'static str,
        /// The table of votes.
        other: PathBuf,
        /// The line in it.
        other_line: u64,
        /// Its usage.
        expected: &'static str,
    },
    /// Two folders could be meant by one split.
    #[error(
        "`{first}` and `{second}` could both be the images for {split}\n\nhint: keep one of them, or put all images into it"
    )]
    TwoFolders {
        /// The split.
        split: Split,
        /// One folder.
        first: PathBuf,
        /// The next one.
        second: PathBuf,
    },
    /// A class folder is named after no emotion.
    #[error("`{path}` is named after no emotion, expected {expected}{hint}")]
    UnknownClass {
        /// The folder.
        path: PathBuf,
        /// The valid names.
        expected: String,
        /// The nearest of them.
        hint: String,
    },
    /// There is nothing to learn from.
    #[error("`{dir}` has no usable training image")]
    NoTrainingImages {
        /// The data set.
        dir: PathBuf,
    },
    /// The content is not the one that was hashed when the data set was opened.
    #[error("`{path}` changed while it was in use\n\nhint: run the command again")]
    Changed {
        /// The image or the table.
        path: PathBuf,
    },
}

impl DatasetError {
    /// The file whose content is the trouble, if it is one file's.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Bad(bad) => Some(&bad.path),
            Self::Changed { path } => Some(path),
            _ => None,
        }
    }
}
