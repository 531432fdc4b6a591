use std::{io, path::PathBuf};

use stage::SealError;

/// What can be wrong with a feature cache.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A file is there but says something else than expected.
    #[error(
        "`{path}` has {what} {got}, expected {expected}\n\nhint: run `just extract`, which makes anew what is damaged"
    )]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// Which property.
        what: &'static str,
        /// What was found.
        got: String,
        /// What should be there.
        expected: String,
    },
    /// A JSON file or a safetensors header cannot be parsed.
    #[error("`{path}` is damaged: {reason}\n\nhint: run `just extract`, which makes anew what is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A feature has not been extracted.
    #[error("`{path}` holds no feature `{feature}`\n\nhint: run `just extract extract.features={feature}`")]
    MissingFeature {
        /// The manifest.
        path: PathBuf,
        /// The feature.
        feature: String,
    },
    /// A value cannot be stored in the dtype.
    #[error("{feature} of image `{image}` holds {value}, which {dtype} cannot store\n\nhint: {}", hint_for(*value))]
    NotFinite {
        /// The feature.
        feature: String,
        /// The image's id, or its file.
        image: String,
        /// The offending value.
        value: f32,
        /// The cache's dtype.
        dtype: String,
    },
}

fn hint_for(value: f32) -> &'static str {
    if value.is_finite() {
        "set extract.dtype = bf16 or f32, which hold larger numbers"
    } else {
        "the backbone's sums are out of all bounds: check extract.weights, or set extract.precision = f32"
    }
}

impl From<SealError> for ShardError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Io(error) => Self::Io(error),
            SealError::Damaged { path, reason } => Self::Damaged { path, reason },
        }
    }
}
