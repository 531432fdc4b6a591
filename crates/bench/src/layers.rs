//! Every convolution of the network alone.

use std::time::Instant;

use anyhow::Result;
use backbone::{FoldedConv, Network, Precision, Weights};
use bytemuck::Pod;
use comfy_table::Table;
use half::bf16;
use kernels::{
    Activations, Algorithm, Conv2d, ConvShape, Element, Isa, Outputs, QuantisedConv2d, QuantisedInput, Scratch,
    ShapeError,
};
use rayon::prelude::*;
use serde::Serialize;

use crate::{ExtractArguments, extract::weights, median, peak::peak_gflops};

/// Images that a thread takes through a layer of this output side together, as the engine does.
const fn group(side: usize) -> usize {
    if side >= 28 { 2 } else { 16 }
}

/// All layers.
#[derive(Debug, Serialize)]
pub struct Layers {
    isa: String,
    threads: usize,
    peak_gflops: f64,
    layers: Vec<Layer>,
}

/// One layer.
#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    precision: Precision,
    algorithm: String,
    /// Whether it is the fastest of its layer and precision.
    fastest: bool,
    /// Of one image, by the definition of the convolution.
    gflop: f64,
    gflops: f64,
    share_of_peak: f64,
    /// Of one image, on all threads together.
    ms: f64,
}

/// What all layers are measured with.
struct Setting<'a> {
    isa: Isa,
    arguments: &'a ExtractArguments,
    peak_gflops: f64,
}

pub fn measure(arguments: &ExtractArguments) -> Result<Layers> {
    let isa = Isa::choose()?;
    let setting = Setting { isa, arguments, peak_gflops: peak_gflops(isa, arguments.threads) };
    let network = Network::read(&Weights::read(&weights(arguments)?.path)?)?;
    let mut layers = setting.floats::<f32>(Precision::F32, "conv1", &network.stem, 224)?;
    let mut side = 56;
    let mut all = |name: String, conv: &FoldedConv, side: usize| -> Result<()> {
        layers.extend(setting.floats::<f32>(Precision::F32, &name, conv, side)?);
        layers.extend(setting.floats::<bf16>(Precision::Bf16, &name, conv, side)?);
        layers.push(setting.integers(&name, conv, side)?);
        Ok(())
    };
    for (index, blocks) in network.stages.iter().enumerate() {
        for (block, convs) in blocks.iter().enumerate() {
            let name = format!("layer{}.{block}", index + 1);
            all(format!("{name}.conv1"), &convs.conv1, side)?;
            if let Some(downsample) = &convs.downsample {
                all(format!("{name}.downsample"), downsample, side)?;
            }
            side /= convs.conv1.shape.stride;
            all(format!("{name}.conv2"), &convs.conv2, side)?;
        }
    }
    for index in 0..layers.len() {
        let Layer { name, precision, ms, .. } = &layers[index];
        let slower = |other: &Layer| (&other.name, other.precision) != (name, *precision) || other.ms >= *ms;
        layers[index].fastest = layers.iter().all(slower);
    }
    Ok(Layers { isa: isa.to_string(), threads: arguments.threads, peak_gflops: setting.peak_gflops, layers })
}

