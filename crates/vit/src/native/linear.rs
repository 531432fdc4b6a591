use kernels::{Begin, Isa, Matrix, MatrixMut, Multiplier, Panels, Precision, Rows};

use super::{Layout, Slot, layout::Parts};
use crate::{ModelConfig, VitError};

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
    /// Where the gradients of W' (O, I) and b' (O) lie in a group's sums.
    weight_sums: Slot,
    bias_sums: Slot,
}

impl Linear {
    /// The layer `name`, from `inputs` to `outputs` numbers.
    pub(crate) fn new(
        (isa, precision): (Isa, Precision),
        (layout, sums): (&Layout, &mut Sums),
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
            forward: Panels::new(isa, precision, inputs, outputs),
            backward: Some(Panels::new(isa, precision, outputs, inputs)),
            weight_sums: sums.place(inputs * outputs),
            bias_sums: sums.place(outputs),
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
    pub(crate) fn forward(&self, multiplier: &mut Multiplier, x: Matrix<'_>, begin: Begin<'_>, y: MatrixMut<'_>) {
        multiplier.multiply(x, &self.forward, begin, y);
    }

    /// From the gradient of y, `grad` (R, O), to that of x (R, I).
    pub(crate) fn backward(&self, multiplier: &mut Multiplier, grad: Matrix<'_>, x_grad: MatrixMut<'_>) {
        if let Some(backward) = &self.backward {
            multiplier.multiply(grad, backward, Begin::Zero, x_grad);
        }
    }

    /// In a group's `sums`: begin + dYᵀ X of some rows of the outputs' gradient `grad` (R, O) and of some columns, from
    /// `first_input` on, of the inputs `x` (R, columns), whose rows are padded.
    pub(crate) fn sum_weight_gradient(
        &self,
        multiplier: &mut Multiplier,
        grad: Matrix<'_>,
        x: Matrix<'_>,
        first_input: usize,
        begin: Begin<'_>,
        sums: &mut [f32],
    ) {
        let values = &mut self.weight_sums.of_mut(sums)[first_input..];
        let to = MatrixMut { values, rows: self.outputs, columns: x.columns, row_step: self.inputs };
        multiplier.multiply_transposed(grad, x, begin, to);
    }

    /// In a group's `sums`: begin + the sum of the rows of `grad` (R, O).
    pub(crate) fn sum_bias_gradient(&self, grad: &Rows, begin: Begin<'_>, sums: &mut [f32]) {
        let sum = self.bias_sums.of_mut(sums);
        if matches!(begin, Begin::Zero) {
            sum.fill(0.0);
        }
        for row in 0..grad.rows() {
            sum.iter_mut().zip(grad.row(row)).for_each(|(sum, grad)| *sum += grad);
        }
    }

    /// Both of the above for all inputs `x` (R, I).
    pub(crate) fn sum_gradients(
        &self,
        multiplier: &mut Multiplier,
        grad: &Rows,
        x: &Rows,
        begin: Begin<'_>,
        sums: &mut [f32],
    ) {
        self.sum_weight_gradient(multiplier, grad.matrix(), x.matrix(), 0, begin, sums);
        self.sum_bias_gradient(grad, begin, sums);
    }

    /// Where the gradient of b' lies in a group's sums.
    pub(crate) const fn bias_sums(&self) -> Slot {
        self.bias_sums
    }

    /// Takes the parts of the parameters' gradient that this layer computes.
    pub(crate) fn take<'a>(&self, gradient: &mut Parts<'a>) -> LinearGradient<'a> {
        LinearGradient {
            weight: gradient.take(self.weight),
            bias: gradient.take(self.bias),
            norm: self.norm.map(|(gain, offset)| (gradient.take(gain), gradient.take(offset))),
            scale: self.scale.map(|scale| gradient.take(scale)),
        }
    }

    /// From the gradients of W' and b', in `sums`, to those of all that they consist of.
    pub(crate) fn finish(&self, weights: &[f32], sums: &[f32], gradient: &mut LinearGradient<'_>) {
        let (weight, weight_sums, bias_sums) =
            (self.weight.of(weights), self.weight_sums.of(sums), self.bias_sums.of(sums));
        if let Some((gain, offset)) = &mut gradient.norm {
            gain.fill(0.0);
            offset.fill(0.0);
        }
        let rows = weight.chunks_exact(self.inputs).zip(weight_sums.chunks_exact(self.inputs));
        for (o, ((row, sums), to)) in rows.zip(gradient.weight.chunks_exact_mut(self.inputs)).enumerate() {
            let scale = self.scale.map_or(1.0, |scale| scale.of(weights)[o]);
            let factor = self.gain * scale;
            gradient.bias[o] = scale * bias_sums[o];
            let mut along = 0.0;
            match (self.norm, &mut gradient.norm) {
                (Some((gain, offset)), Some((gain_grad, offset_grad))) => {
                    let inner = self.gain * scale * bias_sums[o];
                    let norm = gain.of(weights).iter().zip(offset.of(weights));
                    let norm_grad = gain_grad.iter_mut().zip(offset_grad.iter_mut());
                    let columns = to.iter_mut().zip(row.iter().zip(sums)).zip(norm.zip(norm_grad));
                    for ((to, (w, sum)), ((gain, offset), (gain_grad, offset_grad))) in columns {
                        *to = factor * gain * sum + inner * offset;
                        *gain_grad += factor * sum * w;
                        *offset_grad += inner * w;
                        along += gain * sum * w;
                    }
                }
                _ => {
                    to.iter_mut().zip(sums).for_each(|(to, sum)| *to = factor * sum);
                    if self.scale.is_some() {
                        along = sums.iter().zip(row).map(|(sum, w)| sum * w).sum::<f32>();
                    }
                }
            }
            if let Some(scale_grad) = &mut gradient.scale {
                let unscaled = self.bias.of(weights)[o] + self.gain * offset(self.norm, weights, row);
                scale_grad[o] = self.gain * along + bias_sums[o] * unscaled;
            }
        }
    }
}

/// A layer's parts of the parameters' gradient.
#[derive(Debug)]
pub(crate) struct LinearGradient<'a> {
    weight: &'a mut [f32],
    bias: &'a mut [f32],
    /// Of the gain and the offset of the norm before it.
    norm: Option<(&'a mut [f32], &'a mut [f32])>,
    scale: Option<&'a mut [f32]>,
}

/// Gives out the places in a group's sums, each beginning at a cache line.
#[derive(Debug, Default)]
pub(crate) struct Sums(usize);

impl Sums {
    /// A place for `len` numbers.
    pub(crate) const fn place(&mut self, len: usize) -> Slot {
        let slot = Slot::new(self.0, len);
        self.0 += len.next_multiple_of(kernels::row_padding());
        slot
    }

    /// How many numbers all places take.
    pub(crate) const fn len(&self) -> usize {
        self.0
    }
}

/// What the offset of `norm` adds to an output whose weights are `row`.
fn offset(norm: Option<(Slot, Slot)>, weights: &[f32], row: &[f32]) -> f32 {
    norm.map_or(0.0, |(_, offset)| row.iter().zip(offset.of(weights)).map(|(w, t)| w * t).sum())
}
