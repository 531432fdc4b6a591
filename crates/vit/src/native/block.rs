use kernels::{Begin, Isa, Precision, Rows, gelu, gelu_backward, normalise, normalise_backward};

use super::{
    Layout, Linear, Slot,
    chunk::{ChunkMasks, Saved, Scratch},
    layout::Parts,
    linear::Sums,
};
use crate::{ModelConfig, VitError, layers::LAYER_NORM_EPSILON};

/// Attention and MLP, each on a normalised copy of the tokens and added to them (Dosovitskiy et al. 2021, equations 2
/// and 3).
#[derive(Debug)]
pub(crate) struct Block {
    isa: Isa,
    pub(crate) qkv: Linear,
    pub(crate) proj: Linear,
    pub(crate) fc1: Linear,
    pub(crate) fc2: Linear,
    /// Gains of the norms of queries and keys, and their product (D/H): scores see no more of them.
    norm_gains: Option<(Slot, Slot)>,
    gains: Vec<f32>,
    /// Where the gradient of the product lies in a group's sums.
    gains_sums: Slot,
}

impl Block {
    pub(crate) fn new(
        (isa, precision): (Isa, Precision),
        layout: &Layout,
        sums: &mut Sums,
        config: &ModelConfig,
        index: usize,
    ) -> Result<Self, VitError> {
        let (width, hidden) = (config.width, config.width * config.mlp_ratio);
        let name = |layer: &str| format!("blocks.{index}.{layer}");
        let gains = if config.qk_norm { width / config.heads } else { 0 };
        let gains_sums = sums.place(gains);
        let mut linear =
            |layer: &str, shape| Linear::new((isa, precision), (layout, sums), config, &name(layer), shape);
        let scale = |layer: &str| (config.layer_scale > 0.0).then(|| name(layer));
        let norm_gains = config
            .qk_norm
            .then(|| {
                Ok::<_, VitError>((
                    layout.slot(&name("attn.q_norm.weight"))?,
                    layout.slot(&name("attn.k_norm.weight"))?,
                ))
            })
            .transpose()?;
        Ok(Self {
            isa,
            qkv: linear("attn.qkv", (width, 3 * width))?.after(layout, &name("norm1"))?,
            proj: linear("attn.proj", (width, width))?.scaled(layout, scale("ls1").as_deref())?,
            fc1: linear("mlp.fc1", (width, hidden))?.after(layout, &name("norm2"))?,
            fc2: linear("mlp.fc2", (hidden, width))?.scaled(layout, scale("ls2").as_deref())?,
            gains: vec![0.0; gains],
            gains_sums,
            norm_gains,
        })
    }

    pub(crate) const fn linears(&self) -> [&Linear; 4] {
        [&self.qkv, &self.proj, &self.fc1, &self.fc2]
    }

    pub(crate) const fn linears_mut(&mut self) -> [&mut Linear; 4] {
        [&mut self.qkv, &mut self.proj, &mut self.fc1, &mut self.fc2]
    }

    /// Takes the present `weights`, those of the linear layers apart.
    pub(crate) fn prepare(&mut self, weights: &[f32]) {
        if let Some((q, k)) = self.norm_gains {
            let gains = q.of(weights).iter().zip(k.of(weights));
            self.gains.iter_mut().zip(gains).for_each(|(to, (q, k))| *to = q * k);
        }
    }

