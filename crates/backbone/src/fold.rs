use kernels::ConvShape;

use crate::{Weights, WeightsError};

/// Added to the variance: PyTorch's default for `BatchNorm2d`, with which ResNet-18 was trained.
/// <https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html>
const BATCH_NORM_EPSILON: f64 = 1e-5;

/// A convolution into which the batch norm that follows it has been folded.
#[derive(Clone, Debug)]
pub struct FoldedConv {
    /// Shape of the convolution.
    pub shape: ConvShape,
    /// Whether a ReLU follows (after the residual, if there is one).
    pub relu: bool,
    /// (out, in, kernel, kernel)
    pub weights: Vec<f32>,
    /// (out)
    pub bias: Vec<f32>,
}

impl FoldedConv {
    /// Reads convolution `conv` and batch norm `norm` and folds them: in evaluation a batch norm is
    /// `γ (x − μ) / √(σ² + ε) + β` per channel, which scales the weights and shifts the bias.
    /// Computed in f64, so that folding adds no error of its own.
    pub fn read(weights: &Weights, conv: &str, norm: &str, shape: ConvShape, relu: bool) -> Result<Self, WeightsError> {
        let ConvShape { in_channels, out_channels, kernel, .. } = shape;
        let mut folded = weights.get(&format!("{conv}.weight"), &[out_channels, in_channels, kernel, kernel])?;
        let per_channel = |part: &str| weights.get(&format!("{norm}.{part}"), &[out_channels]);
        let (gamma, beta) = (per_channel("weight")?, per_channel("bias")?);
        let (mean, variance) = (per_channel("running_mean")?, per_channel("running_var")?);
        let mut bias = vec![0.0; out_channels];
        for (channel, filter) in folded.chunks_exact_mut(in_channels * kernel * kernel).enumerate() {
            let scale = f64::from(gamma[channel]) / (f64::from(variance[channel]) + BATCH_NORM_EPSILON).sqrt();
            for weight in filter {
                *weight = (f64::from(*weight) * scale) as f32;
            }
            bias[channel] = (f64::from(beta[channel]) - f64::from(mean[channel]) * scale) as f32;
        }
        Ok(Self { shape, relu, weights: folded, bias })
    }
}
