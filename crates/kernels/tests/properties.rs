//! Convolutions of random shapes, batches and magnitudes against the definition, on every instruction set.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use kernels::{Activations, Algorithm, Conv2d, ConvShape, Isa, Scratch};
use proptest::prelude::*;
use support::{fill, reference, values};

/// A convolution, how it is computed, and on what.
#[derive(Clone, Debug)]
struct Case {
    algorithm: Algorithm,
    shape: ConvShape,
    in_side: usize,
    images: usize,
    /// Factors of weights and activations, which lie in [-1, 1).
    magnitudes: (f32, f32),
    residual: bool,
    relu: bool,
    seed: u64,
}

/// Nothing, the smallest denormal numbers, small, usual and large ones; products stay far from overflow.
fn magnitude() -> impl Strategy<Value = f32> {
    prop_oneof![Just(0.0), Just(1e-43), Just(1e-38), Just(1e-15), 0.1_f32..10.0, Just(1e12)]
}

fn case() -> impl Strategy<Value = Case> {
    let direct = (1_usize..=20, prop_oneof![Just(1_usize), Just(3), Just(7)], 1_usize..=2, 1_usize..=2).prop_map(
        |(in_channels, kernel, stride, sevens)| {
            let shape = ConvShape { in_channels, out_channels: 32, kernel, stride, padding: kernel / 2 };
            // The smallest input with an output of 7 or 14 pixels.
            (Algorithm::Direct, shape, stride * (7 * sevens - 1) + 1)
        },
    );
    let winograd = (prop_oneof![Just(Algorithm::Winograd2), Just(Algorithm::Winograd4)], 1_usize..=3, 1_usize..=15)
        .prop_map(|(algorithm, sixteens, side)| {
            let (in_channels, out_channels) = (16 * sixteens, 32);
            (algorithm, ConvShape { in_channels, out_channels, kernel: 3, stride: 1, padding: 1 }, side)
        });
    let work = (prop_oneof![direct, winograd], 1_usize..=2);
    (work, 1_usize..=5, (magnitude(), magnitude()), any::<bool>(), any::<bool>(), any::<u64>()).prop_map(
        |(((algorithm, shape, in_side), blocks), images, magnitudes, residual, relu, seed)| {
            let shape = ConvShape { out_channels: shape.out_channels * blocks, ..shape };
            Case { algorithm, shape, in_side, images, magnitudes, residual, relu, seed: seed >> 16 }
        },
    )
}

fn scaled(mut values: Vec<f32>, factor: f32) -> Vec<f32> {
    values.iter_mut().for_each(|value| *value *= factor);
    values
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_instruction_set_agrees_with_the_definition(case in case()) {
        let Case { algorithm, shape, in_side, images, magnitudes: (weight, activation), .. } = case;
        let ConvShape { in_channels, out_channels, kernel, stride, padding } = shape;
        let weights = scaled(values(out_channels * in_channels * kernel * kernel, case.seed), weight);
        let bias = scaled(values(out_channels, case.seed + 1), weight * activation);
        let out_side = (in_side + 2 * padding - kernel) / stride + 1;
        let mut input = Activations::zeros(images, in_side, algorithm.border(in_side, padding), in_channels);
        let mut residual = Activations::zeros(images, out_side, 0, out_channels);
        for (activations, seed, factor) in
            [(&mut input, case.seed + 2, activation), (&mut residual, case.seed + 3, weight * activation)]
        {
            fill(activations, seed);
            let side = activations.side();
            for (image, y) in (0..images).flat_map(|image| (0..side).map(move |y| (image, y))) {
                activations.row_mut(image, y).iter_mut().for_each(|value| *value *= factor);
            }
        }
        // The constants of F(4×4, 3×3), up to 5 and 1/24, cost two bits.
        let constants = if algorithm == Algorithm::Winograd4 { 4.0 } else { 1.0 };
        let terms = (kernel * kernel * in_channels) as f64;
        let tolerance = constants * 1e-5 * terms.sqrt() * f64::from(weight) * f64::from(activation)
            // Half of the smallest denormal number is lost at every step that ends there, and F(4×4, 3×3) multiplies by
            // up to 100 what was lost.
            + 100.0 * terms * f64::from(f32::from_bits(1)) * f64::from(activation).max(f64::from(weight)).max(1.0);
        for isa in Isa::available() {
            let conv = Conv2d::new(isa, algorithm, shape, &weights, &bias, case.relu).unwrap();
            let mut output = Activations::zeros(images, out_side, 2, out_channels);
            conv.run(&input, case.residual.then_some(&residual), &mut output, &mut Scratch::default()).unwrap();
            prop_assert!(output.border_is_zero(), "{isa}: the border was written to");
            for image in [0, images - 1] {
                for (y, x) in [(0, 0), (out_side / 2, out_side - 1), (out_side - 1, out_side / 3)] {
                    for out in (0..out_channels).step_by(5) {
                        let at = x * out_channels + out;
                        let mut expected = reference(shape, &weights, &bias, &input, (image, out, y, x));
                        if case.residual {
                            expected += f64::from(residual.row(image, y)[at]);
                        }
                        if case.relu {
                            expected = expected.max(0.0);
                        }
                        let got = f64::from(output.row(image, y)[at]);
                        prop_assert!(
                            (got - expected).abs() <= tolerance,
                            "{isa}, image {image}, channel {out} at ({y}, {x}): {got:e}, expected {expected:e}"
                        );
                    }
                }
            }
        }
    }
}
