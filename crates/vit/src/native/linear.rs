use kernels::{Begin, Isa, Matrix, MatrixMut, Panels, Rows, multiply};

use super::{Layout, Slot};
use crate::{ModelConfig, VitError};

/// Inputs whose weights' gradients are summed together: the sums then stay in the second-level cache.
pub(crate) const GRADIENT_BLOCK: usize = 512;

/// A linear layer with the layer norm before it and the layer scale after it, if any, multiplied into its weight:
/// W' = c · diag(s) W diag(g) and b' = s ⊙ (b + c · W t), with the norm's gain g and offset t, the scale s, and the
/// constant c of [`ModelConfig::equal_lr`].
#[derive(Debug)]
pub(crate) struct Linear {
    inputs: usize,
    outputs: usize,
    weight: Slot,
    bias: Slot,
    norm: Option<(Slot, Slot)>,
    scale: Option<Slot>,
    gain: f32,
    /// W' (O, I), b' (O).
    effective: Vec<f32>,
    effective_bias: Vec<f32>,
    /// W'ᵀ (I, O), which inputs are multiplied with, and W' (O, I), which gradients are.
    forward: Panels,
    backward: Option<Panels>,
    /// Gradient of W' in blocks of inputs, (I / block, O, block), and of b'.
    pub(crate) weight_grad: Vec<f32>,
    pub(crate) bias_grad: Vec<f32>,
    /// A chunk's tokens, block by block as `weight_grad`; empty unless they are this layer's inputs.
    pub(crate) token_blocks: Vec<Rows>,
}

impl Linear {
    /// The layer `name`, from `inputs` to `outputs` numbers.
    pub(crate) fn new(
        isa: Isa,
        layout: &Layout,
        config: &ModelConfig,
        name: &str,
        (inputs, outputs): (usize, usize),
    ) -> Result<Self, VitError> {
        let gain = if config.equal_lr { 1.0 / (inputs as f64).sqrt() } else { 1.0 };
        Ok(Self {
            inputs,
            outputs,
            weight: layout.slot(&format!("{name}.weight"))?,
            bias: layout.slot(&format!("{name}.bias"))?,
            norm: None,
            scale: None,
            gain: gain as f32,
            effective: vec![0.0; inputs * outputs],
            effective_bias: vec![0.0; outputs],
            forward: Panels::new(isa, inputs, outputs),
            backward: Some(Panels::new(isa, outputs, inputs)),
            weight_grad: vec![0.0; inputs * outputs],
            bias_grad: vec![0.0; outputs],
            token_blocks: Vec::new(),
        })
    }

    /// After the layer norm `name`.
    pub(crate) fn after(mut self, layout: &Layout, name: &str) -> Result<Self, VitError> {
        self.norm = Some((layout.slot(&format!("{name}.weight"))?, layout.slot(&format!("{name}.bias"))?));
        Ok(self)
    }

    /// With the layer scale `name` after it.
    pub(crate) fn scaled(mut self, layout: &Layout, name: Option<&str>) -> Result<Self, VitError> {
        self.scale = name.map(|name| layout.slot(&format!("{name}.gamma"))).transpose()?;
        Ok(self)
    }

    /// For inputs that need no gradient.
    pub(crate) fn of_data(self) -> Self {
        Self { backward: None, ..self }
    }

    pub(crate) const fn inputs(&self) -> usize {
        self.inputs
    }

    pub(crate) const fn outputs(&self) -> usize {
        self.outputs
    }

    pub(crate) fn bias(&self) -> &[f32] {
        &self.effective_bias
    }

    /// Takes the present `weights`.
    pub(crate) fn prepare(&mut self, weights: &[f32]) {
        let (weight, bias) = (self.weight.of(weights), self.bias.of(weights));
        for (o, row) in self.effective.chunks_exact_mut(self.inputs).enumerate() {
            let original = &weight[o * self.inputs..][..self.inputs];
            let scale = self.scale.map_or(1.0, |scale| scale.of(weights)[o]);
            let factor = self.gain * scale;
            match self.norm {
                None => row.iter_mut().zip(original).for_each(|(to, w)| *to = factor * w),
                Some((gain, _)) => {
                    let gains = gain.of(weights);
                    row.iter_mut().zip(original).zip(gains).for_each(|((to, w), gain)| *to = factor * w * gain);
                }
            }
            self.effective_bias[o] = scale * (bias[o] + self.gain * offset(self.norm, weights, original));
        }
        let effective = Matrix::rows(&self.effective, self.outputs, self.inputs, self.inputs);
        self.forward.pack(effective.transposed());
        if let Some(backward) = &mut self.backward {
            backward.pack(effective);
        }
    }

    /// `y` (R, O) = begin + `x` (R, I) W'ᵀ.
    pub(crate) fn forward(&self, x: Matrix<'_>, begin: Begin<'_>, y: MatrixMut<'_>) {
        multiply(x, &self.forward, begin, y);
    }

    /// From the gradient of y, `grad` (R, O), to that of x (R, I).
    pub(crate) fn backward(&self, grad: Matrix<'_>, x_grad: MatrixMut<'_>) {
        if let Some(backward) = &self.backward {
            multiply(grad, backward, Begin::Zero, x_grad);
        }
    }

    /// From the gradients of W' and b' to those of all that they consist of.
    pub(crate) fn finish(&self, weights: &[f32], gradients: &mut [f32]) {
        let weight = self.weight.of(weights);
        if let Some((gain, offset)) = self.norm {
            gain.of_mut(gradients).fill(0.0);
            offset.of_mut(gradients).fill(0.0);
        }
        for o in 0..self.outputs {
            let original = &weight[o * self.inputs..][..self.inputs];
            let bias_grad = self.bias_grad[o];
            let scale = self.scale.map_or(1.0, |scale| scale.of(weights)[o]);
            let (factor, inner) = (self.gain * scale, scale * bias_grad);
            self.bias.of_mut(gradients)[o] = inner;
            let mut along = 0.0;
            for first in (0..self.inputs).step_by(GRADIENT_BLOCK) {
                let columns = GRADIENT_BLOCK.min(self.inputs - first);
                let from = &self.weight_grad[first * self.outputs + o * columns..][..columns];
                let row = &original[first..first + columns];
                let place = self.weight.range().start + o * self.inputs + first;
                let Some((gain, offset)) = self.norm else {
                    let to = &mut gradients[place..place + columns];
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = factor * from);
                    if self.scale.is_some() {
                        along += from.iter().zip(row).map(|(grad, w)| grad * w).sum::<f32>();
                    }
                    continue;
                };
                let (gains, offsets) = (&gain.of(weights)[first..], &offset.of(weights)[first..]);
                for i in 0..columns {
                    gradients[place + i] = factor * gains[i] * from[i] + self.gain * inner * offsets[i];
                    gradients[gain.range().start + first + i] += factor * from[i] * row[i];
                    gradients[offset.range().start + first + i] += self.gain * inner * row[i];
                    along += gains[i] * from[i] * row[i];
                }
            }
            if let Some(scale) = self.scale {
                let unscaled = self.bias.of(weights)[o] + self.gain * offset(self.norm, weights, original);
                scale.of_mut(gradients)[o] = self.gain * along + bias_grad * unscaled;
            }
        }
    }
}

/// What the offset of `norm` adds to an output whose weights are `row`.
fn offset(norm: Option<(Slot, Slot)>, weights: &[f32], row: &[f32]) -> f32 {
    norm.map_or(0.0, |(_, offset)| row.iter().zip(offset.of(weights)).map(|(w, t)| w * t).sum())
}
