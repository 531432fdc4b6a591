//! Random access to the rows of `fer2013.csv`.
//!
//! The table is 300 MB of decimal numbers. It is streamed through once; where each row lies, its split and
//! the hash of its pixels are kept as JSON in `fer2013-rows.json`, which stands as long as the table's
//! content hash does.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use csv::ByteRecord;
use serde::{Deserialize, Serialize};
use stage::{ContentHash, HashMemo};

use crate::{error::DatasetError, fault::Fault, pixels::Pixels, split::Split};

/// FER2013's images are 48 pixels wide and high.
const SIDE_PX: usize = 48;

/// Raised when the index's file changes its form.
const FORMAT: u32 = 1;

const INDEX_FILE: &str = "fer2013-rows.json";

/// Rows and bad rows of the table whose hash is `table`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PixelIndex {
    format: u32,
    table: ContentHash,
    pub(crate) columns: Columns,
    pub(crate) rows: Vec<PixelRow>,
    pub(crate) bad_rows: Vec<BadRow>,
}

/// A row that holds an image.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PixelRow {
    /// Which data row, from 1.
    pub(crate) number: usize,
    pub(crate) split: Split,
    /// Of the pixels, not of the text.
    pub(crate) hash: ContentHash,
    pub(crate) span: RowSpan,
}

/// A row that does not.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BadRow {
    pub(crate) line: u64,
    pub(crate) fault: Fault,
}

/// Where a row's text lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowSpan {
    /// Line, from 1.
    pub(crate) line: u64,
    pub(crate) offset_bytes: u64,
    pub(crate) size_bytes: usize,
}

/// Which field is which; Kaggle has published the table with its columns in different orders.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Columns {
    usage: usize,
    pixels: usize,
}

/// The table, open for reading single rows.
#[derive(Debug)]
pub(crate) struct PixelTable {
    path: PathBuf,
    file: File,
    columns: Columns,
}

impl PixelTable {
    /// Opens the table at `path`, with the index kept in `index_dir` or a new one.
    pub(crate) fn open(path: &Path, index_dir: &Path, memo: &HashMemo) -> Result<(Self, PixelIndex), DatasetError> {
        let table = memo.hash_file(path)?;
        let index_path = index_dir.join(INDEX_FILE);
        let index = match stored_index(&index_path, table, fs_err::metadata(path)?.len()) {
            Some(index) => index,
            None => {
                tracing::info!("reading `{}` once, to find its rows", path.display());
                let index = PixelIndex::build(path, fs_err::File::open(path)?, table)?;
                stage::write_sealed_json(&index_path, &index)?;
                index
            }
        };
        let file = fs_err::File::open(path)?.into_file();
        Ok((Self { path: path.to_owned(), file, columns: index.columns }, index))
    }

    /// Where the table lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads one row's pixels. Any number of threads may do so at once.
    pub(crate) fn read(&self, span: RowSpan) -> Result<Pixels, Fault> {
        let mut text = vec![0; span.size_bytes];
        self.read_at(&mut text, span.offset_bytes).map_err(|error| Fault::Unreadable { reason: error.to_string() })?;
        self.columns.pixels_of(&text)
    }

    #[cfg(unix)]
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset_bytes)
    }

    /// Seeking moves every handle of an open file, so each read opens its own.
    #[cfg(not(unix))]
    fn read_at(&self, buffer: &mut [u8], offset_bytes: u64) -> io::Result<()> {
        use std::io::{Read, Seek};
        let mut file = File::open(&self.path)?;
        file.seek(io::SeekFrom::Start(offset_bytes))?;
        file.read_exact(buffer)
    }
}

/// The index in the file, if it is of this table. A damaged one only costs the time to make it anew.
fn stored_index(path: &Path, table: ContentHash, table_bytes: u64) -> Option<PixelIndex> {
    let index: Option<PixelIndex> = stage::read_sound_json(path, "it is made anew");
    index.filter(|index| index.format == FORMAT && index.table == table && index.is_within(table_bytes))
}

impl PixelIndex {
    /// Finds the rows of the table at `path`, whose hash is `table`, in its `text`.
    pub(crate) fn build(path: &Path, text: impl Read, table: ContentHash) -> Result<Self, DatasetError> {
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).buffer_capacity(1 << 20).from_reader(text);
        let mut record = ByteRecord::new();
        let unreadable =
            |line, error: &csv::Error| row_error(path, line, "row", "comma-separated text", error.to_string());
        reader.read_byte_record(&mut record).map_err(|error| unreadable(1, &error))?;
        let columns = Columns::of_header(path, &record)?;

