use candle_core::DType;
use kernels::{Isa, Precision};

use crate::{
    About, Batch, Model, VitError,
    native::{Chunks, Layout, Masks, Network},
};

/// A model's answers, without what training needs.
#[derive(Debug)]
pub struct Predictor<'a> {
    model: &'a Model,
    /// On the CPU in 32-bit floats.
    native: Option<Native>,
}

#[derive(Debug)]
struct Native {
    network: Network,
    chunks: Chunks,
}

impl<'a> Predictor<'a> {
    /// Of `model` as it is now.
    ///
    /// # Errors
    /// If `FMSTUDY_ISA` asks for an instruction set that this processor lacks.
    pub fn new(model: &'a Model) -> Result<Self, VitError> {
        if !model.device().is_cpu() || model.dtype() != DType::F32 {
            return Ok(Self { model, native: None });
        }
        let layout = Layout::new(model.parameters());
        let mut network = Network::new((Isa::choose()?, Precision::F32), &layout, model.about())?;
        let mut weights = vec![0.0; layout.len()];
        layout.read(model.parameters(), &mut weights)?;
        network.prepare(&weights);
        Ok(Self { model, native: Some(Native { network, chunks: Chunks::default() }) })
    }

    /// What the model is.
    pub fn about(&self) -> &About {
        self.model.about()
    }

    /// Logits (K) of each image.
    ///
    /// # Errors
    /// If the batch is not what the model reads, or the device fails.
    pub fn logits(&mut self, batch: &Batch) -> Result<Vec<Vec<f32>>, VitError> {
        let tokens = batch.tokens_for(self.model.about())?;
        let Some(Native { network, chunks }) = &mut self.native else {
            let logits = self.model.logits(&batch.token_tensors(self.model)?)?;
            return Ok(logits.to_dtype(DType::F32)?.to_vec2()?);
        };
        let classes = self.model.about().classes.len();
        let mut logits = vec![0.0; batch.images * classes];
        network.logits(chunks, &tokens, &Masks::off(network.blocks.len()), &mut logits);
        Ok(logits.chunks_exact(classes).map(<[f32]>::to_vec).collect())
    }
}
