use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use candle_core::DType;
use zip::ZipArchive;

/// ResNet-18 has 122 tensors; readers walk through the table of contents for each.
const MOST_ENTRIES: usize = 4096;

/// What an archive may unpack to, and its tensors take. ResNet-18 needs 47 MB.
const MOST_BYTES: u64 = 1 << 30;

/// What a byte of an archive may unpack to. Weights hardly shrink; a thousandfold is the mark of a file made to fill memory.
const MOST_BYTES_PER_BYTE: u64 = 100;

/// Of an entry that holds the array which the rest of its name is.
const NPY_ENDING: &str = ".npy";

/// A zip archive of tensors, whose table of contents has been looked at before any reader believes it.
pub(crate) struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// Each entry's name, and its bytes when unpacked.
    entries: Vec<(String, u64)>,
    /// Those of all entries.
    unpacked: u64,
}

impl Archive {
    /// Opens the archive `path`. Nothing is ever written where an entry's name says; a name that points out of the archive is
    /// refused all the same, as are entries that share bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let file_bytes = file.metadata().map_err(|error| error.to_string())?.len();
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|error| error.to_string())?;
        if zip.len() > MOST_ENTRIES {
            return Err(format!("it has {} entries, expected at most {MOST_ENTRIES}", zip.len()));
        }
        if zip.has_overlapping_entries().map_err(|error| error.to_string())? {
            return Err("its entries overlap".to_owned());
        }
        let (mut entries, mut unpacked) = (Vec::with_capacity(zip.len()), 0u64);
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(|error| error.to_string())?;
            let name = entry.name().map_err(|error| error.to_string())?.into_owned();
            if name.starts_with(['/', '\\']) || name.split(['/', '\\']).any(|part| part == "..") {
                return Err(format!("its entry {name:?} points out of it"));
            }
            unpacked = unpacked.saturating_add(entry.size());
            entries.push((name, entry.size()));
        }
        let most = MOST_BYTES.min(file_bytes.saturating_mul(MOST_BYTES_PER_BYTE));
        if unpacked > most {
            return Err(format!("its {file_bytes} bytes claim to unpack to {unpacked}, expected at most {most}"));
        }
        Ok(Self { zip, entries, unpacked })
    }

    /// Looks at up to `most` bytes from the beginning of every entry whose name ends with `ending`; `look` is given its size
    /// as well.
    ///
    /// # Errors
    /// If one cannot be unpacked, or `look` finds fault with it.
    pub(crate) fn look(
        &mut self,
        ending: &str,
        most: u64,
        look: impl Fn(&[u8], u64) -> Result<(), String>,
    ) -> Result<(), String> {
        let ends = |(_, (name, _)): &(usize, &(String, u64))| name.ends_with(ending);
        for (index, (_, size)) in self.entries.iter().enumerate().filter(ends) {
            let entry = self.zip.by_index(index).map_err(|error| error.to_string())?;
            let mut bytes = Vec::new();
            entry.take(most).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            look(&bytes, *size)?;
        }
        Ok(())
    }

    /// Checks that tensors of `bytes` in all are not many times what the archive holds: many names for one entry would fill the
    /// memory.
    ///
    /// # Errors
    /// If they are.
    pub(crate) fn check_sum(&self, bytes: u64) -> Result<(), String> {
        /// Weights that two layers share lie in the archive once.
        const MOST_NAMES_OF_A_BYTE: u64 = 4;
        match bytes > MOST_BYTES.min(self.unpacked.saturating_mul(MOST_NAMES_OF_A_BYTE)) {
            true => Err(format!(
                "its tensors claim {bytes} bytes of the {} that it holds, and at most {MOST_BYTES} are read",
                self.unpacked
            )),
            false => Ok(()),
        }
    }

    /// Checks that the entries of this `name` can hold a tensor of this shape that begins `start` bytes into them.
    ///
    /// # Errors
    /// If one cannot, or there is none.
    pub(crate) fn check(&self, name: &str, start: usize, shape: &[usize], dtype: DType) -> Result<(), String> {
        // A reader may go by an array's name for its entry.
        let goes_by = |entry: &str| entry == name || entry.strip_suffix(NPY_ENDING) == Some(name);
        let sizes = self.entries.iter().filter(|(entry, _)| goes_by(entry)).map(|(_, size)| *size);
        let size = sizes.min().ok_or_else(|| format!("it has no entry {name:?}"))?;
        // Strides are products of sides, too, where one side is 0 and the tensor holds nothing.
        let whole = shape.iter().try_fold(1usize, |product, side| product.checked_mul((*side).max(1)));
        let bytes = whole
            .and_then(|_| shape.iter().product::<usize>().checked_mul(dtype.size_in_bytes()))
            .and_then(|bytes| bytes.checked_add(start));
        match bytes {
            Some(bytes) if bytes as u64 <= size => Ok(()),
            _ => Err(format!("its entry {name:?} of {size} bytes cannot hold {dtype:?} {shape:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, content) in entries {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn opened(bytes: &[u8]) -> Result<Archive, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Archive::open(file.path())
    }

    fn refusal(bytes: &[u8]) -> String {
        opened(bytes).err().unwrap()
    }

    /// Where the table of contents has its entry `index`.
    fn central(bytes: &[u8], index: usize) -> usize {
        bytes.windows(4).enumerate().filter(|(_, four)| *four == b"PK\x01\x02").nth(index).unwrap().0
    }

    #[test]
    fn an_entry_that_points_out_of_the_archive_is_refused() {
        for name in ["../a.npy", "/a.npy", "a/../../b.npy", "a/../b.npy", "..\\a.npy"] {
            assert!(refusal(&zipped(&[(name, b"")])).contains("points out of it"), "{name}");
        }
        opened(&zipped(&[("a/b.npy", b"")])).unwrap();
    }

    #[test]
    fn entries_that_share_bytes_are_refused() {
        let mut bytes = zipped(&[("a", &[0; 100]), ("b", &[0; 100])]);
        let second = central(&bytes, 1);
        bytes[second + 42..second + 46].fill(0); // Where its content begins: where the first one's does.
        assert!(refusal(&bytes).contains("overlap"));
    }

    #[test]
    fn an_archive_that_unpacks_to_far_more_than_it_has_is_refused() {
        let mut bytes = zipped(&[("a", &[0; 100])]);
        let first = central(&bytes, 0);
        bytes[first + 24..first + 28].copy_from_slice(&1_000_000u32.to_le_bytes()); // Its size when unpacked.
        assert!(refusal(&bytes).contains("claim to unpack to 1000000"), "{}", refusal(&bytes));
    }

    #[test]
    fn too_many_entries_are_refused() {
        let names: Vec<String> = (0..=MOST_ENTRIES).map(|number| number.to_string()).collect();
        let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
        assert!(refusal(&zipped(&entries)).contains("4097 entries"));
        opened(&zipped(&entries[1..])).unwrap();
    }

    #[test]
    fn a_tensor_must_fit_into_the_smallest_entry_of_its_name() {
        let archive = opened(&zipped(&[("a.npy", &[0; 24]), ("a", &[0; 16]), ("b", &[0; 100])])).unwrap();
        archive.check("a", 0, &[2, 2], DType::F32).unwrap();
        archive.check("a", 0, &[0, 9], DType::F32).unwrap();
        archive.check("a", 12, &[], DType::F32).unwrap();
        archive.check("a", 1, &[2, 2], DType::F32).unwrap_err();
        archive.check("a", usize::MAX, &[2], DType::F32).unwrap_err();
        archive.check("b", 0, &[1 << 32, 1 << 32], DType::F32).unwrap_err();
        archive.check("b", 0, &[1 << 62], DType::F32).unwrap_err();
        archive.check("b", 0, &[0, 1 << 63, 4], DType::F32).unwrap_err();
        archive.check("c", 0, &[1], DType::F32).unwrap_err();
    }
}
