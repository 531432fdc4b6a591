//! For tests only: the parsers as functions of bytes, which say whether they accept them.

use std::{cell::RefCell, path::Path};

use candle_core::{DType, Device};
use sources::Source;

use crate::{About, Checkpoint, Draws, Input, Model, ModelConfig, Precision, Recipe, Trainer, VitError, tensor_file};

const PATH: &str = "fuzzed.safetensors";

/// `model.safetensors`.
pub fn model(bytes: &[u8]) -> bool {
    let path = Path::new(PATH);
    let file = tensor_file::parse(path, bytes, &Device::Cpu);
    file.and_then(|file| Model::of_file(file, path, &Device::Cpu)).is_ok()
}

/// `checkpoint.safetensors`, of the model that [`sample`] is.
pub fn checkpoint(bytes: &[u8]) -> bool {
    thread_local! {
        static SAMPLE: RefCell<Option<(Model, Trainer)>> = RefCell::new(sample().ok());
    }
    let path = Path::new(PATH);
    let Ok(file) = tensor_file::parse::<Checkpoint>(path, bytes, &Device::Cpu) else { return false };
    SAMPLE.with_borrow_mut(|sample| {
        let (model, trainer) = sample.as_mut().expect("a small model can be made");
        let digest = file.about.digest.clone();
        let Ok(checkpoint) = Checkpoint::restore_from(file, path, &digest, model, trainer) else { return false };
        let Checkpoint { mut progress, .. } = checkpoint;
        progress.add_step(progress.step.saturating_add(1), progress.recent_loss(), &[0.5, 0.5]);
        true
    })
}

/// The file's bytes with the checksum of what they hold, if they are a model or checkpoint but for that.
pub fn resealed(bytes: &[u8]) -> Vec<u8> {
    tensor_file::resealed(bytes).unwrap_or_else(|| bytes.to_vec())
}

/// A model so small that its file has a few KB.
pub fn sample() -> Result<(Model, Trainer), VitError> {
    let config = ModelConfig { width: 4, depth: 1, heads: 1, mlp_ratio: 1, ..ModelConfig::default() };
    let inputs = vec![Input { source: Source::Fm4, token_width: 2 }];
    let about = About { model: config, inputs, classes: vec!["neutral".to_owned(), "happiness".to_owned()] };
    let model = Model::new(about, 0, DType::F32, &Device::Cpu)?;
    let trainer = Trainer::new(&model, &Recipe::default(), Precision::F32)?;
    Ok((model, trainer))
}

/// Writes the checkpoint of a [`sample`] to `path`.
pub fn write_checkpoint(path: &Path) -> Result<(), VitError> {
    let (model, trainer) = sample()?;
    let checkpoint = Checkpoint {
        digest: "sample".to_owned(),
        draws: Draws::new(0, 1),
        progress: Default::default(),
        metrics: None,
    };
    tensor_file::write(path, &checkpoint, &Checkpoint::tensors(&model, &trainer)?)
}