    /// Moves the tokens `x` (R, D) of a chunk on, and keeps in `saved` what the backward pass needs.
    pub(crate) fn forward(
        &self,
        x: &mut Rows,
        saved: &mut Saved,
        scratch: &mut Scratch,
        [attention_masks, mlp_masks]: &[ChunkMasks<'_>; 2],
    ) {
        let Saved { normal1, inverse_std1, qkv, attended, normal2, inverse_std2, hidden } = saved;
        normalise(self.isa, x, LAYER_NORM_EPSILON as f32, normal1, inverse_std1);
        let begin = Begin::Bias(self.qkv.bias());
        self.qkv.forward(&mut scratch.multiplier, normal1.matrix(), begin, qkv.matrix_mut()); // (R, 3D)
        for first in (0..x.rows()).step_by(scratch.tokens) {
            scratch.attention.forward(qkv, first, self.gains(), attended); // (R, D)
        }
        scratch.add_branch(&self.proj, attended, attention_masks, x);

        normalise(self.isa, x, LAYER_NORM_EPSILON as f32, normal2, inverse_std2);
        let begin = Begin::Bias(self.fc1.bias());
        self.fc1.forward(&mut scratch.multiplier, normal2.matrix(), begin, hidden.matrix_mut()); // (R, 4D)
        let mut activated = std::mem::take(&mut scratch.activated);
        gelu(self.isa, hidden.values(), activated.values_mut());
        scratch.add_branch(&self.fc2, &activated, mlp_masks, x);
        scratch.activated = activated;
    }

    /// From the gradient of the tokens behind this block, `grad` (R, D), to that of those before it, and in a group's
    /// `sums` begin + the gradients of this block's products.
    pub(crate) fn backward(
        &self,
        grad: &mut Rows,
        saved: &Saved,
        scratch: &mut Scratch,
        [attention_masks, mlp_masks]: &[ChunkMasks<'_>; 2],
        begin: Begin<'_>,
        sums: &mut [f32],
    ) {
        let Saved { normal1, inverse_std1, qkv, attended, normal2, inverse_std2, hidden } = saved;
        let Scratch { multiplier, branch_grad, activated, hidden_grad, qkv_grad, narrow, attention, tokens, .. } =
            scratch;
        let branch = mlp_masks.gradient(*tokens, grad, branch_grad);
        self.fc2.backward(multiplier, branch.matrix(), hidden_grad.matrix_mut()); // (R, 4D)
        gelu_backward(self.isa, hidden.values(), hidden_grad.values_mut(), activated.values_mut());
        self.fc2.sum_gradients(multiplier, branch, activated, begin, sums);
        self.fc1.backward(multiplier, hidden_grad.matrix(), narrow.matrix_mut()); // (R, D)
        self.fc1.sum_gradients(multiplier, hidden_grad, normal2, begin, sums);
        normalise_backward(self.isa, normal2, inverse_std2, narrow, grad);

        let branch = attention_masks.gradient(*tokens, grad, branch_grad);
        self.proj.backward(multiplier, branch.matrix(), narrow.matrix_mut()); // (R, D)
        self.proj.sum_gradients(multiplier, branch, attended, begin, sums);
        let gains_grad = self.gains_sums.of_mut(sums);
        if matches!(begin, Begin::Zero) {
            gains_grad.fill(0.0);
        }
        for first in (0..grad.rows()).step_by(*tokens) {
            attention.backward(qkv, first, self.gains(), narrow, qkv_grad, gains_grad); // (R, 3D)
        }
        self.qkv.backward(multiplier, qkv_grad.matrix(), narrow.matrix_mut()); // (R, D)
        self.qkv.sum_gradients(multiplier, qkv_grad, normal1, begin, sums);
        normalise_backward(self.isa, normal1, inverse_std1, narrow, grad);
    }

    /// Takes the parts of the parameters' gradient that this block computes, its layers' apart.
    pub(crate) fn finish(&self, weights: &[f32], sums: &[f32], gradient: &mut Parts<'_>) {
        let Some((q, k)) = self.norm_gains else { return };
        for (to, other) in [(q, k), (k, q)] {
            let parts = self.gains_sums.of(sums).iter().zip(other.of(weights));
            gradient.take(to).iter_mut().zip(parts).for_each(|(to, (sum, other))| *to = sum * other);
        }
    }

    fn gains(&self) -> Option<&[f32]> {
        self.norm_gains.is_some().then_some(&self.gains)
    }
}