        let (mut rows, mut bad_rows) = (Vec::new(), Vec::new());
        loop {
            let offset_bytes = reader.position().byte();
            let number = rows.len() + bad_rows.len() + 1;
            // The header is line 1, and no field holds a line break.
            let line = number as u64 + 1;
            if !reader.read_byte_record(&mut record).map_err(|error| unreadable(line, &error))? {
                break;
            }
            let size_bytes = (reader.position().byte() - offset_bytes) as usize;
            let usage = String::from_utf8_lossy(record.get(columns.usage).unwrap_or_default());
            let split = Split::from_usage(usage.trim()).ok_or_else(|| {
                row_error(path, line, "Usage", "Training, PublicTest or PrivateTest", format!("`{usage}`"))
            })?;
            match parse_pixels(record.get(columns.pixels).unwrap_or_default()) {
                Ok(pixels) => {
                    let span = RowSpan { line, offset_bytes, size_bytes };
                    rows.push(PixelRow { number, split, hash: ContentHash::of(&pixels), span });
                }
                Err(fault) => bad_rows.push(BadRow { line, fault }),
            }
        }
        Ok(Self { format: FORMAT, table, columns, rows, bad_rows })
    }

    /// Whether all rows are numbered as rows of one table and lie in its `table_bytes` bytes: nothing else is fetched by
    /// number or allocated.
    pub(crate) fn is_within(&self, table_bytes: u64) -> bool {
        let numbers = 1..=self.rows.len() + self.bad_rows.len();
        self.rows.iter().all(|PixelRow { number, span, .. }| {
            let end = span.offset_bytes.checked_add(span.size_bytes as u64);
            numbers.contains(number) && end.is_some_and(|end| end <= table_bytes)
        })
    }
}

fn row_error(path: &Path, line: u64, column: &str, expected: &str, got: String) -> DatasetError {
    DatasetError::Row { path: path.to_owned(), line, column: column.to_owned(), expected: expected.to_owned(), got }
}

impl Columns {
    fn of_header(path: &Path, header: &ByteRecord) -> Result<Self, DatasetError> {
        let names: Vec<String> =
            header.iter().map(|name| String::from_utf8_lossy(name).trim().to_lowercase()).collect();
        let position = |wanted: &str| names.iter().position(|name| name == wanted);
        match (position("usage"), position("pixels")) {
            (Some(usage), Some(pixels)) => Ok(Self { usage, pixels }),
            _ => Err(DatasetError::Header {
                path: path.to_owned(),
                expected: "emotion,pixels,Usage".to_owned(),
                got: names.join(",").chars().take(80).collect(),
            }),
        }
    }

    /// The pixels of the one row that `text` is.
    pub(crate) fn pixels_of(self, text: &[u8]) -> Result<Pixels, Fault> {
        let mut record = ByteRecord::new();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text);
        reader.read_byte_record(&mut record).map_err(|error| Fault::Undecodable { reason: error.to_string() })?;
        let data = parse_pixels(record.get(self.pixels).unwrap_or_default())?;
        Ok(Pixels { width: SIDE_PX, height: SIDE_PX, channels: 1, data })
    }
}

/// 48×48 numbers from 0 to 255 with blanks between.
fn parse_pixels(text: &[u8]) -> Result<Vec<u8>, Fault> {
    let expected = SIDE_PX * SIDE_PX;
    let mut pixels = Vec::with_capacity(expected);
    let mut count = 0;
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        count += 1;
        let value = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
        let got = || String::from_utf8_lossy(&word[..word.len().min(20)]).into_owned();
        pixels.push(value.ok_or_else(|| Fault::PixelValue { position: count, got: got() })?);
    }
    if count == expected { Ok(pixels) } else { Err(Fault::PixelCount { expected, got: count }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_beyond_its_table_is_made_anew() {
        let pixels = vec!["7"; SIDE_PX * SIDE_PX].join(" ");
        let text = format!("emotion,pixels,Usage\n0,{pixels},Training\n\n1,\"{pixels}\",PublicTest\n");
        let index = || PixelIndex::build(Path::new(""), text.as_bytes(), ContentHash::of(b"")).unwrap();
        let bytes = text.len() as u64;
        assert!(index().is_within(bytes) && !index().is_within(bytes - 1));
        let damaged: [fn(&mut PixelRow); 4] = [
            |row| row.number = 0,
            |row| row.number = 3,
            |row| row.span.size_bytes = usize::MAX,
            |row| row.span.offset_bytes = u64::MAX,
        ];
        for damage in damaged {
            let mut damaged = index();
            damage(&mut damaged.rows[1]);
            assert!(!damaged.is_within(bytes));
        }
    }

    #[test]
    fn pixels_are_counted_and_checked() {
        let good = vec!["255"; SIDE_PX * SIDE_PX].join(" ");
        assert_eq!(parse_pixels(good.as_bytes()).unwrap(), vec![255; SIDE_PX * SIDE_PX]);
        assert_eq!(parse_pixels(b"1 2 3"), Err(Fault::PixelCount { expected: 2304, got: 3 }));
        assert_eq!(parse_pixels(b""), Err(Fault::PixelCount { expected: 2304, got: 0 }));
        for got in ["256", "-1", "x"] {
            let fault = parse_pixels(good.replacen("255", got, 1).as_bytes()).unwrap_err();
            assert_eq!(fault, Fault::PixelValue { position: 1, got: got.to_owned() });
        }
    }
}
