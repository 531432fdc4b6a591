//! Facial-expression data sets: which images there are, what annotators said about them, and what a
//! classifier is to learn from that.
//!
//! [`Dataset::open`] recognises three layouts:
//!
//! | [`Layout`] | what lies in the folder |
//! | --- | --- |
//! | `ferplus` | `FER2013Train`, `FER2013Valid`, `FER2013Test` with images and a `label.csv` each, `fer2013new.csv` |
//! | `fer2013` | Kaggle's `fer2013.csv` beside FERPlus's `fer2013new.csv`, joined by row |
//! | `folders` | `train/<class>/*` and `test/<class>/*`, perhaps `valid/<class>/*` |
//!
//! Every image becomes an [`ImageRecord`], whatever its label: features are extracted for all of them, and
//! [`target`] decides per label rule and class set which ones take part in training and evaluation. Opening
//! reads label files and file attributes only, once the [`stage::HashMemo`] knows the images; pixels are
//! read by [`Dataset::decode`].
//!
//! Nothing is dropped silently. A [`BadInput`] stops the opening, or is listed in the [`Audit`] when the
//! options say to skip it; oddities that are no faults (rows without a name, repeated names, copies across
//! splits, label files that disagree) are counted there as well.

mod annotation;
mod audit;
mod class_folders;
mod classes;
mod container;
mod dataset;
mod duplicates;
mod error;
mod fault;
mod fer2013;
mod ferplus;
mod files;
mod foreign;
#[doc(hidden)]
pub mod fuzzing;
mod image_file;
mod label_table;
mod layout;
mod named_rows;
mod pixel_index;
mod pixels;
mod rule;
mod split;
mod target;
mod undecodable;

pub use annotation::{Annotation, Votes};
pub use audit::{Audit, Disagreements, LabelTableAudit, RepeatedName, SplitCount};
pub use classes::{ClassSet, ClassSetError, Emotion};
pub use dataset::{Dataset, ImageRecord, OpenOptions};
pub use error::DatasetError;
pub use fault::{BadInput, Fault};
pub use files::{IMAGE_ENDINGS, has_image_ending};
pub use foreign::{ClassName, ForeignImage, foreign_images};
pub use layout::{LabelSource, Layout};
pub use pixels::Pixels;
pub use rule::LabelRule;
pub use split::Split;
pub use target::{Target, target};
