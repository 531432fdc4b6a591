use std::sync::{Mutex, PoisonError};

use kernels::{Activations, Algorithm, Conv2d, ConvShape, Isa, Scratch, ShapeError, max_pool_3x3_stride_2};
use rayon::prelude::*;
use sources::Source;

use crate::{
    FoldedConv, Network,
    preprocess::{IMAGE_SIDE, IMAGENET_MEAN, IMAGENET_STD, normalise},
};

/// Images that pass the stem and the shallow stages together: few, so that their large activations stay in the cache.
/// Two, because the 392 tiles of a pair in the first stage are seven chunks of four strips.
const SHALLOW_GROUP: usize = 2;

/// Stages that are shallow.
const SHALLOW_STAGES: usize = 2;

/// Images that pass the deep stages together at most: many, so that weights of tens of megabytes are read once for all
/// of them. An even number of shallow groups.
const DEEP_GROUP: usize = 16;

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
    /// What the shallow stages hand over to the deep ones.
    handed_over: Activations,
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
        let share = images.len().div_ceil(rayon::current_num_threads());
        let size = share.next_multiple_of(SHALLOW_GROUP).clamp(1, DEEP_GROUP);
        let mut groups: Vec<Group> =
            images.chunks(size).map(|images| Group { images, maps: Vec::with_capacity(maps.len()) }).collect();
        for (source, values) in maps {
            for (group, part) in groups.iter_mut().zip(values.chunks_mut(size * source.values_per_image())) {
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
        let depth = group.maps.iter().filter_map(|(source, _)| source.stage()).max().unwrap_or(0);
        workspace.set_images(group.images.len());
        for (index, images) in group.images.chunks(SHALLOW_GROUP).enumerate() {
            workspace.set_shallow_images(images.len());
            let first = index * SHALLOW_GROUP;
            self.run_stem(images, workspace)?;
            for stage in 0..depth.min(SHALLOW_STAGES) {
                self.run_stage(stage, workspace)?;
                group.copy_out(stage, first, &workspace.stages[stage][1]);
            }
            for image in 0..images.len() {
                workspace.handed_over.copy_image(first + image, &workspace.stages[SHALLOW_STAGES - 1][1], image);
            }
        }
        for stage in SHALLOW_STAGES..depth {
            self.run_stage(stage, workspace)?;
            group.copy_out(stage, 0, &workspace.stages[stage][1]);
        }
        Ok(())
    }

    /// conv1 and the pool, whose output is both input and shortcut of the first block.
    fn run_stem(&self, images: &[Vec<f32>], workspace: &mut Workspace) -> Result<(), ShapeError> {
        let Workspace { grey, colour, stem, stages, scratch, .. } = workspace;
        if images.iter().all(|image| image.len() == IMAGE_SIDE * IMAGE_SIDE) {
            for (index, image) in images.iter().enumerate() {
                copy_in(image, grey, index);
            }
            self.grey_stem.conv.run(grey, Some(&self.grey_stem.offset), stem, scratch)?;
        } else {
            for (index, image) in images.iter().enumerate() {
                copy_in(&normalise(image), colour, index);
            }
            self.network.stem.run(colour, None, stem, scratch)?;
        }
        max_pool_3x3_stride_2(stem, &mut stages[0][1]);
        Ok(())
    }

    /// The two blocks of a stage, counted from 0.
    fn run_stage(&self, stage: usize, workspace: &mut Workspace) -> Result<(), ShapeError> {
        let Workspace { stages, handed_over, scratch, .. } = workspace;
        let [first, second] = &self.network.stages[stage];
        let (before, from_here) = stages.split_at_mut(stage);
        let input =
            if stage == SHALLOW_STAGES { Some(&*handed_over) } else { before.last().map(|[_, input, _]| input) };
        let [inner, shortcut, middle] = &mut from_here[0];
        if let (Some(downsample), Some(input)) = (&first.downsample, input) {
            first.conv1.run(input, None, inner, scratch)?;
            downsample.run(input, None, shortcut, scratch)?;
        } else {
            first.conv1.run(shortcut, None, inner, scratch)?;
        }
        first.conv2.run(inner, Some(shortcut), middle, scratch)?;
        second.conv1.run(middle, None, inner, scratch)?;
        second.conv2.run(inner, Some(middle), shortcut, scratch)
    }
}

impl Group<'_> {
    /// Writes the map of `stage`, if it is wanted, for the images from `first` on.
    fn copy_out(&mut self, stage: usize, first: usize, activations: &Activations) {
        for (source, values) in self.maps.iter_mut().filter(|(source, _)| source.stage() == Some(stage + 1)) {
            copy_out(activations, &mut values[first * source.values_per_image()..]);
        }
    }
}

/// The fastest algorithm for a layer, by measurement (`docs/benchmarks.md`). The stages' sides are 56, 28, 14 and 7.
pub(crate) fn algorithm(shape: ConvShape) -> Algorithm {
    match shape {
        ConvShape { kernel: 3, stride: 1, .. } => Algorithm::Winograd4,
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
    for (at, values) in values.chunks_exact_mut(row).take(activations.images() * side).enumerate() {
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
        let stage = |(index, map): (usize, &Source)| {
            let images = if index < SHALLOW_STAGES { SHALLOW_GROUP } else { DEEP_GROUP };
            let convolution = ConvShape {
                in_channels: map.channels(),
                out_channels: map.channels(),
                kernel: 3,
                stride: 1,
                padding: 1,
            };
            let border = algorithm(convolution).border(map.side(), 1);
            std::array::from_fn(|_| Activations::zeros(images, map.side(), border, map.channels()))
        };
        let last_shallow = Source::FEATURE_MAPS[SHALLOW_STAGES - 1];
        Self {
            grey: Activations::zeros(SHALLOW_GROUP, IMAGE_SIDE, 3, 1),
            colour: Activations::zeros(SHALLOW_GROUP, IMAGE_SIDE, 3, 3),
            stem: Activations::zeros(SHALLOW_GROUP, STEM_SIDE, 1, stem_channels),
            stages: Source::FEATURE_MAPS.iter().enumerate().map(stage).collect(),
            handed_over: Activations::zeros(DEEP_GROUP, last_shallow.side(), 1, last_shallow.channels()),
            scratch: Scratch::default(),
        }
    }

    fn set_images(&mut self, images: usize) {
        let deep = self.stages[SHALLOW_STAGES..].iter_mut().flatten();
        deep.chain([&mut self.handed_over]).for_each(|activations| activations.set_images(images));
    }

    fn set_shallow_images(&mut self, images: usize) {
        let shallow = self.stages[..SHALLOW_STAGES].iter_mut().flatten();
        let stem = [&mut self.grey, &mut self.colour, &mut self.stem];
        shallow.chain(stem).for_each(|activations| activations.set_images(images));
    }
}
