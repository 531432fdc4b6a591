use crate::{Draws, ModelConfig};

/// What a step drops at random, for the whole batch. Drawn before the step, in the order in which the network's layers
/// come, so that the threads have no say in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masks {
    /// On the embedded tokens (B, N, D); empty without dropout.
    pub(crate) embed: Vec<f32>,
    /// On each block's two branches.
    pub(crate) branches: Vec<[BranchMasks; 2]>,
}

/// What is dropped of a branch.
#[derive(Clone, Debug, Default)]
pub(crate) struct BranchMasks {
    /// On its activations (B, N, D); empty without dropout.
    pub(crate) dropout: Vec<f32>,
    /// On the whole branch of an image (B); empty without drop-path.
    pub(crate) path: Vec<f32>,
}

impl Masks {
    /// Nothing dropped.
    pub(crate) fn off(depth: usize) -> Self {
        Self { embed: Vec::new(), branches: vec![<[BranchMasks; 2]>::default(); depth] }
    }

    /// Draws all masks anew for `images` images of `tokens` tokens.
    pub(crate) fn draw(
        &mut self,
        draws: &mut Draws,
        (config, drop_path): (&ModelConfig, f64),
        images: usize,
        tokens: usize,
    ) {
        let mut draw = |mask: &mut Vec<f32>, count: usize, drop: f64, wanted: bool| {
            mask.resize(if wanted { count } else { 0 }, 0.0);
            draws.mask(mask, drop);
        };
        let activations = images * tokens * config.width;
        draw(&mut self.embed, activations, config.dropout, config.dropout > 0.0);
        for (index, branches) in self.branches.iter_mut().enumerate() {
            // Rises linearly with the block (Huang et al. 2016, equation 4).
            let path = drop_path * ((index + 1) as f64 / config.depth as f64);
            for branch in branches {
                draw(&mut branch.dropout, activations, config.dropout, config.dropout > 0.0);
                draw(&mut branch.path, images, path, drop_path > 0.0);
            }
        }
    }
}
