//! Kaggle's `fer2013.csv` beside FERPlus's `fer2013new.csv`, joined by row: row n of the one is the image
//! that row n of the other has the votes for.

use std::path::Path;

use stage::HashMemo;

use crate::{
    annotation::Annotation,
    audit::Audit,
    dataset::{ImageRecord, Location},
    error::DatasetError,
    fault::{BadInput, BadInputs},
    label_table::{FER2013NEW, LabelTable},
    layout::{LabelSource, Layout},
    pixel_index::PixelTable,
};

const FER2013: &str = "fer2013.csv";

/// Whether `dir` has Kaggle's table.
pub(crate) fn is_at(dir: &Path) -> bool {
    dir.join(FER2013).is_file()
}

/// Lists the rows of the table of pixels with their votes. `index_dir` keeps where each row lies.
pub(crate) fn read(
    dir: &Path,
    source: LabelSource,
    index_dir: &Path,
    memo: &HashMemo,
    bad: &mut BadInputs,
    audit: &mut Audit,
) -> Result<(Vec<ImageRecord>, PixelTable), DatasetError> {
    let (pixels_path, votes_path) = (dir.join(FER2013), dir.join(FER2013NEW));
    let missing =
        |path: &Path, advice| Err(DatasetError::Missing { path: path.to_owned(), layout: Layout::Fer2013, advice });
    if source != LabelSource::Fer2013new {
        let advice = "this layout has no folders; set `data.label_source = \"fer2013new\"`";
        return missing(&dir.join("FER2013Train/label.csv"), advice);
    }
    if !pixels_path.is_file() {
        return missing(&pixels_path, "get it from Kaggle's facial expression recognition challenge of 2013");
    }
    if !votes_path.is_file() {
        return missing(&votes_path, "get it from https://github.com/microsoft/FERPlus");
    }
    let labels = LabelTable::read_fer2013new(&votes_path)?;
    audit.label_tables = vec![labels.audit()];
    let (table, index) = PixelTable::open(&pixels_path, index_dir, memo)?;

    let rows = index.rows.len() + index.bad_rows.len();
    if rows != labels.rows.len() {
        let (got, expected) = (rows, labels.rows.len());
        return Err(DatasetError::RowCount { path: pixels_path, got, other: votes_path, expected });
    }
    for row in index.bad_rows {
        bad.take(BadInput::row(&pixels_path, row.line, row.fault))?;
    }
    let mut images = Vec::with_capacity(index.rows.len());
    for row in index.rows {
        let label = &labels.rows[row.number - 1];
        if row.split != label.split {
            return Err(DatasetError::RowSplit {
                path: pixels_path,
                line: row.span.line,
                got: row.split.usage(),
                other: votes_path,
                other_line: label.line,
                expected: label.split.usage(),
            });
        }
        images.push(ImageRecord {
            id: format!("{FER2013}#{}", row.number),
            split: row.split,
            hash: row.hash,
            annotation: Annotation::Votes(label.votes),
            location: Location::Row(row.span),
        });
    }
    Ok((images, table))
}
