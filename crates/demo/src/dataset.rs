//! Writes drawn faces in FERPlus's layout.
//!
//! ```text
//! DIR/FER2013Train|FER2013Valid|FER2013Test/fer0000000.png …   48×48 grey
//! DIR/FER2013Train|FER2013Valid|FER2013Test/label.csv          name, box, ten counts; no header
//! DIR/fer2013new.csv                                           usage, name, ten counts; with a header
//! DIR/demo.json                                                what was asked for; there only if all is there
//! ```

use std::path::Path;

use anyhow::{Context, Result, bail};
use fs_err as fs;
use image::{ExtendedColorType, ImageFormat};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    expression::Expression,
    faces::{FACE_SIZE_PX, Face},
    votes::{VOTE_COLUMNS, vote},
};

/// Raised whenever the same seed and counts would give other bytes.
const VERSION: u32 = 2;

const MARKER: &str = "demo.json";
const TABLE: &str = "fer2013new.csv";

/// Images per split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// In `FER2013Train`.
    pub train: usize,
    /// In `FER2013Valid`.
    pub valid: usize,
    /// In `FER2013Test`.
    pub test: usize,
}

/// Whether [`write_faces`] had anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The set was drawn and written.
    Fresh,
    /// The same set was there already; nothing was touched.
    AlreadyThere,
}

/// What the marker file says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    version: u32,
    seed: u64,
    counts: SplitCounts,
}

/// One split: its folder, its name in the table, its images' numbers.
struct Split {
    folder: &'static str,
    usage: &'static str,
    first: usize,
    count: usize,
}

/// One image's line in the tables.
struct Row {
    name: String,
    counts: [u8; VOTE_COLUMNS.len()],
}

/// Draws `counts` faces into `dir` in FERPlus's layout. The same seed and counts give the same bytes, however many
/// threads draw.
///
/// The set is written beside `dir` and renamed at the end, so `dir` is either complete or untouched. A different demo
/// set in `dir` is replaced; if the same one is there, with all its images, nothing is done.
///
/// # Errors
/// When a file cannot be written, and when `dir` holds anything that is not a demo set: it is never replaced.
pub fn write_faces(dir: &Path, seed: u64, counts: SplitCounts) -> Result<Written> {
    let marker = Marker { version: VERSION, seed, counts };
    let replaces = match fs::read(dir.join(MARKER)) {
        Ok(bytes) => {
            if serde_json::from_slice::<Marker>(&bytes).is_ok_and(|found| found == marker) && is_complete(dir, counts) {
                return Ok(Written::AlreadyThere);
            }
            true
        }
        Err(_) if !dir.exists() => false,
        Err(_) if fs::read_dir(dir)?.next().is_none() => true,
        Err(_) => bail!("`{}` holds something that is not a demo set; it was left as it is", dir.display()),
    };

    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent)?;
    let scratch = tempfile::Builder::new()
        .prefix(".demo-")
        .tempdir_in(parent)
        .with_context(|| format!("no temporary folder in `{}`", parent.display()))?;
    let new = scratch.path().join("new");
    fs::create_dir(&new)?;
    write_set(&new, seed, counts)?;
    fs::write(new.join(MARKER), serde_json::to_vec_pretty(&marker)?)?;
    if replaces {
        // Goes away with the scratch folder.
        fs::rename(dir, scratch.path().join("old"))?;
    }
    fs::rename(&new, dir)?;
    Ok(Written::Fresh)
}

fn splits(counts: SplitCounts) -> [Split; 3] {
    let SplitCounts { train, valid, test } = counts;
    [
        Split { folder: "FER2013Train", usage: "Training", first: 0, count: train },
        Split { folder: "FER2013Valid", usage: "PublicTest", first: train, count: valid },
        Split { folder: "FER2013Test", usage: "PrivateTest", first: train + valid, count: test },
    ]
}

fn image_name(number: usize) -> String {
    format!("fer{number:07}.png")
}

