use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    annotation::Annotation, dataset::ImageRecord, duplicates::Duplicates, fault::BadInput, layout::Layout, split::Split,
};

/// What is worth knowing about a data set before its numbers are believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// How the data set lies in its folder.
    pub layout: Layout,
    /// Images per split.
    pub splits: BTreeMap<Split, SplitCount>,
    /// Whether the validation images were set apart from the training folder, there being none for them.
    pub valid_set_apart: bool,
    /// The vote tables that were read.
    pub label_tables: Vec<LabelTableAudit>,
    /// How FERPlus's two label sources differ, where both are there.
    pub label_disagreements: Option<Disagreements>,
    /// Groups of images with the same bytes.
    pub duplicate_groups: usize,
    /// Images in these groups.
    pub duplicate_images: usize,
    /// Test images with a copy in the training split, whatever their labels.
    pub leaked_test_images: usize,
    /// Bad input that was left out.
    pub skipped: Vec<BadInput>,
}

/// The images of one split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SplitCount {
    /// All of them.
    pub images: usize,
    /// Those that no label row names.
    pub unlabelled: usize,
}

/// Oddities of one vote table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LabelTableAudit {
    /// The file.
    pub path: PathBuf,
    /// Its rows, without the header.
    pub rows: usize,
    /// Lines of the rows that name no file.
    pub lines_without_name: Vec<u64>,
    /// Names that occur more than once.
    pub repeated: Vec<RepeatedName>,
    /// Names such as `fer0000012.png` in another row than the twelfth (counted from zero): numbers are no
    /// row numbers, so a table joined by row must not be joined by them.
    pub names_not_numbered_by_row: usize,
}

/// A file name that several rows of a table have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepeatedName {
    /// The name.
    pub name: String,
    /// Its lines. Where images are found by name, the first counts; where tables are joined by row, each
    /// counts for its own image.
    pub lines: Vec<u64>,
    /// Whether the rows have the same votes.
    pub same_votes: bool,
}

/// How `fer2013new.csv` and the `label.csv` files differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Disagreements {
    /// Images that both have votes for.
    pub compared: usize,
    /// Images with other votes.
    pub different: usize,
    /// Images whose majority label among the eight emotions changes, appears or disappears.
    pub majority_changed: usize,
}

impl Disagreements {
    /// Those and others.
    pub(crate) const fn and(self, others: Self) -> Self {
        Self {
            compared: self.compared + others.compared,
            different: self.different + others.different,
            majority_changed: self.majority_changed + others.majority_changed,
        }
    }
}

impl Audit {
    pub(crate) const fn new(layout: Layout) -> Self {
        Self {
            layout,
            splits: BTreeMap::new(),
            valid_set_apart: false,
            label_tables: Vec::new(),
            label_disagreements: None,
            duplicate_groups: 0,
            duplicate_images: 0,
            leaked_test_images: 0,
            skipped: Vec::new(),
        }
    }

    /// Fills in what follows from the images.
    pub(crate) fn count(&mut self, images: &[ImageRecord], duplicates: &Duplicates) {
        self.splits = Split::ALL.iter().map(|split| (*split, SplitCount::default())).collect();
        for image in images {
            let count = self.splits.entry(image.split).or_default();
            count.images += 1;
            count.unlabelled += usize::from(image.annotation == Annotation::None);
        }
        let Duplicates { groups, leaked } = duplicates;
        self.duplicate_groups = groups.len();
        self.duplicate_images = groups.iter().map(Vec::len).sum();
        self.leaked_test_images = leaked.len();
    }

    /// Warns of splits in which many images have no label row.
    pub(crate) fn warn_of_gaps(&self) {
        for (split, SplitCount { images, unlabelled }) in &self.splits {
            if *unlabelled as f64 > SUSPICIOUS_SHARE * *images as f64 {
                tracing::warn!("{unlabelled} of {images} images for {split} have no label row; is the table complete?");
            }
        }
    }
}

/// A label table that was cut short leaves many images without a row; FERPlus's own leave none.
const SUSPICIOUS_SHARE: f64 = 0.01;

/// A short table for the terminal: the counts, and a line for each oddity that there is.
impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "data audit, layout {}\n  split  images  unlabelled", self.layout)?;
        for (split, count) in &self.splits {
            write!(f, "\n  {split:5}  {:6}  {:10}", count.images, count.unlabelled)?;
        }
        if self.valid_set_apart {
            write!(f, "\n  no folder for validation: a tenth of the training images is set apart")?;
        }
        for table in &self.label_tables {
            table.fmt_oddities(f)?;
        }
        if let Some(labels) = self.label_disagreements {
            write!(f, "\n  label files disagree on {} of {} images, ", labels.different, labels.compared)?;
            write!(f, "{} of them with another majority", labels.majority_changed)?;
        }
        if self.duplicate_groups > 0 {
            write!(f, "\n  {} groups of identical images ({} images); ", self.duplicate_groups, self.duplicate_images)?;
            write!(f, "{} test images have a copy in train", self.leaked_test_images)?;
        }
        for bad in &self.skipped {
            write!(f, "\n  skipped: {bad}")?;
        }
        Ok(())
    }
}

impl LabelTableAudit {
    fn fmt_oddities(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path.file_name().map_or_else(|| self.path.display(), |name| Path::new(name).display());
        if !self.lines_without_name.is_empty() {
            write!(f, "\n  {name}: {} rows name no file", self.lines_without_name.len())?;
        }
        for RepeatedName { name: repeated, lines, same_votes } in &self.repeated {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            let votes = if *same_votes { "the same" } else { "different" };
            write!(f, "\n  {name}: {repeated} occurs in lines {} with {votes} votes", lines.join(", "))?;
        }
        if self.names_not_numbered_by_row > 0 {
            let (odd, rows) = (self.names_not_numbered_by_row, self.rows);
            write!(f, "\n  {name}: {odd} of {rows} rows have a name whose number is not the row's")?;
        }
        Ok(())
    }
}
