use std::sync::{Mutex, PoisonError};

use kernels::{Activations, Algorithm, Conv2d, ConvShape, Element, Isa, Scratch, ShapeError};
use rayon::prelude::*;
use sources::Source;

use crate::{
    Block, FeatureSink, FoldedConv, Network,
    group::{DEEP_GROUP, Group, SHALLOW_GROUP, SHALLOW_STAGES},
    stem::{Stem, StemWorkspace},
};

/// The network on this project's CPU kernels, behind the stem in 32-bit floats or bfloat16.
#[derive(Debug)]
pub(crate) struct NativeEngine<E = f32> {
    stem: Stem,
    stages: Vec<[Block<Conv2d<E>>; 2]>,
    /// Buffers of the groups in flight, reused from call to call.
    workspaces: Mutex<Vec<Workspace<E>>>,
}

/// The activations of one group of images.
#[derive(Debug)]
struct Workspace<E> {
    stem: StemWorkspace,
    /// Per stage: inside the block, the shortcut, and the first block's output. The second block's output
    /// takes the shortcut's place.
    stages: Vec<[Activations<E>; 3]>,
    /// What the shallow stages hand over to the deep ones.
    handed_over: Activations<E>,
    scratch: Scratch,
    /// One feature map in floats.
    floats: Vec<f32>,
}

/// What a block's convolutions read: its first one, and its second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConvInput {
    First,
    Second,
}

/// Sees what the convolutions of stage and block read.
pub(crate) trait Probe<E>: FnMut(usize, usize, ConvInput, &Activations<E>) {}

impl<E, F: FnMut(usize, usize, ConvInput, &Activations<E>)> Probe<E> for F {}

impl<E: Element> NativeEngine<E> {
    pub(crate) fn new(network: &Network<FoldedConv>, isa: Isa) -> Result<Self, ShapeError> {
        let convert = |conv: &FoldedConv| {
            Conv2d::new(isa, algorithm::<E>(conv.shape), conv.shape, &conv.weights, &conv.bias, conv.relu)
        };
        // Packing is most of the time that a start takes, so that all threads take part.
        let pack = |block: &Block<FoldedConv>| {
            let (conv1, conv2) = rayon::join(|| convert(&block.conv1), || convert(&block.conv2));
            let downsample = block.downsample.as_ref().map(convert).transpose()?;
            Ok(Block { conv1: conv1?, conv2: conv2?, downsample })
        };
        let stages = network.stages.par_iter().map(|[first, second]| {
            let (first, second) = rayon::join(|| pack(first), || pack(second));
            Ok([first?, second?])
        });
        Ok(Self {
            stem: Stem::new(&network.stem, isa)?,
            stages: stages.collect::<Result<_, _>>()?,
            workspaces: Mutex::default(),
        })
    }

    /// Feature maps of resized images, (224, 224, 1 or 3) each, into `sinks`, one per map and image.
    /// The pass stops after the deepest map that is wanted.
    pub(crate) fn run<S: FeatureSink>(
        &self,
        images: &[Vec<f32>],
        sinks: &mut [(Source, Vec<S>)],
    ) -> Result<(), ShapeError> {
        Group::share_out(images, sinks).into_par_iter().try_for_each(|group| {
            let idle = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut workspace = idle.unwrap_or_else(Workspace::new);
            let depth = group.depth();
            self.run_group(group, depth, &mut workspace, &mut |_, _, _, _: &Activations<E>| {})?;
            self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
            Ok(())
        })
    }

    /// Runs `images` through all stages for what `probe` sees.
    pub(crate) fn observe(&self, images: &[Vec<f32>], probe: &mut impl Probe<E>) -> Result<(), ShapeError> {
        let mut workspace = Workspace::new();
        for images in images.chunks(DEEP_GROUP) {
            self.run_group(Group::<&mut [f32]>::without_maps(images), self.stages.len(), &mut workspace, probe)?;
        }
        Ok(())
    }

