//! Random values and the definition of a convolution.

#![allow(dead_code, reason = "every test program uses its own part")]

use kernels::{Activations, ConvShape};

/// Deterministic values in [-1, 1).
pub fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub fn fill(activations: &mut Activations, seed: u64) {
    for image in 0..activations.images() {
        for y in 0..activations.side() {
            let row = activations.row_mut(image, y);
            let count = row.len();
            row.copy_from_slice(&values(count, seed + (image * 1000 + y) as u64));
        }
    }
}

/// The definition, in f64.
pub fn reference(
    shape: ConvShape,
    weights: &[f32],
    bias: &[f32],
    input: &Activations,
    (image, out, y, x): (usize, usize, usize, usize),
) -> f64 {
    let mut sum = f64::from(bias[out]);
    for ky in 0..shape.kernel {
        for kx in 0..shape.kernel {
            let (Some(iy), Some(ix)) = (
                (y * shape.stride + ky).checked_sub(shape.padding),
                (x * shape.stride + kx).checked_sub(shape.padding),
            ) else {
                continue;
            };
            if iy >= input.side() || ix >= input.side() {
                continue;
            }
            for c in 0..shape.in_channels {
                let weight = weights[((out * shape.in_channels + c) * shape.kernel + ky) * shape.kernel + kx];
                sum += f64::from(weight) * f64::from(input.row(image, iy)[ix * shape.in_channels + c]);
            }
        }
    }
    sum
}
