//! From decoded pixels to the network's input.

use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::F32,
};

/// Side of the network's input in pixels (Oh & Yoo 2023 and torchvision's ResNet-18).
pub const IMAGE_SIDE: usize = 224;

/// ImageNet's mean per colour channel, for pixel values in [0, 1].
/// <https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet18.html>
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];

/// ImageNet's standard deviation per colour channel (same source).
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Why an image could not be resized.
#[derive(Debug, thiserror::Error)]
#[error("cannot resize {width}×{height} pixels of {channels} channels to {IMAGE_SIDE}×{IMAGE_SIDE}: {reason}")]
pub struct ResizeError {
    width: usize,
    height: usize,
    channels: usize,
    reason: String,
}

/// Resizes pixels to 224×224: bilinear without anti-aliasing and with half-pixel centres, as PyTorch's
/// `interpolate(mode="bilinear", align_corners=False)`. The result is (224, 224, channels) in [0, 1].
///
/// `pixels` is (height, width, channels) with one or three channels.
pub fn resize(pixels: &[u8], width: usize, height: usize, channels: usize) -> Result<Vec<f32>, ResizeError> {
    let error = |reason: String| ResizeError { width, height, channels, reason };
    if pixels.is_empty() || pixels.len() != width * height * channels {
        return Err(error(format!("got {} values", pixels.len())));
    }
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Interpolation(FilterType::Bilinear)).use_alpha(false);
    let mut resizer = Resizer::new();
    let mut resized = vec![0.0; IMAGE_SIDE * IMAGE_SIDE * channels];
    for channel in 0..channels {
        let plane: Vec<F32> =
            pixels.iter().skip(channel).step_by(channels).map(|value| F32::new(f32::from(*value) / 255.0)).collect();
        let source = TypedImageRef::new(width as u32, height as u32, &plane).map_err(|e| error(e.to_string()))?;
        let mut target = TypedImage::<F32>::new(IMAGE_SIDE as u32, IMAGE_SIDE as u32);
        resizer.resize_typed(&source, &mut target, &options).map_err(|e| error(e.to_string()))?;
        for (to, from) in resized.iter_mut().skip(channel).step_by(channels).zip(target.pixels()) {
            *to = from.0;
        }
    }
    Ok(resized)
}

/// The network's input in colour: (224, 224, 3), each channel less its ImageNet mean and divided by its
/// standard deviation. `resized` has one channel, which is repeated, or three.
pub fn normalise(resized: &[f32]) -> Vec<f32> {
    let channels = resized.len() / (IMAGE_SIDE * IMAGE_SIDE);
    let mut normalised = Vec::with_capacity(IMAGE_SIDE * IMAGE_SIDE * 3);
    for pixel in resized.chunks_exact(channels) {
        for c in 0..3 {
            normalised.push((pixel[if channels == 3 { c } else { 0 }] - IMAGENET_MEAN[c]) / IMAGENET_STD[c]);
        }
    }
    normalised
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PyTorch's `upsample_bilinear2d`, written from its definition.
    fn reference(pixels: &[u8], width: usize, height: usize) -> Vec<f64> {
        let source = |at: usize, size: usize| {
            let x = ((at as f64 + 0.5) * size as f64 / IMAGE_SIDE as f64 - 0.5).max(0.0);
            let low = (x.floor() as usize).min(size - 1);
            (low, (low + 1).min(size - 1), x - low as f64)
        };
        let mut resized = Vec::new();
        for y in 0..IMAGE_SIDE {
            let (y0, y1, v) = source(y, height);
            for x in 0..IMAGE_SIDE {
                let (x0, x1, u) = source(x, width);
                let at = |y: usize, x: usize| f64::from(pixels[y * width + x]) / 255.0;
                let (top, bottom) = (at(y0, x0) * (1.0 - u) + at(y0, x1) * u, at(y1, x0) * (1.0 - u) + at(y1, x1) * u);
                resized.push(top * (1.0 - v) + bottom * v);
            }
        }
        resized
    }

    #[test]
    fn resizes_as_pytorch_up_and_down() {
        for (width, height) in [(48, 48), (100, 75), (224, 224), (640, 361)] {
            let pixels: Vec<u8> = (0..width * height).map(|i| (i * 7919 % 251) as u8).collect();
            let resized = resize(&pixels, width, height, 1).unwrap();
            let worst = resized
                .iter()
                .zip(reference(&pixels, width, height))
                .map(|(got, expected)| (f64::from(*got) - expected).abs())
                .fold(0.0, f64::max);
            assert!(worst < 2e-6, "{width}×{height}: {worst}");
        }
    }

    #[test]
    fn colour_channels_stay_apart() {
        let pixels: Vec<u8> = (0..48 * 48).flat_map(|_| [0, 128, 255]).collect();
        let resized = resize(&pixels, 48, 48, 3).unwrap();
        assert!(resized.chunks_exact(3).all(|p| p[0] == 0.0 && (p[1] - 0.50196).abs() < 1e-5 && p[2] == 1.0));
        let normalised = normalise(&resized);
        assert!((normalised[0] + 0.485 / 0.229).abs() < 1e-6);
    }
}
