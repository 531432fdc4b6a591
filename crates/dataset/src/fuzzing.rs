//! For tests only: the parsers as functions of bytes, which say whether they accept them. They panic if a parser contradicts
//! itself.

use std::path::Path;

use stage::ContentHash;

use crate::{
    label_table::LabelTable,
    pixel_index::{PixelIndex, PixelRow},
    split::Split,
};

/// `fer2013new.csv`.
pub fn fer2013new(bytes: &[u8]) -> bool {
    LabelTable::parse_fer2013new(Path::new("fer2013new.csv"), bytes).map(audit).is_ok()
}

/// A folder's `label.csv`.
pub fn folder_labels(bytes: &[u8]) -> bool {
    LabelTable::parse_folder_labels(Path::new("label.csv"), bytes, Split::Train).map(audit).is_ok()
}

fn audit(table: LabelTable) {
    table.audit();
}

/// `fer2013.csv`: a row that is read by itself holds the pixels that were hashed when the whole table was read.
pub fn pixel_table(bytes: &[u8]) -> bool {
    let Ok(index) = PixelIndex::build(Path::new("fer2013.csv"), bytes, ContentHash::of(b"")) else { return false };
    for row in &index.rows {
        let hash = index.columns.pixels_of(text(row, bytes)).map(|pixels| ContentHash::of(&pixels.data));
        assert_eq!(hash, Ok(row.hash), "line {}", row.span.line);
    }
    true
}

/// `fer2013-rows.json`, of a table of as many bytes as itself.
pub fn pixel_index(bytes: &[u8]) -> bool {
    let Ok(index) = stage::parse_sealed_json::<PixelIndex>(Path::new("fer2013-rows.json"), bytes) else { return false };
    if index.is_within(bytes.len() as u64) {
        index.rows.iter().for_each(|row| drop(index.columns.pixels_of(text(row, bytes))));
    }
    true
}

fn text<'a>(row: &PixelRow, table: &'a [u8]) -> &'a [u8] {
    &table[row.span.offset_bytes as usize..][..row.span.size_bytes]
}
