//! A small expression data set that needs no download: faces drawn from parameters, in FERPlus's layout.
//!
//! ```text
//! expression ─► actions (which muscles pull, how strongly) ─┐
//!               person  (proportions, tones, hair) ─────────┴► anatomy (curves) ─► paint ─► camera ─► 48×48 grey
//!            └► votes   (ten simulated annotators) ─► dataset (PNG files and tables)
//! ```
//!
//! It exists so that the whole chain can be shown and tested anywhere. It says nothing about real faces: accuracies
//! on it are no result.

mod actions;
mod anatomy;
mod camera;
mod canvas;
mod dataset;
mod expression;
mod faces;
mod paint;
mod person;
mod sdf;
mod study;
mod votes;
mod weights;

pub use dataset::{SplitCounts, Written, write_faces};
pub use expression::Expression;
pub use faces::{FACE_SIZE_PX, Face, draw};
pub use study::write_demo;
pub use votes::{ANNOTATORS, VOTE_COLUMNS};
pub use weights::write_weights;
