//! Every convolution of the network alone.

use std::time::Instant;

use anyhow::Result;
use backbone::{FoldedConv, Network, Weights};
use comfy_table::Table;
use kernels::{Activations, Algorithm, Conv2d, ConvShape, Isa, Scratch};
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
    algorithm: String,
    /// Whether it is the fastest of its layer.
    fastest: bool,
    /// Of one image, by the definition of the convolution.
    gflop: f64,
    gflops: f64,
    share_of_peak: f64,
    /// Of one image, on all threads together.
    ms: f64,
}

pub fn measure(arguments: &ExtractArguments) -> Result<Layers> {
    let isa = Isa::choose()?;
    let peak = peak_gflops(isa, arguments.threads);
    let network = Network::read(&Weights::read(&weights(arguments)?.path)?)?;
    let mut layers = Vec::new();
    let mut side = 224;
    let mut measured = |name: String, conv: &FoldedConv, side: usize| -> Result<()> {
        for algorithm in [Algorithm::Direct, Algorithm::Winograd2, Algorithm::Winograd4] {
            let ConvShape { kernel, stride, .. } = conv.shape;
            if algorithm == Algorithm::Direct || (kernel, stride) == (3, 1) {
                layers.push(measure_layer(name.clone(), conv, side, (isa, algorithm), arguments, peak)?);
            }
        }
        Ok(())
    };
    measured("conv1".into(), &network.stem, side)?;
    side = 56;
    for (index, blocks) in network.stages.iter().enumerate() {
        for (block, convs) in blocks.iter().enumerate() {
            let name = format!("layer{}.{block}", index + 1);
            measured(format!("{name}.conv1"), &convs.conv1, side)?;
            if let Some(downsample) = &convs.downsample {
                measured(format!("{name}.downsample"), downsample, side)?;
            }
            side /= convs.conv1.shape.stride;
            measured(format!("{name}.conv2"), &convs.conv2, side)?;
        }
    }
    for index in 0..layers.len() {
        let slower = |other: &Layer| other.name != layers[index].name || other.ms >= layers[index].ms;
        layers[index].fastest = layers.iter().all(slower);
    }
    Ok(Layers { isa: isa.to_string(), threads: arguments.threads, peak_gflops: peak, layers })
}

fn measure_layer(
    name: String,
    conv: &FoldedConv,
    side: usize,
    (isa, algorithm): (Isa, Algorithm),
    arguments: &ExtractArguments,
    peak: f64,
) -> Result<Layer> {
    let ConvShape { in_channels, out_channels, kernel, stride, padding } = conv.shape;
    let out_side = (side + 2 * padding - kernel) / stride + 1;
    let images = group(out_side);
    let kernel_fn = Conv2d::new(isa, algorithm, conv.shape, &conv.weights, &conv.bias, conv.relu)?;
    let mut buffers: Vec<(Activations, Activations, Scratch)> = (0..arguments.threads)
        .map(|_| {
            let mut input = Activations::zeros(images, side, algorithm.border(side, padding), in_channels);
            for (image, y) in (0..images).flat_map(|image| (0..side).map(move |y| (image, y))) {
                let row = input.row_mut(image, y).iter_mut();
                row.enumerate().for_each(|(x, value)| *value = ((x * 7 + y * 13 + image) % 17) as f32 / 17.0);
            }
            (input, Activations::zeros(images, out_side, 1, out_channels), Scratch::default())
        })
        .collect();
    let gflop = 2.0 * (out_side * out_side * out_channels * in_channels * kernel * kernel) as f64 / 1e9;
    // Some 50 ms a measurement, so that threads start and end together but for little.
    let repeats = (0.05 * 0.5 * peak / (gflop * (images * arguments.threads) as f64)).ceil() as usize;
    let mut pass = || -> Result<f64> {
        let begun = Instant::now();
        buffers.par_iter_mut().try_for_each(|(input, output, scratch)| {
            (0..repeats).try_for_each(|_| kernel_fn.run(input, None, output, scratch))
        })?;
        Ok(begun.elapsed().as_secs_f64())
    };
    pass()?;
    let seconds = median((0..arguments.runs).map(|_| pass()).collect::<Result<_>>()?);
    let per_image_s = seconds / (repeats * images * arguments.threads) as f64;
    let gflops = gflop / per_image_s;
    Ok(Layer {
        name,
        algorithm: format!("{algorithm:?}"),
        fastest: false,
        gflop,
        gflops,
        share_of_peak: gflops / peak,
        ms: 1e3 * per_image_s,
    })
}

pub fn table(measured: &Layers) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header([
        "layer",
        "algorithm",
        "GFLOP an image",
        "GFLOP/s",
        "of peak",
        "ms an image",
    ]);
    for layer in &measured.layers {
        table.add_row([
            layer.name.clone(),
            format!("{}{}", layer.algorithm, if layer.fastest { " *" } else { "" }),
            format!("{:.3}", layer.gflop),
            format!("{:.0}", layer.gflops),
            format!("{:.0}%", 100.0 * layer.share_of_peak),
            format!("{:.3}", layer.ms),
        ]);
    }
    let fastest = measured.layers.iter().filter(|layer| layer.fastest);
    let (gflop, ms) = fastest.fold((0.0, 0.0), |(f, m), layer| (f + layer.gflop, m + layer.ms));
    format!(
        "{table}\n* the fastest, together: {gflop:.2} GFLOP and {ms:.2} ms an image; {} on {} threads, peak {:.0} GFLOP/s, reached {:.0}%",
        measured.isa,
        measured.threads,
        measured.peak_gflops,
        100.0 * gflop / (ms / 1e3) / measured.peak_gflops,
    )
}
