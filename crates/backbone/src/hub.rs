use std::{
    error::Error,
    path::{Path, PathBuf},
};

use hf_hub::{HFClientBuilder, split_id};

use crate::WeightsError;

/// Attempts after the first: with the client's pauses a machine without network waits 1.4 s at most.
const RETRIES: usize = 3;

/// The weights file that `weights` names: a path as it is, or a model on the Hugging Face Hub
/// (`timm/resnet18.tv_in1k`), whose `model.safetensors` is fetched once and kept in the Hub's own cache.
///
/// A name counts as a path if it exists or ends in a known extension.
pub fn fetch_weights(weights: &str) -> Result<PathBuf, WeightsError> {
    let path = Path::new(weights);
    let has_known_extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| matches!(extension, "safetensors" | "npz" | "pth" | "pt"));
    if path.is_file() || has_known_extension || weights.matches('/').count() != 1 {
        return Ok(path.to_owned());
    }
    let file = "model.safetensors";
    let (owner, name) = split_id(weights);
    let fetch = || {
        let model = HFClientBuilder::new().retry_max_attempts(RETRIES).build_sync()?.model(owner, name);
        // What is kept is not asked for again: it serves offline, and no command waits for the network.
        let kept = model.download_file().filename(file).local_files_only(true).send();
        kept.or_else(|_| model.download_file().filename(file).send())
    };
    fetch().map_err(|error| WeightsError::Hub {
        repo: weights.to_owned(),
        file: file.to_owned(),
        reason: root_cause(&error),
    })
}

/// The innermost error, such as `Connection refused`: what lies around it repeats the address.
fn root_cause(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), root_cause)
}
