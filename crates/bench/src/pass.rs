//! The backbone pass alone on a device; with cuDNN no images are brought there and no maps fetched.

use anyhow::{Result, bail};
use backbone::{Backbone, Engine, KernelTimes, Weights, preprocess::resize};
use comfy_table::Table;
use demo::FACE_SIZE_PX;
use serde::Serialize;

use crate::{PassArguments, extract::faces, median};

/// Passes that do not count.
const WARM_UP: usize = 5;

/// Images per second.
#[derive(Debug, Serialize)]
pub struct Measured {
    device: String,
    images: usize,
    f32: f64,
    bf16: f64,
    /// With cuDNN: its convolutions without what can be done within them.
    #[serde(skip_serializing_if = "Option::is_none")]
    bf16_unfused: Option<f64>,
    /// With cuDNN: with the fastest of its kernels for each convolution, instead of its heuristics' first choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    bf16_fastest_kernels: Option<f64>,
    /// With cuDNN: the stem's kernel, and those that cuDNN has for each other convolution.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    convolutions: Vec<KernelTimes>,
}

pub fn measure(arguments: &PassArguments) -> Result<Measured> {
    let &PassArguments { device, images, passes, .. } = arguments;
    if images == 0 || passes == 0 {
        bail!("--images and --passes are at least 1");
    }
    let (weights, opened) = (Weights::read(&arguments.weights)?, device.open()?);
    let resized = faces(images).into_iter().map(|face| Ok(resize(&face, FACE_SIZE_PX, FACE_SIZE_PX, 1)?));
    let resized = resized.collect::<Result<Vec<_>>>()?;
    let rate = |backbone: &Backbone| -> Result<f64> {
        let seconds = backbone.seconds_of_passes(&resized, WARM_UP + passes)?.split_off(WARM_UP);
        Ok(images as f64 / median(seconds))
    };
    let (bf16, unfused) = match Engine::of(&opened) {
        Engine::Native => (Backbone::bf16(&weights)?, None),
        Engine::Cudnn => {
            let on_cudnn = |fused| Backbone::bf16_on_cudnn(&weights, &opened, fused);
            (on_cudnn(true)?, Some(on_cudnn(false)?))
        }
        Engine::Auto | Engine::Candle => (Backbone::bf16_on(&weights, &opened)?, None),
    };
    let mut measured = Measured {
        device: device.to_string(),
        images,
        f32: rate(&Backbone::new(&weights, Engine::Auto, &opened)?)?,
        bf16: rate(&bf16)?,
        bf16_unfused: unfused.as_ref().map(rate).transpose()?,
        bf16_fastest_kernels: None,
        convolutions: bf16.take_fastest_kernels(&resized, passes)?,
    };
    if !measured.convolutions.is_empty() {
        measured.bf16_fastest_kernels = Some(rate(&bf16)?);
    }
    Ok(measured)
}

pub fn table(measured: &Measured) -> String {
    let mut table = Table::new();
    table.set_header(["precision", "images/s"]);
    table.add_row(["f32".to_owned(), format!("{:.1}", measured.f32)]);
    table.add_row(["bf16".to_owned(), format!("{:.1}", measured.bf16)]);
    let of_cudnn = [("bf16, unfused", measured.bf16_unfused), ("bf16, fastest kernels", measured.bf16_fastest_kernels)];
    for (what, rate) in of_cudnn.into_iter().filter_map(|(what, rate)| Some((what, rate?))) {
        table.add_row([what.to_owned(), format!("{rate:.1}")]);
    }
    let mut told = format!("{}, {} images in a pass\n{table}", measured.device, measured.images);
    if !measured.convolutions.is_empty() {
        told = format!("{told}\n{}", table_of_kernels(&measured.convolutions));
    }
    told
}

fn table_of_kernels(convolutions: &[KernelTimes]) -> Table {
    let mut table = Table::new();
    table.set_header(["convolution", "first choice, µs", "fastest, µs", "its place among cuDNN's choices"]);
    for KernelTimes { convolution, seconds } in convolutions {
        let timed = seconds.iter().enumerate().filter_map(|(place, seconds)| Some((place, (*seconds)?)));
        let fastest = timed.min_by(|one, other| one.1.total_cmp(&other.1));
        let microseconds =
            |seconds: Option<f64>| seconds.map_or("failed".to_owned(), |seconds| format!("{:.1}", 1e6 * seconds));
        let first = seconds.first().map_or("unfused".to_owned(), |seconds| microseconds(*seconds));
        let place = fastest.map_or("none".to_owned(), |(place, _)| format!("{} of {}", place + 1, seconds.len()));
        table.add_row([convolution.clone(), first, microseconds(fastest.map(|(_, seconds)| seconds)), place]);
    }
    table
}
