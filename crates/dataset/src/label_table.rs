//! FERPlus's two kinds of vote table.
//!
//! ```text
//! fer2013new.csv   Usage,Image name,neutral,…,contempt,unknown,NF     one header, all splits
//! label.csv        fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0   no header, one split
//! ```

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use compact_str::CompactString;
use csv::StringRecord;

use crate::{annotation::Votes, audit::LabelTableAudit, error::DatasetError, named_rows::NamedRows, split::Split};

/// File name of the table above the folders.
pub(crate) const FER2013NEW: &str = "fer2013new.csv";

const FER2013NEW_HEADER: &str =
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF";

/// Both kinds have two fields before the votes.
const FIELDS_BEFORE_VOTES: usize = 2;

/// One image's votes.
#[derive(Debug)]
pub(crate) struct VoteRow {
    /// Line in the table, from 1.
    pub(crate) line: u64,
    /// What the image is for.
    pub(crate) split: Split,
    /// File name of the image; empty in rows of images that FERPlus does not use. Most are short enough to lie in place.
    pub(crate) name: CompactString,
    /// What the annotators said.
    pub(crate) votes: Votes,
}

/// A table of votes in file order.
#[derive(Debug)]
pub(crate) struct LabelTable {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its rows, without the header.
    pub(crate) rows: Vec<VoteRow>,
    /// Those with a name, in the order of their names.
    pub(crate) named: NamedRows,
}

impl LabelTable {
    /// Reads `fer2013new.csv`.
    pub(crate) fn read_fer2013new(path: &Path) -> Result<Self, DatasetError> {
        Self::parse_fer2013new(path, fs_err::File::open(path)?)
    }

    /// The same from its `text`.
    pub(crate) fn parse_fer2013new(path: &Path, text: impl Read) -> Result<Self, DatasetError> {
        let mut reader = reader(text);
        let mut header = StringRecord::new();
        reader.read_record(&mut header).map_err(|error| unreadable_row(path, &error))?;
        let got = header.iter().map(str::trim).collect::<Vec<_>>().join(",");
        if !got.eq_ignore_ascii_case(FER2013NEW_HEADER) {
            return Err(DatasetError::Header { path: path.to_owned(), expected: FER2013NEW_HEADER.to_owned(), got });
        }
        read_rows(path, reader, 2, |field, line| {
            let usage = &field[0];
            let split = Split::from_usage(usage).ok_or_else(|| DatasetError::Row {
                path: path.to_owned(),
                line,
                column: "Usage".to_owned(),
                expected: "Training, PublicTest or PrivateTest".to_owned(),
                got: format!("`{usage}`"),
            })?;
            Ok((split, field[1].trim().into()))
        })
    }

    /// Reads the `label.csv` of one split's folder.
    pub(crate) fn read_folder_labels(path: &Path, split: Split) -> Result<Self, DatasetError> {
        Self::parse_folder_labels(path, fs_err::File::open(path)?, split)
    }

    /// The same from its `text`.
    pub(crate) fn parse_folder_labels(path: &Path, text: impl Read, split: Split) -> Result<Self, DatasetError> {
        read_rows(path, reader(text), 1, |field, _| Ok((split, field[0].trim().into())))
    }

    /// What is odd about the table.
    pub(crate) fn audit(&self) -> LabelTableAudit {
        let numbered = self.rows.iter().enumerate().filter_map(|(row, entry)| Some((row, number_in(&entry.name)?)));
        LabelTableAudit {
            path: self.path.clone(),
            rows: self.rows.len(),
            lines_without_name: self.rows.iter().filter(|row| row.name.is_empty()).map(|row| row.line).collect(),
            repeated: self.named.repeated(&self.rows),
            names_not_numbered_by_row: numbered.filter(|(row, number)| row != number).count(),
        }
    }
}

/// The number in a name such as `fer0000012.png`.
fn number_in(name: &str) -> Option<usize> {
    name.strip_prefix("fer")?.strip_suffix(".png")?.parse().ok()
}

fn reader<R: Read>(text: R) -> csv::Reader<R> {
    // Field counts are checked here, to be reported in our own words.
    csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text)
}