/// Whether all files that the marker promises still exist.
fn is_complete(dir: &Path, counts: SplitCounts) -> bool {
    dir.join(TABLE).is_file()
        && splits(counts).iter().all(|split| {
            let folder = dir.join(split.folder);
            folder.join("label.csv").is_file()
                && (split.first..split.first + split.count).all(|number| folder.join(image_name(number)).is_file())
        })
}

fn write_set(dir: &Path, seed: u64, counts: SplitCounts) -> Result<()> {
    let table_path = dir.join(TABLE);
    let mut table = csv::Writer::from_writer(fs::File::create(&table_path)?);
    table.write_record(["Usage", "Image name"].into_iter().chain(VOTE_COLUMNS))?;
    for (index, split) in splits(counts).iter().enumerate() {
        for row in write_split(dir, split, seed, index as u64)? {
            let votes = row.counts.map(|count| count.to_string());
            table.write_record([split.usage, &row.name].into_iter().chain(votes.iter().map(String::as_str)))?;
        }
    }
    table.flush().with_context(|| format!("cannot write `{}`", table_path.display()))
}

fn write_split(dir: &Path, split: &Split, seed: u64, split_index: u64) -> Result<Vec<Row>> {
    let folder = dir.join(split.folder);
    fs::create_dir(&folder)?;
    let rows = shuffled_classes(split.count, &mut generator(seed, split_index, Purpose::Order, 0))
        .into_par_iter()
        .enumerate()
        .map(|(index, expression)| {
            let mut rng = generator(seed, split_index, Purpose::Face, index as u64);
            let face = Face::sample(expression, &mut rng);
            let counts = vote(&face, &mut rng);
            let name = image_name(split.first + index);
            let path = folder.join(&name);
            let side = FACE_SIZE_PX as u32;
            image::save_buffer_with_format(
                &path,
                &face.render(&mut rng),
                side,
                side,
                ExtendedColorType::L8,
                ImageFormat::Png,
            )
            .with_context(|| format!("cannot write `{}`", path.display()))?;
            Ok(Row { name, counts })
        })
        .collect::<Result<Vec<Row>>>()?;

    let label_path = folder.join("label.csv");
    let mut labels = csv::Writer::from_writer(fs::File::create(&label_path)?);
    let whole_image = format!("(0, 0, {FACE_SIZE_PX}, {FACE_SIZE_PX})");
    for row in &rows {
        let votes = row.counts.map(|count| count.to_string());
        labels.write_record([&row.name, &whole_image].into_iter().chain(&votes))?;
    }
    labels.flush().with_context(|| format!("cannot write `{}`", label_path.display()))?;
    Ok(rows)
}

/// What a generator is for: two purposes never share random numbers.
#[derive(Clone, Copy)]
enum Purpose {
    Order,
    Face,
}

/// A generator of its own for every image, so that the order in which threads draw does not matter.
fn generator(seed: u64, split: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, split, purpose as u64, index]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Parts in a hundred of each expression. FERPlus (majority, training) has about 35 26 13 12 9 0.5 2 0.5; here the
/// rare ones are common enough that a set of a few hundred has them in every split.
const CLASS_PERCENT: [usize; 8] = [26, 20, 14, 13, 11, 5, 7, 4];

