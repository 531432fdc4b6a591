//! Convolutions in 8-bit integers against the same integers summed one by one, on every instruction set.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use kernels::{Activations, ConvShape, Isa, Outputs, QuantisedConv2d, QuantisedInput, ShapeError, quantise};
use proptest::prelude::*;
use support::{fill, values};

const fn shape(in_channels: usize, out_channels: usize, kernel: usize, stride: usize) -> ConvShape {
    ConvShape { in_channels, out_channels, kernel, stride, padding: kernel / 2 }
}

/// Random weights, activations in [0, 1), and steps that differ from channel to channel.
struct Case {
    shape: ConvShape,
    weights: Vec<f32>,
    bias: Vec<f32>,
    input: QuantisedInput,
    activations: Activations,
    quantised: Activations<u8>,
}

fn case(shape: ConvShape, side: usize, images: usize) -> Case {
    let channels = shape.in_channels;
    let mut activations = Activations::zeros(images, side, 1, channels);
    fill(&mut activations, 3);
    let mut means = vec![0.0; channels];
    for image in 0..images {
        for y in 0..side {
            for (at, value) in activations.row_mut(image, y).iter_mut().enumerate() {
                *value = value.abs();
                means[at % channels] += *value / (images * side * side) as f32;
            }
        }
    }
    let steps: Vec<f32> = (0..channels).map(|c| (1.0 + (c % 3) as f32 * 0.2) / 255.0).collect();
    let factors: Vec<f32> = steps.iter().map(|step| 1.0 / step).collect();
    let mut quantised = Activations::zeros(images, side, shape.padding + 1, channels);
    quantise(&activations, &factors, &mut quantised);
    Case {
        shape,
        weights: values(shape.out_channels * channels * shape.kernel * shape.kernel, 1),
        bias: values(shape.out_channels, 2),
        input: QuantisedInput { steps, means },
        activations,
        quantised,
    }
}

impl Case {
    fn conv(&self, isa: Isa) -> QuantisedConv2d {
        QuantisedConv2d::new(isa, self.shape, &self.weights, &self.bias, true, &self.input).unwrap()
    }

    fn out_side(&self) -> usize {
        (self.activations.side() + 2 * self.shape.padding - self.shape.kernel) / self.shape.stride + 1
    }

    /// The output in floats and in integers of `factor` a unit.
    fn run(&self, isa: Isa, residual: Option<&Activations>, factor: f32) -> (Activations, Activations<u8>) {
        let (images, side, channels) = (self.activations.images(), self.out_side(), self.shape.out_channels);
        let mut floats = Activations::zeros(images, side, 1, channels);
        let mut integers = Activations::zeros(images, side, 1, channels);
        let factors = vec![factor; channels];
        let outputs = Outputs { floats: Some(&mut floats), quantised: Some((&mut integers, &factors)) };
        self.conv(isa).run(&self.quantised, residual, outputs).unwrap();
        assert!(floats.border_is_zero() && integers.border_is_zero(), "{isa}: the border was written to");
        (floats, integers)
    }

    /// The convolution of the activations before they were quantised, in f64.
    fn reference(&self, (image, out, y, x): (usize, usize, usize, usize)) -> f64 {
        support::reference(self.shape, &self.weights, &self.bias, &self.activations, (image, out, y, x))
    }
}

fn bits(of: &Activations) -> Vec<u32> {
    let rows = (0..of.images()).flat_map(|image| (0..of.side()).map(move |y| (image, y)));
    rows.flat_map(|(image, y)| of.row(image, y)).map(|value| value.to_bits()).collect()
}