impl Setting<'_> {
    /// A layer by every algorithm that an engine in `precision` could choose.
    fn floats<E: Element>(
        &self,
        precision: Precision,
        name: &str,
        conv: &FoldedConv,
        side: usize,
    ) -> Result<Vec<Layer>> {
        let ConvShape { in_channels, out_channels, kernel, stride, padding } = conv.shape;
        let winograd = [Algorithm::Winograd2, Algorithm::Winograd4].into_iter();
        let winograd = winograd.take_while(|algorithm| (kernel, stride) == (3, 1) && !coarser(*algorithm, E::WINOGRAD));
        let mut layers = Vec::new();
        for algorithm in [Algorithm::Direct].into_iter().chain(winograd) {
            let kernel_fn = Conv2d::<E>::new(self.isa, algorithm, conv.shape, &conv.weights, &conv.bias, conv.relu)?;
            let buffers = || {
                let (images, out_side) = (group(out_side(conv.shape, side)), out_side(conv.shape, side));
                let mut input = Activations::zeros(images, side, algorithm.border(side, padding), in_channels);
                fill(&mut input, |value| E::round(value as f32 / 17.0));
                (input, Activations::zeros(images, out_side, 1, out_channels), Scratch::default())
            };
            let run = |(input, output, scratch): &mut (Activations<E>, Activations<E>, Scratch)| {
                kernel_fn.run(input, None, output, scratch)
            };
            layers.push(self.layer((name, precision, &format!("{algorithm:?}")), conv.shape, side, buffers, run)?);
        }
        Ok(layers)
    }

    /// A layer in 8-bit integers, from integers to integers.
    fn integers(&self, name: &str, conv: &FoldedConv, side: usize) -> Result<Layer> {
        let ConvShape { in_channels, out_channels, padding, .. } = conv.shape;
        let input = QuantisedInput { steps: vec![1.0 / 17.0; in_channels], means: vec![0.5; in_channels] };
        let kernel_fn = QuantisedConv2d::new(self.isa, conv.shape, &conv.weights, &conv.bias, conv.relu, &input)?;
        let factors = vec![100.0; out_channels];
        let buffers = || {
            let (images, out_side) = (group(out_side(conv.shape, side)), out_side(conv.shape, side));
            let mut input = Activations::zeros(images, side, padding, in_channels);
            fill(&mut input, |value| value as u8);
            (input, Activations::zeros(images, out_side, 1, out_channels))
        };
        let run = |(input, output): &mut (Activations<u8>, Activations<u8>)| {
            kernel_fn.run(input, None, Outputs { floats: None, quantised: Some((output, &factors)) })
        };
        self.layer((name, Precision::Int8, "Direct"), conv.shape, side, buffers, run)
    }

    /// Times `run` on all threads, each with buffers of its own.
    fn layer<B: Send>(
        &self,
        (name, precision, algorithm): (&str, Precision, &str),
        shape: ConvShape,
        side: usize,
        buffers: impl Fn() -> B,
        run: impl Fn(&mut B) -> Result<(), ShapeError> + Sync,
    ) -> Result<Layer> {
        let ConvShape { in_channels, out_channels, kernel, .. } = shape;
        let (threads, out_side) = (self.arguments.threads, out_side(shape, side));
        let images = group(out_side);
        let mut buffers: Vec<B> = (0..threads).map(|_| buffers()).collect();
        let gflop = 2.0 * (out_side * out_side * out_channels * in_channels * kernel * kernel) as f64 / 1e9;
        // Some 50 ms a measurement, so that threads start and end together but for little.
        let repeats = (0.05 * 0.5 * self.peak_gflops / (gflop * (images * threads) as f64)).ceil() as usize;
        let mut pass = || -> Result<f64> {
            let begun = Instant::now();
            buffers.par_iter_mut().try_for_each(|buffers| (0..repeats).try_for_each(|_| run(buffers)))?;
            Ok(begun.elapsed().as_secs_f64())
        };
        pass()?;
        let seconds = median((0..self.arguments.runs).map(|_| pass()).collect::<Result<_>>()?);
        let per_image_s = seconds / (repeats * images * threads) as f64;
        let gflops = gflop / per_image_s;
        Ok(Layer {
            name: name.to_owned(),
            precision,
            algorithm: algorithm.to_owned(),
            fastest: false,
            gflop,
            gflops,
            share_of_peak: gflops / self.peak_gflops,
            ms: 1e3 * per_image_s,
        })
    }
}

/// Whether `algorithm` has larger tiles than `than`.
fn coarser(algorithm: Algorithm, than: Algorithm) -> bool {
    (algorithm, than) == (Algorithm::Winograd4, Algorithm::Winograd2)
}

const fn out_side(ConvShape { kernel, stride, padding, .. }: ConvShape, side: usize) -> usize {
    (side + 2 * padding - kernel) / stride + 1
}

/// Fills with values of `from` whole numbers from 0 to 16.
fn fill<T: Pod>(activations: &mut Activations<T>, from: impl Fn(usize) -> T) {
    let side = activations.side();
    for (image, y) in (0..activations.images()).flat_map(|image| (0..side).map(move |y| (image, y))) {
        let row = activations.row_mut(image, y).iter_mut();
        row.enumerate().for_each(|(x, value)| *value = from((x * 7 + y * 13 + image) % 17));
    }
}

pub fn table(measured: &Layers) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header([
        "layer",
        "precision",
        "algorithm",
        "GFLOP an image",
        "GFLOP/s",
        "of f32's peak",
        "ms an image",
    ]);
    for layer in &measured.layers {
        table.add_row([
            layer.name.clone(),
            layer.precision.to_string(),
            format!("{}{}", layer.algorithm, if layer.fastest { " *" } else { "" }),
            format!("{:.3}", layer.gflop),
            format!("{:.0}", layer.gflops),
            format!("{:.0}%", 100.0 * layer.share_of_peak),
            format!("{:.3}", layer.ms),
        ]);
    }
    let stem = measured.layers.iter().find(|layer| layer.fastest && layer.name == "conv1");
    let sums = Precision::ALL.iter().map(|precision| {
        let fastest = measured.layers.iter().filter(|layer| layer.fastest && layer.precision == *precision);
        // The stem is in f32 whatever the precision.
        let fastest = fastest.chain(stem.filter(|_| *precision != Precision::F32));
        let (gflop, ms) = fastest.fold((0.0, 0.0), |(f, m), layer| (f + layer.gflop, m + layer.ms));
        let share = 100.0 * gflop / (ms / 1e3) / measured.peak_gflops;
        format!("{precision}: {gflop:.2} GFLOP and {ms:.2} ms an image, {share:.0}%")
    });
    format!(
        "{table}\n* the fastest; together: {}; {} on {} threads, f32's peak {:.0} GFLOP/s",
        sums.collect::<Vec<_>>().join("; "),
        measured.isa,
        measured.threads,
        measured.peak_gflops,
    )
}