/// `count` expressions in the proportions of [`CLASS_PERCENT`], shuffled.
fn shuffled_classes(count: usize, rng: &mut ChaCha8Rng) -> Vec<Expression> {
    // Cumulative rounding: every class is within one of its share, and they sum to `count`.
    let mut percent = 0;
    let mut classes = Vec::with_capacity(count);
    for (expression, share) in Expression::ALL.into_iter().zip(CLASS_PERCENT) {
        percent += share;
        classes.resize((count * percent + 50) / 100, expression);
    }
    classes.shuffle(rng);
    classes
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use super::*;

    const COUNTS: SplitCounts = SplitCounts { train: 40, valid: 12, test: 10 };

    /// Every file below `dir` with its bytes.
    fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(contents(&path).into_iter().map(|(name, bytes)| (path.join(name), bytes)));
            } else {
                files.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
        files.into_iter().map(|(path, bytes)| (path.strip_prefix(dir).unwrap().to_path_buf(), bytes)).collect()
    }

    fn write_with_threads(dir: &Path, seed: u64, threads: usize) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| write_faces(dir, seed, COUNTS)).unwrap(), Written::Fresh);
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
        let scratch = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| scratch.path().join(name));
        write_with_threads(&a, 1, 1);
        write_with_threads(&b, 1, 3);
        write_with_threads(&c, 2, 3);
        assert_eq!(contents(&a), contents(&b));
        assert_ne!(contents(&a), contents(&c));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 3, "temporary folders were left behind");
    }

    #[test]
    fn the_layout_is_ferplus() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("deep/er/set");
        write_faces(&dir, 3, COUNTS).unwrap();
        let files = contents(&dir);
        assert_eq!(files.len(), 40 + 12 + 10 + 3 + 2);
        for (name, bytes) in files.iter().filter(|(name, _)| name.extension().is_some_and(|end| end == "png")) {
            let picture = image::load_from_memory(bytes).unwrap();
            assert_eq!((picture.width(), picture.height()), (48, 48), "{}", name.display());
            assert_eq!(picture.color(), image::ColorType::L8);
        }

        let table = String::from_utf8(files[Path::new(TABLE)].clone()).unwrap();
        let mut lines = table.lines();
        let header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF";
        assert_eq!(lines.next(), Some(header));
        let rows: Vec<&str> = lines.collect();
        assert_eq!(rows.len(), 62);
        assert!(rows[0].starts_with("Training,fer0000000.png,"));
        assert!(rows[40].starts_with("PublicTest,fer0000040.png,"));
        assert!(rows[61].starts_with("PrivateTest,fer0000061.png,"));
        for row in &rows {
            assert_eq!(row.split(',').skip(2).map(|count| count.parse::<u32>().unwrap()).sum::<u32>(), 10, "{row}");
        }
        let labels = String::from_utf8(files[Path::new("FER2013Test/label.csv")].clone()).unwrap();
        let expected = rows[52].replace("PrivateTest,fer0000052.png,", "fer0000052.png,\"(0, 0, 48, 48)\",");
        assert_eq!(labels.lines().next(), Some(expected.as_str()));
    }

    #[test]
    fn a_complete_set_is_left_alone_and_another_is_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("set");
        write_faces(&dir, 1, COUNTS).unwrap();
        let before = contents(&dir);
        assert_eq!(write_faces(&dir, 1, COUNTS).unwrap(), Written::AlreadyThere);

        fs::remove_file(dir.join("FER2013Valid/fer0000041.png")).unwrap();
        assert_eq!(write_faces(&dir, 1, COUNTS).unwrap(), Written::Fresh);
        assert_eq!(contents(&dir), before);

        let fewer = SplitCounts { train: 20, ..COUNTS };
        assert_eq!(write_faces(&dir, 1, fewer).unwrap(), Written::Fresh);
        assert_eq!(contents(&dir).len(), before.len() - 20);
    }

    #[test]
    fn a_folder_that_is_no_demo_set_is_never_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let precious = scratch.path().join("precious.txt");
        fs::write(&precious, "mine").unwrap();
        let error = write_faces(scratch.path(), 1, COUNTS).unwrap_err().to_string();
        assert!(error.contains("not a demo set"), "{error}");
        assert_eq!(fs::read(&precious).unwrap(), b"mine");
    }

    #[test]
    fn every_class_is_there_and_the_shares_sum_up() {
        assert_eq!(CLASS_PERCENT.iter().sum::<usize>(), 100);
        for count in [0, 1, 30, 333] {
            let classes = shuffled_classes(count, &mut generator(1, 0, Purpose::Order, 0));
            assert_eq!(classes.len(), count);
            let kinds = Expression::ALL.iter().filter(|&expression| classes.contains(expression)).count();
            assert!(count < 30 || kinds == 8, "{kinds} expressions among {count}");
        }
    }
}
