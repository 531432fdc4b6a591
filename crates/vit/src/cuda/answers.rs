use std::rc::Rc;

use gpu::{Array, Extent, Machine};
use sources::Source;

use super::{activations::Forward, constants, network::Network, sources::Stock};
use crate::{Batch, Model, Precision, VitError, layers::LAYER_NORM_EPSILON};

/// What several runs answer to the same batches, computed for all of them at once.
#[derive(Debug)]
pub(crate) struct Answers {
    network: Network,
    /// For batches of the size of the last one, with the logits (R, B, K).
    room: Option<(Forward, Array<f32>)>,
}

impl Answers {
    /// Of `models`, which differ in nothing but their sources and weights. `machine` was compiled with their
    /// [`constants`] in 32-bit floats.
    pub(crate) fn new(machine: Box<dyn Machine>, models: &[&Model]) -> Result<Self, VitError> {
        Ok(Self { network: Network::new(machine, models, Precision::F32)?, room: None })
    }

    /// Bytes of a machine's memory that a run of `model` takes with batches of `images`, nearly.
    pub(crate) fn bytes(model: &Model, images: usize) -> u64 {
        // Parameters, and effective weights.
        const NUMBERS_PER_PARAMETER: usize = 2;
        let (about, constants) = (model.about(), constants(model.about(), Precision::F32));
        let per_row = Forward::numbers_per_row(&constants, about.model.width * about.model.mlp_ratio);
        // As they come, mostly in halves, and as products read them. Runs share those of a source; here each counts them.
        let token_widths = about.inputs.iter().map(|input| input.token_width).sum::<usize>();
        let tokens = images * about.model.tokens_per_source() * token_widths * 3 / 2;
        let numbers =
            images * constants.tokens * per_row + tokens + NUMBERS_PER_PARAMETER * model.parameters().elements();
        (numbers * size_of::<f32>()) as u64
    }

    /// Reads the tokens of `source` in `stock` from now on.
    pub(super) fn hold(&mut self, source: Source, stock: &Rc<Stock>) {
        self.network.hold(source, stock);
    }

    /// The logits (K) of each image, for each run.
    pub(crate) fn logits(&mut self, batch: &Batch) -> Result<Vec<Vec<Vec<f32>>>, VitError> {
        self.network.take_tokens(batch)?;
        let (mut forward, mut logits) = self.room_for(batch.images)?;
        self.network.forward(&mut forward)?;
        let Network { gpu, layers, weights, abouts, .. } = &self.network;
        let epsilon = LAYER_NORM_EPSILON as f32;
        gpu.answers(forward.extent, layers.head, weights, &forward.x, epsilon, &mut logits)?;
        let found = logits.to_vec(self.network.machine())?;
        self.room = Some((forward, logits));
        let classes = abouts[0].classes.len();
        let of_run = |logits: &[f32]| logits.chunks_exact(classes).map(<[f32]>::to_vec).collect();
        Ok(found.chunks_exact(batch.images * classes).map(of_run).collect())
    }

    /// Room for `images` images, the same if it is as much.
    fn room_for(&mut self, images: usize) -> Result<(Forward, Array<f32>), VitError> {
        let extent = Extent { runs: self.network.runs(), images };
        if let Some(room) = self.room.take().filter(|(forward, _)| forward.extent == extent) {
            return Ok(room);
        }
        let (model, machine) = (&self.network.abouts[0].model, self.network.machine());
        let (constants, hidden) = (self.network.gpu.constants(), model.width * model.mlp_ratio);
        let forward = Forward::new(machine, constants, extent, (1, hidden))?;
        Ok((forward, Array::zeros(machine, extent.runs * images * constants.classes)?))
    }
}
