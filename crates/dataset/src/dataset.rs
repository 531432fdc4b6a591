use std::path::{Path, PathBuf};

use stage::{ContentHash, HashMemo};

use crate::{
    annotation::Annotation,
    audit::Audit,
    class_folders,
    duplicates::Duplicates,
    error::DatasetError,
    fault::{BadInput, BadInputs, Fault},
    fer2013, ferplus,
    files::hash_images,
    image_file,
    layout::{LabelSource, Layout},
    pixel_index::{PixelTable, RowSpan},
    pixels::Pixels,
    split::Split,
    undecodable::Undecodable,
};

/// How to read a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// The layout, or to recognise it.
    pub layout: Layout,
    /// Which of FERPlus's label files counts; of no meaning for class folders.
    pub label_source: LabelSource,
    /// Whether bad input is left out and listed, instead of an error.
    pub skip_bad: bool,
    /// Where the index of a `fer2013.csv` is kept. Can be lost at any time.
    pub index_dir: PathBuf,
}

impl OpenOptions {
    /// The defaults: recognise the layout, labels of `fer2013new.csv`, stop at bad input.
    pub fn new(index_dir: impl Into<PathBuf>) -> Self {
        Self {
            layout: Layout::default(),
            label_source: LabelSource::default(),
            skip_bad: false,
            index_dir: index_dir.into(),
        }
    }
}

/// One image: what it is, not its pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// A stable, unique name: the path below the data set (`FER2013Train/fer0000000.png`), or the data row
    /// counted from one (`fer2013.csv#12`).
    pub id: String,
    /// What the image is for.
    pub split: Split,
    /// Hash of the file's bytes, or of the row's pixels.
    pub hash: ContentHash,
    /// What is known about the expression.
    pub annotation: Annotation,
    pub(crate) location: Location,
}

/// Where an image's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// In the file that the id names.
    File,
    /// In the table of pixels.
    Row(RowSpan),
}

/// A data set: its images in a fixed order, and what was odd about it.
#[derive(Debug)]
pub struct Dataset {
    /// Its folder.
    pub dir: PathBuf,
    /// How it lies there; never [`Layout::Auto`].
    pub layout: Layout,
    /// All images, whatever their labels, ordered by folder and name or by row.
    pub images: Vec<ImageRecord>,
    /// What is worth knowing about it.
    pub audit: Audit,
    duplicates: Duplicates,
    pixel_table: Option<PixelTable>,
}

impl Dataset {
    /// Lists the images in `dir` with their hashes and annotations.
    ///
    /// Only images that `memo` does not know are read, in parallel, and checked to be whole images by their
    /// structure; that they can be decoded shows in [`decode`](Self::decode), and those of which
    /// [`remember_undecodable`](Self::remember_undecodable) knows that they cannot are bad input. The caller saves the
    /// memo.
    ///
    /// # Errors
    ///
    /// See [`DatasetError`]. With `skip_bad`, bad images and rows are listed in the audit instead.
    pub fn open(dir: &Path, options: &OpenOptions, memo: &HashMemo) -> Result<Self, DatasetError> {
        let layout = options.layout.resolve(dir)?;
        let mut audit = Audit::new(layout);
        let mut bad = BadInputs::new(options.skip_bad);
        let undecodable = Undecodable::read(&options.index_dir);
        let (images, pixel_table) = match layout {
            Layout::Fer2013 => {
                let OpenOptions { label_source, index_dir, .. } = options;
                let (images, table) = fer2013::read(dir, *label_source, index_dir, memo, &mut bad, &mut audit)?;
                (images, Some(table))
            }
            Layout::Folders => {
                let found = class_folders::read(dir, &mut bad, &mut audit)?;
                (hash_images(dir, found, memo, &undecodable, &mut bad)?, None)
            }
            // `resolve` returns no `Auto`; FERPlus's messages say what is missing.
            Layout::Auto | Layout::Ferplus => {
                let found = ferplus::read(dir, options.label_source, &mut bad, &mut audit)?;
                (hash_images(dir, found, memo, &undecodable, &mut bad)?, None)
            }
        };
        if !images.iter().any(|image| image.split == Split::Train) {
            return Err(DatasetError::NoTrainingImages { dir: dir.to_owned() });
        }
        let duplicates = Duplicates::among(&images);
        audit.count(&images, &duplicates);
        audit.warn_of_gaps();
        audit.skipped = bad.into_skipped();
        Ok(Self { dir: dir.to_owned(), layout, images, audit, duplicates, pixel_table })
    }

    /// Reads and decodes the image at `index`, which may be done by any number of threads at once.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Bad`] if it cannot be read or decoded; [`DatasetError::Changed`] if its content is no
    /// longer the one whose hash [`open`](Self::open) reported, so that features never go by a wrong hash.
    ///
    /// # Panics
    ///
    /// If there is no such index.
    pub fn decode(&self, index: usize) -> Result<Pixels, DatasetError> {
        let image = &self.images[index];
        match (image.location, &self.pixel_table) {
            (Location::Row(span), Some(table)) => {
                let at_row = |fault| DatasetError::Bad(BadInput::row(table.path(), span.line, fault));
                let pixels = table.read(span).map_err(at_row)?;
                image.verify(&pixels.data, table.path())?;
                Ok(pixels)
            }
            _ => {
                let path = self.dir.join(&image.id);
                let at_file = |fault| DatasetError::Bad(BadInput::file(&path, fault));
                let bytes = image_file::read(&path).map_err(at_file)?;
                image.verify(&bytes, &path)?;
                Pixels::decode(&bytes).map_err(at_file)
            }
        }
    }

    /// Remembers by its content that the image at `index` cannot be decoded, if that is what `error` of
    /// [`decode`](Self::decode) says: the next [`open`](Self::open) with the same `index_dir` counts it as bad input.
    /// Gives the error back if it is another.
    pub fn remember_undecodable(
        &self,
        index: usize,
        error: DatasetError,
        index_dir: &Path,
    ) -> Result<(), DatasetError> {
        match error {
            DatasetError::Bad(BadInput { fault: Fault::Unreadable { .. }, .. }) => Err(error),
            DatasetError::Bad(BadInput { fault, .. }) => {
                Ok(Undecodable::add(index_dir, self.images[index].hash, fault)?)
            }
            other => Err(other),
        }
    }

    /// One hash of every image's id, split and annotation: it changes with the labels and not with the pixels.
    pub fn labels_digest(&self) -> ContentHash {
        let annotations: Vec<Vec<u8>> = self.images.iter().map(|image| image.annotation.bytes()).collect();
        ContentHash::of_parts(self.images.iter().zip(&annotations).flat_map(|(image, annotation)| {
            [image.id.as_bytes(), image.split.name().as_bytes(), annotation.as_slice()]
        }))
    }

    /// Groups of two or more byte-identical images, as ascending indices, ordered by their first.
    pub fn duplicate_groups(&self) -> &[Vec<usize>] {
        &self.duplicates.groups
    }

    /// Ascending indices of the test images that have a byte-identical copy in the training split,
    /// whatever the labels of either.
    pub fn leaked_test_images(&self) -> &[usize] {
        &self.duplicates.leaked
    }
}

impl ImageRecord {
    fn verify(&self, content: &[u8], path: &Path) -> Result<(), DatasetError> {
        if ContentHash::of(content) == self.hash {
            Ok(())
        } else {
            Err(DatasetError::Changed { path: path.to_owned() })
        }
    }
}
