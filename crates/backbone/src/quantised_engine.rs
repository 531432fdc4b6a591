use std::sync::{Mutex, PoisonError};

use kernels::{Activations, Isa, Outputs, QuantisedConv2d, QuantisedInput, Scratch, ShapeError, quantise};
use rayon::prelude::*;
use sources::Source;

use crate::{
    Block, Calibration, FeatureSink, FoldedConv, Network,
    group::{DEEP_GROUP, Group, SHALLOW_GROUP, SHALLOW_STAGES},
    stem::{Stem, StemWorkspace},
};

/// The network on this project's CPU kernels, in 8-bit integers behind the stem.
///
/// Convolutions read integers. Shortcuts stay in floats, and so do the feature maps, which are stored as they come out of
/// a stage's last ReLU and not as its integers.
#[derive(Debug)]
pub(crate) struct QuantisedEngine {
    stem: Stem,
    stages: Vec<[QuantisedBlock; 2]>,
    /// Buffers of the groups in flight, reused from call to call.
    workspaces: Mutex<Vec<Workspace>>,
}

/// A basic block, and integers per unit of what its convolutions read.
#[derive(Debug)]
struct QuantisedBlock {
    block: Block<QuantisedConv2d>,
    first_factors: Vec<f32>,
    second_factors: Vec<f32>,
}

/// The activations of one group of images.
#[derive(Debug)]
struct Workspace {
    stem: StemWorkspace,
    stages: Vec<StageWorkspace>,
    /// What the shallow stages hand over to the deep ones, of one shallow group.
    handed_over: Activations<u8>,
    scratch: Scratch,
    /// One feature map.
    floats: Vec<f32>,
}

/// The activations of a stage.
#[derive(Debug)]
struct StageWorkspace {
    /// What its first block reads.
    input: Activations<u8>,
    /// Between the two convolutions of a block.
    inner: Activations<u8>,
    /// What the second block reads.
    middle: Activations<u8>,
    /// The same in floats, the second block's shortcut.
    middle_floats: Activations,
    /// The first block's shortcut, then the stage's output.
    shortcut: Activations,
}

impl QuantisedEngine {
    /// Quantises `network`, whose activations `calibration` describes.
    pub(crate) fn new(network: &Network<FoldedConv>, calibration: &Calibration, isa: Isa) -> Result<Self, ShapeError> {
        let stages = network.stages.iter().zip(&calibration.stages).map(|(blocks, ranges)| {
            let block = |at: usize| {
                let Block { conv1, conv2, downsample } = &blocks[at];
                let readers: Vec<&FoldedConv> = [conv1].into_iter().chain(downsample).collect();
                let (first, second) =
                    (ranges[at].first.quantise_for(&readers), ranges[at].second.quantise_for(&[conv2]));
                let convert = |conv: &FoldedConv, input: &QuantisedInput| {
                    QuantisedConv2d::new(isa, conv.shape, &conv.weights, &conv.bias, conv.relu, input)
                };
                let factors = |input: &QuantisedInput| input.steps.iter().map(|step| 1.0 / step).collect();
                Ok(QuantisedBlock {
                    block: Block {
                        conv1: convert(conv1, &first)?,
                        conv2: convert(conv2, &second)?,
                        downsample: downsample.as_ref().map(|conv| convert(conv, &first)).transpose()?,
                    },
                    first_factors: factors(&first),
                    second_factors: factors(&second),
                })
            };
            Ok([block(0)?, block(1)?])
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
            self.run_group(group, &mut workspace)?;
            self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
            Ok(())
        })
    }

