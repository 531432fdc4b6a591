//! From ideal tones to the grey bytes of a poor photograph: blur, contrast, brightness, sensor noise.

use rand::{Rng, RngExt};

use crate::canvas::FACE_SIZE_PX;

/// The defects of one shot.
#[derive(Debug, Clone)]
pub(crate) struct Camera {
    blur_px: f32,
    contrast: f32,
    brightness: f32,
    noise: f32,
}

impl Camera {
    /// Draws a camera at random.
    pub(crate) fn sample(rng: &mut impl Rng) -> Self {
        Self {
            blur_px: rng.random_range(0.3..0.95),
            contrast: rng.random_range(0.75..1.2),
            brightness: rng.random_range(-0.12..0.12),
            noise: rng.random_range(0.008..0.03),
        }
    }

    /// Takes the picture.
    pub(crate) fn develop(&self, tones: &[f32], rng: &mut impl Rng) -> Vec<u8> {
        self.blur(tones)
            .into_iter()
            .map(|tone| {
                let exposed = 0.5 + (tone - 0.5) * self.contrast + self.brightness;
                let noisy = exposed + self.noise * bell(rng);
                (noisy.clamp(0.0, 1.0) * 255.0).round() as u8
            })
            .collect()
    }

    /// Gaussian blur, separable, edges repeated.
    fn blur(&self, tones: &[f32]) -> Vec<f32> {
        const RADIUS: isize = 3;
        let weights: Vec<f32> =
            (-RADIUS..=RADIUS).map(|step| (-0.5 * (step as f32 / self.blur_px).powi(2)).exp()).collect();
        let total: f32 = weights.iter().sum();
        let along = |source: &[f32], horizontal: bool| -> Vec<f32> {
            let last = FACE_SIZE_PX as isize - 1;
            (0..FACE_SIZE_PX * FACE_SIZE_PX)
                .map(|index| {
                    let (row, column) = ((index / FACE_SIZE_PX) as isize, (index % FACE_SIZE_PX) as isize);
                    let blurred: f32 = (-RADIUS..=RADIUS)
                        .zip(&weights)
                        .map(|(step, weight)| {
                            let (row, column) = if horizontal { (row, column + step) } else { (row + step, column) };
                            let (row, column) = (row.clamp(0, last) as usize, column.clamp(0, last) as usize);
                            weight * source[row * FACE_SIZE_PX + column]
                        })
                        .sum();
                    blurred / total
                })
                .collect()
        };
        along(&along(tones, true), false)
    }
}

/// A bell-shaped draw of mean 0 and variance 1: the sum of four uniform ones, near enough to a Gaussian for noise.
fn bell(rng: &mut impl Rng) -> f32 {
    let sum: f32 = (0..4).map(|_| rng.random_range(-1.0_f32..1.0)).sum();
    // Four draws of variance 1/3 each.
    sum * (0.75_f32).sqrt()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn noise_has_unit_variance() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let draws: Vec<f32> = (0..20_000).map(|_| bell(&mut rng)).collect();
        let variance = draws.iter().map(|draw| draw * draw).sum::<f32>() / draws.len() as f32;
        assert!((variance - 1.0).abs() < 0.03, "{variance}");
    }

    #[test]
    fn blur_keeps_a_flat_picture() {
        let camera = Camera { blur_px: 0.8, contrast: 1.0, brightness: 0.0, noise: 0.0 };
        let blurred = camera.blur(&vec![0.25; FACE_SIZE_PX * FACE_SIZE_PX]);
        assert!(blurred.iter().all(|tone| (tone - 0.25).abs() < 1e-6));
    }
}
