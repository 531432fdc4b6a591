//! What a precision costs in accuracy: a linear probe on the channel means of each feature map, on real faces.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use backbone::{Backbone, Engine, FeatureSink, Precision, Weights, preprocess::resize};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss::cross_entropy};
use comfy_table::Table;
use dataset::{ClassSet, LabelRule, Split, target};
use pipeline::Context;
use rayon::prelude::*;
use serde::Serialize;
use sources::Source;
use study::Study;

use crate::ProbeArguments;

/// Images per pass.
const BATCH: usize = 32;

/// Images that 8-bit integers are calibrated on, as `extract` does.
const CALIBRATION_IMAGES: usize = 48;

/// Full-batch steps of Adam, after which the loss falls by less than 1e-4 a step.
const STEPS: usize = 400;
const LEARNING_RATE: f64 = 0.05;
const WEIGHT_DECAY: f64 = 1e-3;

/// The probe's test accuracies in percent, per precision and feature map.
#[derive(Debug, Serialize)]
pub struct Probed {
    train_images: usize,
    test_images: usize,
    accuracy: BTreeMap<&'static str, BTreeMap<Source, f64>>,
}

/// An image of the data set by its index, and its class.
type Labelled = (usize, u32);

/// The means over the pixels of one image's map.
struct ChannelMeans(Vec<f32>);

impl FeatureSink for ChannelMeans {
    fn take<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        let (mut pixels, channels) = (0, self.0.len());
        for pixel in rows.flat_map(|row| row.chunks_exact(channels)) {
            self.0.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
            pixels += 1;
        }
        self.0.iter_mut().for_each(|sum| *sum /= pixels as f32);
    }
}

pub fn measure(arguments: &ProbeArguments) -> Result<Probed> {
    let folder = tempfile::tempdir()?;
    fs_err::write(folder.path().join("study.toml"), "")?;
    let overrides = [
        format!("data.dir={}", arguments.data.display()),
        format!("cache.dir={}", folder.path().join("cache").display()),
        format!("extract.limit={}", arguments.images),
    ];
    let context = Context::open(Study::load(&folder.path().join("study.toml"), &overrides)?, false)?;
    let labelled = |split: Split| -> Vec<Labelled> {
        let class = |index: &usize| {
            let image = &context.dataset.images[*index];
            let target = (image.split == split)
                .then(|| target(&image.annotation, LabelRule::Majority, ClassSet::Six, split))
                .flatten()?;
            Some((*index, target.class() as u32))
        };
        context.selected.iter().filter_map(class).collect()
    };
    let (train, test) = (labelled(Split::Train), labelled(Split::Test));
    ensure!(!train.is_empty() && !test.is_empty(), "no labelled training or test images");

    let weights = Weights::read(&arguments.weights)?;
    let count = CALIBRATION_IMAGES.min(train.len());
    let sample: Vec<Vec<f32>> =
        (0..count).map(|at| decode(&context, train[at * train.len() / count].0)).collect::<Result<_>>()?;
    let calibration = Backbone::calibrate(&weights, &sample)?;
    let mut accuracy = BTreeMap::new();
    for precision in Precision::ALL {
        let backbone = match precision {
            Precision::F32 => Backbone::new(&weights, Engine::Native, &Device::Cpu)?,
            Precision::Bf16 => Backbone::bf16(&weights)?,
            Precision::Int8 => Backbone::quantised(&weights, &calibration)?,
        };
        let (train_means, test_means) = (means(&context, &backbone, &train)?, means(&context, &backbone, &test)?);
        let mut of_maps = BTreeMap::new();
        for ((source, train_means), (_, test_means)) in train_means.into_iter().zip(test_means) {
            of_maps.insert(source, probe((&train_means, &train), (&test_means, &test))?);
        }
        eprintln!("{backbone}: {of_maps:?}");
        accuracy.insert(precision.name(), of_maps);
    }
    Ok(Probed { train_images: train.len(), test_images: test.len(), accuracy })
}

fn decode(context: &Context, index: usize) -> Result<Vec<f32>> {
    let pixels = context.dataset.decode(index)?;
    Ok(resize(&pixels.data, pixels.width, pixels.height, pixels.channels)?)
}

