//! Convolutions in bfloat16 on every instruction set: the same numbers as in f32 on rounded input, but for rounding.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use half::bf16;
use kernels::{Activations, Algorithm, Conv2d, ConvShape, Element, Isa, Scratch, max_pool_3x3_stride_2};
use proptest::prelude::*;
use support::{fill, reference, values};

/// `of` rounded to bfloat16, and the same in floats.
fn rounded(of: &Activations) -> (Activations<bf16>, Activations) {
    let mut halves = Activations::zeros(of.images(), of.side(), of.border(), of.channels());
    let mut floats = of.clone();
    for (image, y) in (0..of.images()).flat_map(|image| (0..of.side()).map(move |y| (image, y))) {
        let row: Vec<bf16> = of.row(image, y).iter().map(|value| bf16::round(*value)).collect();
        floats.row_mut(image, y).copy_from_slice(&row.iter().map(|value| value.to_f32()).collect::<Vec<_>>());
        halves.row_mut(image, y).copy_from_slice(&row);
    }
    (halves, floats)
}

#[derive(Clone, Debug)]
struct Case {
    algorithm: Algorithm,
    shape: ConvShape,
    in_side: usize,
    images: usize,
    residual: bool,
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let direct = (1_usize..=20, prop_oneof![Just(1_usize), Just(3)], 1_usize..=2, 1_usize..=2).prop_map(
        |(twos, kernel, stride, sevens)| {
            let shape = ConvShape { in_channels: 2 * twos, out_channels: 32, kernel, stride, padding: kernel / 2 };
            (Algorithm::Direct, shape, stride * (7 * sevens - 1) + 1)
        },
    );
    let winograd = (prop_oneof![Just(Algorithm::Winograd2), Just(Algorithm::Winograd4)], 1_usize..=3, 1_usize..=15)
        .prop_map(|(algorithm, sixteens, side)| {
            let shape = ConvShape { in_channels: 16 * sixteens, out_channels: 64, kernel: 3, stride: 1, padding: 1 };
            (algorithm, shape, side)
        });
    (prop_oneof![direct, winograd], 1_usize..=5, any::<bool>(), any::<u64>()).prop_map(
        |((algorithm, shape, in_side), images, residual, seed)| Case {
            algorithm,
            shape,
            in_side,
            images,
            residual,
            seed: seed >> 16,
        },
    )
}

/// The relative L2 error over a sample of the output.
fn error(case: &Case, isa: Isa) -> f64 {
    let Case { algorithm, shape, in_side, images, .. } = *case;
    let ConvShape { in_channels, out_channels, kernel, stride, padding } = shape;
    let round = |values: Vec<f32>| values.into_iter().map(|value| bf16::round(value).to_f32()).collect::<Vec<_>>();
    let weights = round(values(out_channels * in_channels * kernel * kernel, case.seed));
    let bias = values(out_channels, case.seed + 1);
    let out_side = (in_side + 2 * padding - kernel) / stride + 1;
    let mut input = Activations::zeros(images, in_side, algorithm.border(in_side, padding), in_channels);
    let mut residual = Activations::zeros(images, out_side, 0, out_channels);
    fill(&mut input, case.seed + 2);
    fill(&mut residual, case.seed + 3);
    let ((input, exact_input), (residual, exact_residual)) = (rounded(&input), rounded(&residual));
    let conv = Conv2d::<bf16>::new(isa, algorithm, shape, &weights, &bias, true).unwrap();
    let mut output = Activations::zeros(images, out_side, 2, out_channels);
    conv.run(&input, case.residual.then_some(&residual), &mut output, &mut Scratch::default()).unwrap();
    assert!(output.border_is_zero(), "{isa}: the border was written to");
    let (mut apart, mut norm) = (0.0, 0.0);
    for image in [0, images - 1] {
        for (y, x) in [(0, 0), (out_side / 2, out_side - 1), (out_side - 1, out_side / 3)] {
            for out in 0..out_channels {
                let at = x * out_channels + out;
                let mut expected = reference(shape, &weights, &bias, &exact_input, (image, out, y, x));
                if case.residual {
                    expected += f64::from(exact_residual.row(image, y)[at]);
                }
                apart += (output.row(image, y)[at].to_f64() - expected.max(0.0)).powi(2);
                norm += expected.powi(2);
            }
        }
    }
    (apart / norm).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_instruction_set_agrees_with_the_definition_but_for_rounding(case in case()) {
        // Half a unit in the last of eight bits at the output. Winograd rounds transformed weights and windows as well,
        // whose sums cancel: the more, the larger its constants.
        let tolerance = match case.algorithm {
            Algorithm::Direct => 0.002,
            Algorithm::Winograd2 => 0.01,
            Algorithm::Winograd4 => 0.05,
        };
        for isa in Isa::available() {
            let error = error(&case, isa);
            prop_assert!(error < tolerance, "{isa}: {error}");
        }
    }
}

#[test]
fn rounds_as_the_standard_says() {
    for bits in (0..=u32::MAX).step_by(65_521) {
        let value = f32::from_bits(bits);
        let (ours, theirs) = (bf16::round(value), bf16::from_f32(value));
        assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{value:e}");
    }
}

#[test]
fn pooling_rounds_the_maximum() {
    let mut input = Activations::zeros(1, 8, 0, 16);
    fill(&mut input, 5);
    for y in 0..8 {
        input.row_mut(0, y).iter_mut().for_each(|value| *value = value.abs());
    }
    let (mut floats, mut halves) = (Activations::<f32>::zeros(1, 4, 1, 16), Activations::<bf16>::zeros(1, 4, 1, 16));
    max_pool_3x3_stride_2(&input, &mut floats, &mut Scratch::default());
    max_pool_3x3_stride_2(&input, &mut halves, &mut Scratch::default());
    for y in 0..4 {
        let expected: Vec<bf16> = floats.row(0, y).iter().map(|value| bf16::from_f32(*value)).collect();
        assert_eq!(halves.row(0, y), expected);
    }
}