    fn run_group(
        &self,
        mut group: Group<impl FeatureSink>,
        depth: usize,
        workspace: &mut Workspace<E>,
        probe: &mut impl Probe<E>,
    ) -> Result<(), ShapeError> {
        workspace.set_images(group.images.len());
        for (index, images) in group.images.chunks(SHALLOW_GROUP).enumerate() {
            workspace.set_shallow_images(images.len());
            let first = index * SHALLOW_GROUP;
            // The pool's output is both input and shortcut of the first block.
            let Workspace { stem, stages, scratch, .. } = workspace;
            self.stem.run(images, stem, scratch, &mut stages[0][1])?;
            for stage in 0..depth.min(SHALLOW_STAGES) {
                self.run_stage(stage, workspace, probe)?;
                group.hand_over(stage, first, &workspace.stages[stage][1], &mut workspace.floats);
            }
            for image in 0..images.len() {
                workspace.handed_over.copy_image(first + image, &workspace.stages[SHALLOW_STAGES - 1][1], image);
            }
        }
        for stage in SHALLOW_STAGES..depth {
            self.run_stage(stage, workspace, probe)?;
            group.hand_over(stage, 0, &workspace.stages[stage][1], &mut workspace.floats);
        }
        Ok(())
    }

    /// The two blocks of a stage, counted from 0.
    fn run_stage(
        &self,
        stage: usize,
        workspace: &mut Workspace<E>,
        probe: &mut impl Probe<E>,
    ) -> Result<(), ShapeError> {
        let Workspace { stages, handed_over, scratch, .. } = workspace;
        let [first, second] = &self.stages[stage];
        let (before, from_here) = stages.split_at_mut(stage);
        let input =
            if stage == SHALLOW_STAGES { Some(&*handed_over) } else { before.last().map(|[_, input, _]| input) };
        let [inner, shortcut, middle] = &mut from_here[0];
        if let (Some(downsample), Some(input)) = (&first.downsample, input) {
            probe(stage, 0, ConvInput::First, input);
            first.conv1.run(input, None, inner, scratch)?;
            downsample.run(input, None, shortcut, scratch)?;
        } else {
            probe(stage, 0, ConvInput::First, shortcut);
            first.conv1.run(shortcut, None, inner, scratch)?;
        }
        probe(stage, 0, ConvInput::Second, inner);
        first.conv2.run(inner, Some(shortcut), middle, scratch)?;
        probe(stage, 1, ConvInput::First, middle);
        second.conv1.run(middle, None, inner, scratch)?;
        probe(stage, 1, ConvInput::Second, inner);
        second.conv2.run(inner, Some(middle), shortcut, scratch)
    }
}

/// The fastest algorithm for a layer, by measurement (`docs/benchmarks.md`). The stages' sides are 56, 28, 14 and 7.
fn algorithm<E: Element>(shape: ConvShape) -> Algorithm {
    match shape {
        ConvShape { kernel: 3, stride: 1, .. } => E::WINOGRAD,
        _ => Algorithm::Direct,
    }
}

impl<E: Element> Workspace<E> {
    fn new() -> Self {
        let stage = |(index, map): (usize, &Source)| {
            let images = if index < SHALLOW_STAGES { SHALLOW_GROUP } else { DEEP_GROUP };
            let convolution = ConvShape {
                in_channels: map.channels(),
                out_channels: map.channels(),
                kernel: 3,
                stride: 1,
                padding: 1,
            };
            let border = algorithm::<E>(convolution).border(map.side(), 1);
            std::array::from_fn(|_| Activations::zeros(images, map.side(), border, map.channels()))
        };
        let last_shallow = Source::FEATURE_MAPS[SHALLOW_STAGES - 1];
        Self {
            stem: StemWorkspace::new(Source::Fm1.channels()),
            stages: Source::FEATURE_MAPS.iter().enumerate().map(stage).collect(),
            handed_over: Activations::zeros(DEEP_GROUP, last_shallow.side(), 1, last_shallow.channels()),
            scratch: Scratch::default(),
            floats: vec![0.0; Source::Fm1.values_per_image()],
        }
    }

    fn set_images(&mut self, images: usize) {
        let deep = self.stages[SHALLOW_STAGES..].iter_mut().flatten();
        deep.chain([&mut self.handed_over]).for_each(|activations| activations.set_images(images));
    }

    fn set_shallow_images(&mut self, images: usize) {
        let shallow = self.stages[..SHALLOW_STAGES].iter_mut().flatten();
        shallow.for_each(|activations| activations.set_images(images));
        self.stem.set_images(images);
    }
}