#[test]
fn the_output_is_the_convolution_but_for_rounding() {
    for (shape, side, images) in [
        (shape(64, 64, 3, 1), 14, 2),
        (shape(64, 128, 3, 2), 28, 1),
        (shape(64, 128, 1, 2), 28, 1),
        (shape(512, 32, 3, 1), 7, 3),
        (shape(4, 32, 3, 1), 7, 1),
    ] {
        let case = case(shape, side, images);
        let mut residual = Activations::zeros(images, case.out_side(), 0, shape.out_channels);
        fill(&mut residual, 4);
        let (floats, integers) = case.run(Isa::Portable, Some(&residual), 3.0);
        let (mut apart, mut norm) = (0.0, 0.0);
        for (image, y, out) in [(0, 0, 0), (images - 1, case.out_side() - 1, 31), (0, 3, 17)] {
            for x in 0..case.out_side() {
                let residual = f64::from(residual.row(image, y)[x * shape.out_channels + out]);
                let expected = (case.reference((image, out, y, x)) + residual).max(0.0);
                let at = x * shape.out_channels + out;
                let got = floats.row(image, y)[at];
                apart += (f64::from(got) - expected).powi(2);
                norm += expected.powi(2);
                assert_eq!(integers.row(image, y)[at], (got * 3.0).clamp(0.0, 255.0).round_ties_even() as u8);
            }
        }
        // Weights are rounded by 1/254 at most and activations by 1/510 of the largest, independently.
        assert!((apart / norm).sqrt() < 0.02, "{shape:?}: {}", (apart / norm).sqrt());
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for (shape, side, images) in
        [(shape(64, 64, 3, 1), 7, 3), (shape(8, 64, 3, 2), 28, 1), (shape(128, 32, 1, 2), 14, 2)]
    {
        let case = case(shape, side, images);
        let mut residual = Activations::zeros(images, case.out_side(), 1, shape.out_channels);
        fill(&mut residual, 4);
        for residual in [None, Some(&residual)] {
            let (floats, integers) = case.run(Isa::Portable, residual, 7.0);
            for isa in Isa::available() {
                let (other, other_integers) = case.run(isa, residual, 7.0);
                assert_eq!(bits(&other), bits(&floats), "{isa} {shape:?}");
                for y in 0..case.out_side() {
                    assert_eq!(other_integers.row(images - 1, y), integers.row(images - 1, y), "{isa} {shape:?}");
                }
            }
        }
    }
}

/// 255 × 127 in every product of the widest layer stays exact; a product of bytes that saturates would show.
#[test]
fn the_largest_sums_are_exact() {
    let shape = shape(512, 32, 3, 1);
    let weights = vec![1.0; 32 * 512 * 9];
    let input = QuantisedInput { steps: vec![1.0; 512], means: vec![0.0; 512] };
    let mut activations = Activations::<u8>::zeros(1, 7, 1, 512);
    (0..7).for_each(|y| activations.row_mut(0, y).fill(255));
    for isa in Isa::available() {
        let conv = QuantisedConv2d::new(isa, shape, &weights, &[0.0; 32], true, &input).unwrap();
        let (mut floats, mut integers) = (Activations::zeros(1, 7, 0, 32), Activations::<u8>::zeros(1, 7, 0, 32));
        let outputs = Outputs { floats: Some(&mut floats), quantised: Some((&mut integers, &[1.0; 32])) };
        conv.run(&activations, None, outputs).unwrap();
        // Nine taps of 512 channels inside, four in the corner; one weight is 127 steps of 1/127.
        for (at, taps) in [((3, 3), 9.0), ((0, 0), 4.0)] {
            let expected = taps * 512.0 * 255.0;
            let got = floats.row(0, at.0)[at.1 * 32];
            assert!((got / expected - 1.0).abs() < 1e-6, "{isa}: {got}, expected {expected}");
            assert_eq!(integers.row(0, at.0)[at.1 * 32], 255, "{isa}: what is too large is clipped");
        }
    }
}

#[test]
fn the_bias_takes_up_what_rounding_the_weights_shifts() {
    // Every small weight is rounded to zero beside the large one.
    let shape = shape(64, 32, 1, 1);
    let weights: Vec<f32> = (0..32 * 64).map(|i| if i % 64 == 0 { 1.0 } else { 0.003 }).collect();
    let input = QuantisedInput { steps: vec![1.0 / 255.0; 64], means: vec![0.5; 64] };
    let mut activations = Activations::<u8>::zeros(1, 7, 0, 64);
    (0..7).for_each(|y| activations.row_mut(0, y).fill(128));
    let conv = QuantisedConv2d::new(Isa::Portable, shape, &weights, &[0.0; 32], true, &input).unwrap();
    let mut floats = Activations::zeros(1, 7, 0, 32);
    conv.run(&activations, None, Outputs { floats: Some(&mut floats), quantised: None }).unwrap();
    let expected = 128.0 / 255.0 + 63.0 * 0.003 * 0.5;
    assert!((floats.row(0, 0)[0] - expected).abs() < 1e-4, "{}, expected {expected}", floats.row(0, 0)[0]);
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let error = |shape: ConvShape, steps: usize| -> ShapeError {
        let count = shape.out_channels * shape.in_channels * shape.kernel * shape.kernel;
        let input = QuantisedInput { steps: vec![1.0; steps], means: vec![0.0; steps] };
        QuantisedConv2d::new(Isa::Portable, shape, &vec![0.0; count], &[0.0; 32], true, &input).unwrap_err()
    };
    let message = error(shape(6, 32, 3, 1), 6).to_string();
    assert!(message.contains("in_channels is 6, expected a multiple of 4"), "{message}");
    let message = error(shape(8, 32, 3, 1), 7).to_string();
    assert!(message.contains("number of steps is 7, expected 8"), "{message}");

    let case = case(shape(8, 32, 3, 1), 7, 1);
    let mut floats = Activations::zeros(2, 7, 0, 32);
    let outputs = Outputs { floats: Some(&mut floats), quantised: None };
    let message = case.conv(Isa::Portable).run(&case.quantised, None, outputs).unwrap_err().to_string();
    assert!(message.contains("output is 2, expected 1"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn random_shapes_agree_to_the_bit_and_with_the_definition(
        (quads, blocks, kernel, stride, sevens) in
            (1_usize..=24, 1_usize..=2, prop_oneof![Just(1_usize), Just(3)], 1_usize..=2, 1_usize..=2),
        images in 1_usize..=5,
        magnitude in prop_oneof![Just(0.0_f32), Just(1e-43), Just(1e-30), 0.1_f32..10.0, Just(1e12)],
        with_residual in any::<bool>(),
    ) {
        let shape = shape(4 * quads, 32 * blocks, kernel, stride);
        let mut case = case(shape, stride * (7 * sevens - 1) + 1, images);
        for value in case.weights.iter_mut().chain(&mut case.bias) {
            *value *= magnitude;
        }
        let mut residual = Activations::zeros(images, case.out_side(), 0, shape.out_channels);
        if with_residual && magnitude > 1e-9 && magnitude < 1e9 {
            fill(&mut residual, 4);
        }
        let (floats, integers) = case.run(Isa::Portable, Some(&residual), 3.0);
        for isa in Isa::available() {
            let (other_floats, other_integers) = case.run(isa, Some(&residual), 3.0);
            prop_assert!(bits(&floats) == bits(&other_floats), "{isa}");
            for (image, y) in (0..images).flat_map(|image| (0..case.out_side()).map(move |y| (image, y))) {
                prop_assert_eq!(integers.row(image, y), other_integers.row(image, y));
            }
        }
        let (mut apart, mut norm) = (0.0, 0.0);
        for image in [0, images - 1] {
            for (y, x) in [(0, 0), (case.out_side() / 2, case.out_side() - 1), (case.out_side() - 1, 1)] {
                for out in 0..shape.out_channels {
                    let at = x * shape.out_channels + out;
                    let sum = case.reference((image, out, y, x)) + f64::from(residual.row(image, y)[at]);
                    apart += (f64::from(floats.row(image, y)[at]) - sum.max(0.0)).powi(2);
                    norm += sum.powi(2);
                }
            }
        }
        // Steps of the weights are rounded to f32, whose smallest numbers are coarse.
        let smallest = (f64::from(f32::from_bits(1)) * 1e5).powi(2) * norm.max(1.0);
        prop_assert!(apart <= 0.02_f64.powi(2) * norm + smallest, "{}", (apart / norm).sqrt());
    }
}
