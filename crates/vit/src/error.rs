use std::{io, path::PathBuf};

use sources::Source;

/// What can go wrong while a model is configured, trained, stored or used.
#[derive(Debug, thiserror::Error)]
pub enum VitError {
    /// A configuration key has a value that makes no sense.
    #[error("`{key}` cannot be {got}, expected {expected}")]
    Key {
        /// The key, as in the configuration.
        key: &'static str,
        /// Its value.
        got: String,
        /// What is allowed.
        expected: String,
    },
    /// A tensor does not have the shape that its place demands.
    #[error("{what} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// Which tensor.
        what: String,
        /// The shape that is needed.
        expected: Vec<usize>,
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// A batch lacks what a model reads.
    #[error("the batch has no tokens of {missing}, which the model reads")]
    NoTokens {
        /// The source.
        missing: Source,
    },
    /// The number of token tensors is not the number of sources.
    #[error("got the tokens of {got} sources, expected {expected}")]
    SourceCount {
        /// How many sources the model reads.
        expected: usize,
        /// How many tensors were given.
        got: usize,
    },
    /// The loss or the gradient has become NaN or infinite.
    #[error("the {what} is {value} at step {step}; {}", kept(.checkpoint_step))]
    NotFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step, counted from 1.
        step: usize,
        /// The step of the checkpoint that was kept, if one had been written.
        checkpoint_step: Option<usize>,
    },
    /// A GPU failed, or cannot be used.
    #[cfg(any(feature = "cuda", test))]
    #[error(transparent)]
    Gpu(#[from] gpu::GpuError),
    /// A parameter is left out of the loss, or an op without a backward pass stands between them.
    #[error("parameter `{name}` receives no gradient")]
    NoGradient {
        /// The parameter.
        name: String,
    },
    /// A file of tensors is damaged, or not of this program.
    #[error("`{path}` is damaged or no file of fmstudy: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A stored tensor is absent.
    #[error("`{path}` has no tensor `{name}`")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// The checkpoint belongs to a run of another configuration.
    #[error("`{path}` belongs to configuration {got}, expected {expected}")]
    OtherConfiguration {
        /// The checkpoint.
        path: PathBuf,
        /// The digest of the present configuration.
        expected: String,
        /// The digest in the checkpoint.
        got: String,
    },
    /// `FMSTUDY_ISA` asks for what this processor lacks.
    #[error(transparent)]
    Isa(#[from] kernels::UnavailableIsa),
    /// The supplier of batches, or the validation, failed.
    #[error("step {step}: {source}")]
    Caller {
        /// The step, counted from 1.
        step: usize,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A record cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

fn kept(checkpoint_step: &Option<usize>) -> String {
    checkpoint_step.map_or_else(
        || "no checkpoint had been written".to_owned(),
        |step| format!("the checkpoint of step {step} is kept"),
    )
}

impl VitError {
    pub(crate) fn key(key: &'static str, got: impl ToString, expected: impl Into<String>) -> Self {
        Self::Key { key, got: got.to_string(), expected: expected.into() }
    }
}

/// Fails unless `tensor` has the shape `expected`; `what` names it.
pub(crate) fn check_shape(
    tensor: &candle_core::Tensor,
    expected: &[usize],
    what: impl FnOnce() -> String,
) -> Result<(), VitError> {
    if tensor.dims() == expected {
        return Ok(());
    }
    Err(VitError::Shape { what: what(), expected: expected.to_vec(), got: tensor.dims().to_vec() })
}
