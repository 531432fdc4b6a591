//! Pictures of faces and feature maps as PNG.

use std::io::Cursor;

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use colorgrad::Gradient as _;
use dataset::Pixels;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, imageops::FilterType};
use pipeline::inspect::FeatureMap;

/// Side of every picture in pixels.
pub const SIDE_PX: u32 = 192;

/// A picture.
#[derive(Clone, Debug)]
pub struct Picture {
    pixels: RgbImage,
    /// A URL that holds the whole picture as PNG.
    pub data_url: String,
}

impl Picture {
    fn of(pixels: RgbImage) -> Result<Self> {
        let mut picture = Self { pixels, data_url: String::new() };
        picture.data_url = format!("data:image/png;base64,{}", STANDARD.encode(picture.png()?));
        Ok(picture)
    }

    /// An image, as large as the others.
    pub fn pixels(pixels: &Pixels) -> Result<Self> {
        let bytes = match pixels.channels {
            1 => pixels.data.iter().flat_map(|value| [*value; 3]).collect(),
            _ => pixels.data.clone(),
        };
        let whole = RgbImage::from_raw(pixels.width as u32, pixels.height as u32, bytes);
        let whole = whole.context("an image without pixels")?;
        Self::of(image::imageops::resize(&whole, SIDE_PX, SIDE_PX, FilterType::CatmullRom))
    }

    /// The mean of a map's channels in a perceptual colour map (viridis), each pixel a square: as the paper's Figure 3
    /// has it.
    pub fn channel_mean(map: &FeatureMap) -> Result<Self> {
        let channels = map.source.channels();
        let mean = |pixel: &[f32]| pixel.iter().sum::<f32>() / channels as f32;
        Self::coloured(&map.values.chunks_exact(channels).map(mean).collect::<Vec<_>>(), map.source.side())
    }

    /// One channel of a map in the same way.
    pub fn channel(map: &FeatureMap, channel: usize) -> Result<Self> {
        let values: Vec<f32> = map.values.iter().skip(channel).step_by(map.source.channels()).copied().collect();
        Self::coloured(&values, map.source.side())
    }

    /// `values` (side, side) between their percentiles 1 and 99: padding leaves extremes in the corners of a map, which would
    /// leave the face a single tone.
    fn coloured(values: &[f32], side: usize) -> Result<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f32::total_cmp);
        let percentile = |share: f64| sorted[(share * (sorted.len() - 1) as f64).round() as usize];
        let (low, high) = (percentile(0.01), percentile(0.99));
        let viridis = colorgrad::preset::viridis();
        let colour = |value: &f32| {
            let [r, g, b, _] = viridis.at((value - low) / (high - low).max(f32::MIN_POSITIVE)).to_rgba8();
            [r, g, b]
        };
        let bytes: Vec<u8> = values.iter().flat_map(colour).collect();
        let small = RgbImage::from_raw(side as u32, side as u32, bytes).context("a map without pixels")?;
        Self::of(image::imageops::resize(&small, SIDE_PX, SIDE_PX, FilterType::Nearest))
    }

    /// This picture under the `shares` (grid, grid) of a roll-out: where they are small it is dark, where they are large it
    /// glows.
    pub fn lit(&self, shares: &[f32]) -> Result<Self> {
        let grid = (shares.len() as f64).sqrt() as u32;
        let (low, high) = ends(shares);
        let scaled: Vec<f32> = shares.iter().map(|share| (share - low) / (high - low).max(f32::MIN_POSITIVE)).collect();
        let small = image::ImageBuffer::<image::Luma<f32>, _>::from_raw(grid, grid, scaled).context("no roll-out")?;
        let light = image::imageops::resize(&small, SIDE_PX, SIDE_PX, FilterType::Triangle);
        let inferno = colorgrad::preset::inferno();
        let mut lit = self.pixels.clone();
        for (pixel, light) in lit.pixels_mut().zip(light.pixels()) {
            let light = light.0[0].clamp(0.0, 1.0);
            let [r, g, b, _] = inferno.at(light).to_rgba8();
            let mix =
                |own: u8, glow: u8| (0.55 * f32::from(own) * (0.35 + 0.65 * light) + 0.45 * f32::from(glow)) as u8;
            let Rgb([own_r, own_g, own_b]) = *pixel;
            *pixel = Rgb([mix(own_r, r), mix(own_g, g), mix(own_b, b)]);
        }
        Self::of(lit)
    }

    /// As a PNG file.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(self.pixels.clone()).write_to(&mut bytes, ImageFormat::Png)?;
        Ok(bytes.into_inner())
    }
}

/// The channels of a map with the largest mean, the largest first.
pub fn strongest_channels(map: &FeatureMap, count: usize) -> Vec<usize> {
    let channels = map.source.channels();
    let mut sums = vec![0.0_f64; channels];
    for pixel in map.values.chunks_exact(channels) {
        sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let mut order: Vec<usize> = (0..channels).collect();
    order.sort_by(|a, b| sums[*b].total_cmp(&sums[*a]));
    order.truncate(count);
    order
}

fn ends(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(*value), high.max(*value)))
}
