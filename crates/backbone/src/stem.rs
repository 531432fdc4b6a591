//! conv1 and the max-pool, in 32-bit floats whatever the precision: they are one fifteenth of the arithmetic and read what
//! is most expensive to round, the image.

use kernels::{Activations, Algorithm, Conv2d, ConvShape, Element, Isa, Scratch, ShapeError, max_pool_3x3_stride_2};

use crate::{
    FoldedConv,
    group::SHALLOW_GROUP,
    preprocess::{IMAGE_SIDE, IMAGENET_MEAN, IMAGENET_STD, normalise},
};

/// Side of the stem's output in pixels.
const STEM_SIDE: usize = IMAGE_SIDE / 2;

/// conv1 and the pool for grey and for colour images.
#[derive(Debug)]
pub(crate) struct Stem {
    grey: GreyStem,
    colour: Conv2d,
}

/// The activations of a shallow group in the stem.
#[derive(Debug)]
pub(crate) struct StemWorkspace {
    grey: Activations,
    colour: Activations,
    conv1: Activations,
}

/// conv1 for grey images: three equal channels are folded into one.
///
/// The input is `(grey − mean_c) / std_c` in channel c and zero in the padding. Summed over the channels, a
/// tap at an image pixel contributes `Σ w_c / std_c · grey − Σ w_c · mean_c / std_c`, one at a padding pixel
/// nothing. The second sum therefore depends on which taps lie in the padding; `offset` holds it for every
/// output pixel and enters as a residual.
#[derive(Debug)]
struct GreyStem {
    conv: Conv2d,
    offset: Activations,
}

impl Stem {
    pub(crate) fn new(conv1: &FoldedConv, isa: Isa) -> Result<Self, ShapeError> {
        let colour = Conv2d::new(isa, Algorithm::Direct, conv1.shape, &conv1.weights, &conv1.bias, conv1.relu)?;
        Ok(Self { grey: GreyStem::new(conv1, isa)?, colour })
    }

    /// From resized images, (224, 224, 1 or 3) each, to what the first stage reads.
    pub(crate) fn run<E: Element>(
        &self,
        images: &[Vec<f32>],
        workspace: &mut StemWorkspace,
        scratch: &mut Scratch,
        pooled: &mut Activations<E>,
    ) -> Result<(), ShapeError> {
        let StemWorkspace { grey, colour, conv1 } = workspace;
        if images.iter().all(|image| image.len() == IMAGE_SIDE * IMAGE_SIDE) {
            for (index, image) in images.iter().enumerate() {
                copy_in(image, grey, index);
            }
            self.grey.conv.run(grey, Some(&self.grey.offset), conv1, scratch)?;
        } else {
            for (index, image) in images.iter().enumerate() {
                copy_in(&normalise(image), colour, index);
            }
            self.colour.run(colour, None, conv1, scratch)?;
        }
        max_pool_3x3_stride_2(conv1, pooled, scratch);
        Ok(())
    }
}

impl StemWorkspace {
    pub(crate) fn new(channels: usize) -> Self {
        Self {
            grey: Activations::zeros(SHALLOW_GROUP, IMAGE_SIDE, 3, 1),
            colour: Activations::zeros(SHALLOW_GROUP, IMAGE_SIDE, 3, 3),
            conv1: Activations::zeros(SHALLOW_GROUP, STEM_SIDE, 1, channels),
        }
    }

    pub(crate) fn set_images(&mut self, images: usize) {
        for activations in [&mut self.grey, &mut self.colour, &mut self.conv1] {
            activations.set_images(images);
        }
    }
}

fn copy_in(image: &[f32], activations: &mut Activations, index: usize) {
    for (y, row) in image.chunks_exact(activations.side() * activations.channels()).enumerate() {
        activations.row_mut(index, y).copy_from_slice(row);
    }
}

impl GreyStem {
    fn new(stem: &FoldedConv, isa: Isa) -> Result<Self, ShapeError> {
        let shape = ConvShape { in_channels: 1, ..stem.shape };
        let (taps, out_channels) = (shape.kernel * shape.kernel, shape.out_channels);
        let weight = |out: usize, c: usize, tap: usize| f64::from(stem.weights[(out * 3 + c) * taps + tap]);
        // (out, tap): the factor of the grey value, and what the mean contributes.
        let sum = |out: usize, tap: usize, of: &dyn Fn(usize) -> f64| {
            (0..3).map(|c| weight(out, c, tap) * of(c)).sum::<f64>()
        };
        let std = |c: usize| f64::from(IMAGENET_STD[c]);
        let mut weights = Vec::with_capacity(out_channels * taps);
        let mut means = Vec::with_capacity(out_channels * taps);
        for out in 0..out_channels {
            for tap in 0..taps {
                weights.push(sum(out, tap, &|c| 1.0 / std(c)) as f32);
                means.push(sum(out, tap, &|c| -f64::from(IMAGENET_MEAN[c]) / std(c)));
            }
        }
        let mut offset = Activations::zeros(1, STEM_SIDE, 0, out_channels);
        let inside = |out: usize, tap: usize| {
            let at = out * shape.stride + tap;
            (shape.padding..shape.padding + IMAGE_SIDE).contains(&at)
        };
        for y in 0..STEM_SIDE {
            for (x, pixel) in offset.row_mut(0, y).chunks_exact_mut(out_channels).enumerate() {
                let taps_inside: Vec<usize> =
                    (0..taps).filter(|tap| inside(y, tap / shape.kernel) && inside(x, tap % shape.kernel)).collect();
                for (out, value) in pixel.iter_mut().enumerate() {
                    *value = taps_inside.iter().map(|tap| means[out * taps + tap]).sum::<f64>() as f32;
                }
            }
        }
        Ok(Self { conv: Conv2d::new(isa, Algorithm::Direct, shape, &weights, &stem.bias, true)?, offset })
    }
}