fn read_rows(
    path: &Path,
    mut reader: csv::Reader<impl Read>,
    first_line: u64,
    split_and_name: impl Fn(&StringRecord, u64) -> Result<(Split, CompactString), DatasetError>,
) -> Result<LabelTable, DatasetError> {
    let mut rows = Vec::new();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| unreadable_row(path, &error))? {
        // Counted here, as no field holds a line break: the reader's own count is one behind after `\r\n`.
        let line = first_line + rows.len() as u64;
        let expected = FIELDS_BEFORE_VOTES + Votes::COLUMNS;
        if record.len() != expected {
            return Err(DatasetError::Row {
                path: path.to_owned(),
                line,
                column: "row".to_owned(),
                expected: format!("{expected} fields"),
                got: format!("{} fields", record.len()),
            });
        }
        let (split, name) = split_and_name(&record, line)?;
        rows.push(VoteRow { line, split, name, votes: votes(path, line, &record)? });
    }
    Ok(LabelTable { path: path.to_owned(), named: NamedRows::of(&rows), rows })
}

fn votes(path: &Path, line: u64, record: &StringRecord) -> Result<Votes, DatasetError> {
    let mut votes = [0; Votes::COLUMNS];
    for (column, vote) in votes.iter_mut().enumerate() {
        let field = &record[FIELDS_BEFORE_VOTES + column];
        *vote = field.trim().parse().map_err(|_| DatasetError::Row {
            path: path.to_owned(),
            line,
            column: format!("count {}", column + 1),
            expected: "a number of votes".to_owned(),
            got: format!("`{field}`"),
        })?;
    }
    Ok(Votes(votes))
}

fn unreadable_row(path: &Path, error: &csv::Error) -> DatasetError {
    DatasetError::Row {
        path: path.to_owned(),
        line: error.position().map_or(0, csv::Position::line),
        column: "row".to_owned(),
        expected: "comma-separated UTF-8 text".to_owned(),
        got: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &str) -> Result<LabelTable, DatasetError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FER2013NEW);
        fs_err::write(&path, rows).unwrap();
        LabelTable::read_fer2013new(&path)
    }

    #[test]
    fn rows_keep_their_lines_and_the_first_of_a_name_counts() {
        let rows = "Training,fer0000000.png,1,2,3,4,5,6,7,8,9,10\nTraining,,0,0,0,0,0,0,0,0,0,10\n\
                    PublicTest,fer0000001.png,9,0,0,0,0,0,0,0,0,0\nTraining,fer0000000.png,0,9,0,0,0,0,0,0,0,0\n";
        for ending in ["\n", "\r\n"] {
            let table = table(&format!("{FER2013NEW_HEADER}\n{rows}").replace('\n', ending)).unwrap();
            assert_eq!(table.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 3, 4, 5]);
            assert_eq!(table.rows[0].votes, Votes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
            assert_eq!(table.walk().votes(Split::Train, "fer0000000.png"), Some(table.rows[0].votes));
            assert_eq!(table.walk().votes(Split::Valid, "fer0000001.png"), Some(table.rows[2].votes));
            assert_eq!(table.walk().votes(Split::Valid, "fer0000000.png"), None);
            assert_eq!(table.names(), 2);
            let audit = table.audit();
            assert_eq!(audit.lines_without_name, [3]);
            assert_eq!((audit.repeated[0].lines.as_slice(), audit.repeated[0].same_votes), ([2, 5].as_slice(), false));
            assert_eq!(audit.names_not_numbered_by_row, 2);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_named_with_its_line() {
        let message = |row: &str| table(&format!("{FER2013NEW_HEADER}\n{row}\n")).unwrap_err().to_string();
        assert!(message("Trainin,a.png,0,0,0,0,0,0,0,0,0,0").contains("line 2 has `Trainin` as Usage"));
        assert!(
            message("Training,a.png,0,0,0,0,0,0,0,0,0").contains("line 2 has 11 fields as row, expected 12 fields")
        );
        assert!(message("Training,a.png,0,0,x,0,0,0,0,0,0,0").contains("line 2 has `x` as count 3"));
        let header = table("Usage,Name\n").unwrap_err().to_string();
        assert!(header.contains("line 1 is `Usage,Name`, expected `Usage,Image name,neutral"), "{header}");
    }
}