    fn run_group(&self, mut group: Group<impl FeatureSink>, workspace: &mut Workspace) -> Result<(), ShapeError> {
        let depth = group.depth();
        let Workspace { stem, stages, handed_over, scratch, floats } = workspace;
        let (shallow, deep) = stages.split_at_mut(SHALLOW_STAGES);
        deep.iter_mut().for_each(|stage| stage.set_images(group.images.len()));
        for (index, images) in group.images.chunks(SHALLOW_GROUP).enumerate() {
            shallow.iter_mut().for_each(|stage| stage.set_images(images.len()));
            stem.set_images(images.len());
            handed_over.set_images(images.len());
            let first = index * SHALLOW_GROUP;
            let StageWorkspace { shortcut, input, .. } = &mut shallow[0];
            self.stem.run(images, stem, scratch, shortcut)?;
            quantise(shortcut, &self.stages[0][0].first_factors, input);
            for stage in 0..depth.min(SHALLOW_STAGES) {
                let (this, behind) = shallow[stage..].split_at_mut(1);
                let next = behind.first_mut().map_or(&mut *handed_over, |next| &mut next.input);
                self.run_stage(stage, &mut this[0], Some(next))?;
                group.hand_over(stage, first, &this[0].shortcut, floats);
            }
            for image in 0..images.len() {
                deep[0].input.copy_image(first + image, handed_over, image);
            }
        }
        for stage in SHALLOW_STAGES..depth {
            let (this, behind) = deep[stage - SHALLOW_STAGES..].split_at_mut(1);
            self.run_stage(stage, &mut this[0], behind.first_mut().map(|next| &mut next.input))?;
            group.hand_over(stage, 0, &this[0].shortcut, floats);
        }
        Ok(())
    }

    /// The two blocks of a stage, counted from 0, whose output the next stage reads as `next`.
    fn run_stage(
        &self,
        stage: usize,
        workspace: &mut StageWorkspace,
        next: Option<&mut Activations<u8>>,
    ) -> Result<(), ShapeError> {
        let StageWorkspace { input, inner, middle, middle_floats, shortcut } = workspace;
        let [first, second] = &self.stages[stage];
        if let Some(downsample) = &first.block.downsample {
            downsample.run(input, None, Outputs { floats: Some(shortcut), quantised: None })?;
        }
        let quantised = Some((&mut *inner, &*first.second_factors));
        first.block.conv1.run(input, None, Outputs { floats: None, quantised })?;
        let quantised = Some((&mut *middle, &*second.first_factors));
        first.block.conv2.run(inner, Some(shortcut), Outputs { floats: Some(middle_floats), quantised })?;
        let quantised = Some((&mut *inner, &*second.second_factors));
        second.block.conv1.run(middle, None, Outputs { floats: None, quantised })?;
        let quantised = next.map(|next| (next, &*self.stages[stage + 1][0].first_factors));
        second.block.conv2.run(inner, Some(middle_floats), Outputs { floats: Some(shortcut), quantised })
    }
}

impl Workspace {
    fn new() -> Self {
        let stage = |(index, map): (usize, &Source)| {
            let images = if index < SHALLOW_STAGES { SHALLOW_GROUP } else { DEEP_GROUP };
            // The first stage reads the stem's channels at its own side, the others half as many at twice the side.
            let (side, channels) = (map.side(), map.channels());
            let (input_side, input_channels) = if index == 0 { (side, channels) } else { (side * 2, channels / 2) };
            StageWorkspace {
                input: Activations::zeros(images, input_side, 1, input_channels),
                inner: Activations::zeros(images, side, 1, channels),
                middle: Activations::zeros(images, side, 1, channels),
                middle_floats: Activations::zeros(images, side, 0, channels),
                shortcut: Activations::zeros(images, side, 0, channels),
            }
        };
        let last_shallow = Source::FEATURE_MAPS[SHALLOW_STAGES - 1];
        Self {
            stem: StemWorkspace::new(Source::Fm1.channels()),
            stages: Source::FEATURE_MAPS.iter().enumerate().map(stage).collect(),
            handed_over: Activations::zeros(SHALLOW_GROUP, last_shallow.side(), 1, last_shallow.channels()),
            scratch: Scratch::default(),
            floats: vec![0.0; Source::Fm1.values_per_image()],
        }
    }
}

impl StageWorkspace {
    fn set_images(&mut self, images: usize) {
        for integers in [&mut self.input, &mut self.inner, &mut self.middle] {
            integers.set_images(images);
        }
        for floats in [&mut self.middle_floats, &mut self.shortcut] {
            floats.set_images(images);
        }
    }
}
