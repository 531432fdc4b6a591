//! The training step on NVIDIA GPUs, of several runs at once: what `native` is on the CPU, on the kernels of `gpu`.
//!
//! Runs read the same batches and have the same model but for their sources. Layer by layer one kernel works on all of them;
//! a layer's weights are those that `native` multiplies with, norm and scales included. The order of every sum is fixed, so that
//! the same seed gives the same weights, bit for bit, on the same kind of GPU.
//!
//! Models with dropout, drop-path or normalised queries and keys are trained by candle's autograd instead ([`supports`]).
//!
//! Without a GPU the tests run the same kernels and the same launches on the CPU ([`gpu::OnCpu`]) and compare with `native`.

mod activations;
mod answers;
#[cfg(feature = "cuda")]
mod card;
mod courier;
mod group;
mod holding;
mod layers;
mod network;
mod sources;
#[cfg(test)]
mod tests;
mod trainer;

use gpu::Constants;

use crate::{About, Fuse, Pool, Precision, Recipe};

pub(crate) use answers::Answers;
#[cfg(feature = "cuda")]
pub(crate) use card::{AnswersOfGroup, answers, free_bytes, members};
pub(crate) use courier::{Courier, Sent};
pub(crate) use group::Member;
#[cfg(feature = "cuda")]
pub(crate) use holding::Held;
pub(crate) use holding::Holding;
pub(crate) use trainer::Trainer;

/// Whether the network of such a model is written out, for kernels that find enough memory in a card's processors.
pub(crate) fn is_written_out(about: &About) -> bool {
    !about.model.qk_norm && constants(about, Precision::F32).fits()
}

/// Whether the step is written out for such a model and recipe.
pub(crate) fn supports(about: &About, recipe: &Recipe) -> bool {
    is_written_out(about) && about.model.dropout == 0.0 && recipe.drop_path == 0.0
}

/// What the kernels of such models, multiplying in `precision`, are compiled with. With `fuse = seq` sequences are as long as the number of sources says.
pub(crate) fn constants(about: &About, precision: Precision) -> Constants {
    let model = &about.model;
    let grids = if model.fuse == Fuse::Seq { about.inputs.len() } else { 1 };
    let class_token = model.pool == Pool::Cls;
    Constants {
        width: model.width,
        heads: model.heads,
        tokens: usize::from(class_token) + grids * model.tokens_per_source(),
        classes: about.classes.len(),
        grid: model.grid,
        class_token,
        bf16: precision == Precision::Bf16,
    }
}
