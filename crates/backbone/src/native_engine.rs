use std::sync::{Mutex, PoisonError};

use kernels::{Activations, Algorithm, Conv2d, ConvShape, Isa, Scratch, ShapeError, max_pool_3x3_stride_2};
use rayon::prelude::*;
use sources::Source;

use crate::{
    FoldedConv, Network,
    preprocess::{IMAGE_SIDE, IMAGENET_MEAN, IMAGENET_STD, normalise},
};

/// Images that one thread takes through the network together. Two, because the sides of FM4 (7×7) hold an odd
/// number of segments of seven pixels, of which the kernels take two at a time.
const GROUP: usize = 2;

/// Side of the stem's output in pixels.
const STEM_SIDE: usize = IMAGE_SIDE / 2;

/// The network on this project's CPU kernels.
#[derive(Debug)]
pub(crate) struct NativeEngine {
    network: Network<Conv2d>,
    grey_stem: GreyStem,
    /// Buffers of the groups in flight, reused from call to call.
    workspaces: Mutex<Vec<Workspace>>,
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

/// The activations of one group of images.
#[derive(Debug)]
struct Workspace {
    grey: Activations,
    colour: Activations,
    stem: Activations,
    /// Per stage: inside the block, the shortcut, and the first block's output. The second block's output
    /// takes the shortcut's place.
    stages: Vec<[Activations; 3]>,
    scratch: Scratch,
}

/// One group's share of a batch: its images and where their feature maps go.
struct Group<'a> {
    images: &'a [Vec<f32>],
    maps: Vec<(Source, &'a mut [f32])>,
}

impl NativeEngine {
    pub(crate) fn new(network: &Network<FoldedConv>, isa: Isa) -> Result<Self, ShapeError> {
        Ok(Self {
            network: network.try_map(|conv| {
                Conv2d::new(isa, algorithm(conv.shape), conv.shape, &conv.weights, &conv.bias, conv.relu)
            })?,
            grey_stem: GreyStem::new(&network.stem, isa)?,
            workspaces: Mutex::default(),
        })
    }

    /// Feature maps of resized images, (224, 224, 1 or 3) each, into `maps`: (images, side, side, channels).
    /// The pass stops after the deepest map that is wanted.
    pub(crate) fn run(&self, images: &[Vec<f32>], maps: &mut [(Source, Vec<f32>)]) -> Result<(), ShapeError> {
        let mut groups: Vec<Group> =
            images.chunks(GROUP).map(|images| Group { images, maps: Vec::with_capacity(maps.len()) }).collect();
        for (source, values) in maps {
            for (group, part) in groups.iter_mut().zip(values.chunks_mut(GROUP * source.values_per_image())) {
                group.maps.push((*source, part));
            }
        }
        groups.into_par_iter().try_for_each(|group| {
            let idle = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut workspace = idle.unwrap_or_else(Workspace::new);
            self.run_group(group, &mut workspace)?;
            self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
            Ok(())
        })
    }

    fn run_group(&self, mut group: Group, workspace: &mut Workspace) -> Result<(), ShapeError> {
        let Workspace { grey, colour, stem, stages, scratch } = workspace;
        if group.images.iter().all(|image| image.len() == IMAGE_SIDE * IMAGE_SIDE) {
            for (index, image) in group.images.iter().enumerate() {
                copy_in(image, grey, index);
            }
            self.grey_stem.conv.run(grey, Some(&self.grey_stem.offset), stem, scratch)?;
        } else {
            for (index, image) in group.images.iter().enumerate() {
                copy_in(&normalise(image), colour, index);
            }
            self.network.stem.run(colour, None, stem, scratch)?;
        }
        // The pool's output is both input and shortcut of the first block.
        max_pool_3x3_stride_2(stem, &mut stages[0][1]);

        let depth = group.maps.iter().filter_map(|(source, _)| source.stage()).max().unwrap_or(0);
        for (index, [first, second]) in self.network.stages[..depth].iter().enumerate() {
            let (before, from_here) = stages.split_at_mut(index);
            let [inner, shortcut, middle] = &mut from_here[0];
            if let (Some(downsample), Some([_, input, _])) = (&first.downsample, before.last()) {
                first.conv1.run(input, None, inner, scratch)?;
                downsample.run(input, None, shortcut, scratch)?;
            } else {
                first.conv1.run(shortcut, None, inner, scratch)?;
            }
            first.conv2.run(inner, Some(shortcut), middle, scratch)?;
            second.conv1.run(middle, None, inner, scratch)?;
            second.conv2.run(inner, Some(middle), shortcut, scratch)?;
            for (_, values) in group.maps.iter_mut().filter(|(source, _)| source.stage() == Some(index + 1)) {
                copy_out(shortcut, values);
            }
        }
        Ok(())
    }
}

/// The fastest algorithm for a layer, by measurement (`docs/benchmarks.md`). The stages' sides are 56, 28, 14 and 7.
pub(crate) fn algorithm(shape: ConvShape) -> Algorithm {
    match shape {
        ConvShape { kernel: 3, stride: 1, in_channels: 64 | 128, .. } => Algorithm::Winograd4,
        ConvShape { kernel: 3, stride: 1, in_channels: 256, .. } => Algorithm::Winograd2,
        _ => Algorithm::Direct,
    }
}

fn copy_in(image: &[f32], activations: &mut Activations, index: usize) {
    for (y, row) in image.chunks_exact(activations.side() * activations.channels()).enumerate() {
        activations.row_mut(index, y).copy_from_slice(row);
    }
}

fn copy_out(activations: &Activations, values: &mut [f32]) {
    let (side, row) = (activations.side(), activations.side() * activations.channels());
    for (at, values) in values.chunks_exact_mut(row).enumerate() {
        values.copy_from_slice(activations.row(at / side, at % side));
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

impl Workspace {
    fn new() -> Self {
        let stem_channels = Source::Fm1.channels();
        Self {
            grey: Activations::zeros(GROUP, IMAGE_SIDE, 3, 1),
            colour: Activations::zeros(GROUP, IMAGE_SIDE, 3, 3),
            stem: Activations::zeros(GROUP, STEM_SIDE, 1, stem_channels),
            stages: Source::FEATURE_MAPS
                .iter()
                .map(|map| std::array::from_fn(|_| Activations::zeros(GROUP, map.side(), 1, map.channels())))
                .collect(),
            scratch: Scratch::default(),
        }
    }
}
