use half::bf16;

use crate::{FoldedConv, Network};

/// The same network, but that the biases between the two convolutions of each block are numbers of bfloat16: rounded, a bias would be off
/// by the same in all pixels. A channel there is multiplied by what makes its bias such a number, at most 2⁻⁹ more or less than one,
/// and divided by it where the second convolution reads it. The ReLU between them lets factors through.
pub(super) fn with_exact_biases(network: &Network<FoldedConv>) -> Network<FoldedConv> {
    let mut network = network.clone();
    for block in network.stages.iter_mut().flatten() {
        let (first, second) = (&mut block.conv1, &mut block.conv2);
        let channels = first.shape.out_channels;
        let taps = second.shape.kernel * second.shape.kernel;
        let filter = first.weights.len() / channels;
        for channel in 0..channels {
            let bias = first.bias[channel];
            let rounded = bf16::from_f32(bias).to_f32();
            if !bias.is_normal() || !rounded.is_normal() {
                continue;
            }
            let factor = rounded / bias;
            first.bias[channel] = rounded;
            first.weights[channel * filter..][..filter].iter_mut().for_each(|weight| *weight *= factor);
            for filter in second.weights.chunks_exact_mut(channels * taps) {
                filter[channel * taps..][..taps].iter_mut().for_each(|weight| *weight /= factor);
            }
        }
    }
    network
}