/// The channel means of every feature map: (images, channels) each.
fn means(context: &Context, backbone: &Backbone, images: &[Labelled]) -> Result<Vec<(Source, Tensor)>> {
    let mut of_maps: Vec<(Source, Vec<f32>)> = Source::FEATURE_MAPS.map(|source| (source, Vec::new())).into();
    for batch in images.chunks(BATCH) {
        let batch: Vec<Vec<f32>> = batch.par_iter().map(|(index, _)| decode(context, *index)).collect::<Result<_>>()?;
        let sink = |source: Source| (0..batch.len()).map(|_| ChannelMeans(vec![0.0; source.channels()])).collect();
        let mut sinks: Vec<(Source, Vec<ChannelMeans>)> =
            Source::FEATURE_MAPS.map(|source| (source, sink(source))).into();
        backbone.run(&batch, &mut sinks)?;
        for ((_, means), (_, sinks)) in of_maps.iter_mut().zip(&sinks) {
            means.extend(sinks.iter().flat_map(|sink| &sink.0));
        }
    }
    let tensor = |(source, means): (Source, Vec<f32>)| {
        Ok((source, Tensor::from_vec(means, (images.len(), source.channels()), &Device::Cpu)?))
    };
    of_maps.into_iter().map(tensor).collect()
}

/// Test accuracy in percent of multinomial logistic regression on standardised inputs.
fn probe(train: (&Tensor, &[Labelled]), test: (&Tensor, &[Labelled])) -> Result<f64> {
    let labels = |of: &[Labelled]| -> Result<Tensor> {
        Ok(Tensor::from_iter(of.iter().map(|(_, class)| *class), &Device::Cpu)?)
    };
    let mean = train.0.mean_keepdim(0)?;
    let std = train.0.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)?.sqrt()?.affine(1.0, 1e-6)?;
    let standardised = |means: &Tensor| -> Result<Tensor> { Ok(means.broadcast_sub(&mean)?.broadcast_div(&std)?) };
    let (inputs, targets) = (standardised(train.0)?, labels(train.1)?);
    let weights = Var::zeros((inputs.dim(1)?, ClassSet::Six.len()), DType::F32, &Device::Cpu)?;
    let bias = Var::zeros(ClassSet::Six.len(), DType::F32, &Device::Cpu)?;
    let logits = |inputs: &Tensor| inputs.matmul(&weights)?.broadcast_add(&bias);
    let parameters = ParamsAdamW { lr: LEARNING_RATE, weight_decay: WEIGHT_DECAY, ..Default::default() };
    let mut adam = AdamW::new(vec![weights.clone(), bias.clone()], parameters)?;
    for step in 0..STEPS {
        adam.set_learning_rate(LEARNING_RATE * (1.0 - step as f64 / STEPS as f64));
        adam.backward_step(&cross_entropy(&logits(&inputs)?, &targets)?)?;
    }
    let predicted = logits(&standardised(test.0)?)?.argmax(D::Minus1)?;
    let correct: f32 = predicted.eq(&labels(test.1)?)?.to_dtype(DType::F32)?.sum_all()?.to_scalar()?;
    Ok(100.0 * f64::from(correct) / test.1.len() as f64)
}

pub fn table(probed: &Probed) -> String {
    let mut table = Table::new();
    let header = [String::new()].into_iter().chain(Source::FEATURE_MAPS.map(|source| source.to_string()));
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(header);
    let reference = &probed.accuracy[Precision::F32.name()];
    for precision in Precision::ALL {
        let cells = Source::FEATURE_MAPS.map(|source| {
            let accuracy = probed.accuracy[precision.name()][&source];
            match precision {
                Precision::F32 => format!("{accuracy:.2}"),
                _ => format!("{accuracy:.2} ({:+.2})", accuracy - reference[&source]),
            }
        });
        table.add_row([precision.to_string()].into_iter().chain(cells));
    }
    format!(
        "{table}\ntest accuracy in percent on {} images of a linear probe on channel means, trained on {}",
        probed.test_images, probed.train_images
    )
}
