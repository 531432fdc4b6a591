use multiversion::multiversion;

use crate::{Activations, Element, Scratch};

/// Max-pooling 3×3, stride 2, padding 1, as after ResNet's first convolution (He et al. 2016, Table 1).
///
/// Input and output are (images, side, side, channels) with sides in the ratio 2:1. The input must be non-negative (it
/// follows a ReLU): the padding then never is the maximum.
pub fn max_pool_3x3_stride_2<E: Element>(input: &Activations, output: &mut Activations<E>, scratch: &mut Scratch) {
    assert!(
        input.side() == 2 * output.side() && input.channels() == output.channels() && input.images() == output.images(),
        "max-pool shapes do not fit"
    );
    let channels = input.channels();
    scratch.0.grow_to(output.side() * channels);
    for image in 0..input.images() {
        for y in 0..output.side() {
            // Rows 2y-1, 2y, 2y+1. The first one's upper neighbour is padding, instead of which it counts twice.
            let rows = [(2 * y).saturating_sub(1), 2 * y, 2 * y + 1].map(|y| input.row(image, y));
            E::fill(output.row_mut(image, y), &mut scratch.0, |row| pool_row(rows, row, channels));
        }
    }
}

/// One row of the output from three of the input.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn pool_row(rows: [&[f32]; 3], output: &mut [f32], channels: usize) {
    for (x, pixel) in output.chunks_exact_mut(channels).enumerate() {
        // Columns 2x-1, 2x, 2x+1; the first pixel's left neighbour is padding, there is none on the right.
        let first = (2 * x).saturating_sub(1);
        for (at, column) in (first..=2 * x + 1).enumerate() {
            for (i, row) in rows.iter().enumerate() {
                let values = &row[column * channels..][..channels];
                if at + i == 0 {
                    pixel.copy_from_slice(values);
                } else {
                    for (max, value) in pixel.iter_mut().zip(values) {
                        *max = if *value > *max { *value } else { *max };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition() {
        let (side, channels) = (8, 3);
        let mut input = Activations::zeros(2, side, 1, channels);
        for image in 0..2 {
            for y in 0..side {
                for (i, value) in input.row_mut(image, y).iter_mut().enumerate() {
                    *value = ((image * 131 + y * 37 + i * 17) % 101) as f32;
                }
            }
        }
        let mut output: Activations = Activations::zeros(2, side / 2, 0, channels);
        max_pool_3x3_stride_2(&input, &mut output, &mut Scratch::default());
        for image in 0..2 {
            for y in 0..side / 2 {
                for x in 0..side / 2 {
                    for c in 0..channels {
                        let window = (0..3).flat_map(|dy| (0..3).map(move |dx| (2 * y + dy, 2 * x + dx)));
                        let expected = window
                            .filter(|(y, x)| (1..=side).contains(y) && (1..=side).contains(x))
                            .map(|(y, x)| input.row(image, y - 1)[(x - 1) * channels + c])
                            .fold(0.0, f32::max);
                        assert_eq!(output.row(image, y)[x * channels + c], expected);
                    }
                }
            }
        }
    }
}
