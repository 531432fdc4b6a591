//! Every instruction set's convolution against the definition, at the shapes of ResNet-18.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use kernels::{Activations, Algorithm, Conv2d, ConvShape, Isa, Scratch};
use support::{fill, reference, values};

fn agrees(isa: Isa, algorithm: Algorithm, shape: ConvShape, in_side: usize, images: usize, with_residual: bool) {
    let ConvShape { in_channels, out_channels, kernel, stride, padding } = shape;
    let weights = values(out_channels * in_channels * kernel * kernel, 1);
    let bias = values(out_channels, 2);
    let out_side = (in_side + 2 * padding - kernel) / stride + 1;
    let mut input = Activations::zeros(images, in_side, algorithm.border(in_side, padding).max(1), in_channels);
    fill(&mut input, 3);
    let mut residual = Activations::zeros(images, out_side, 1, out_channels);
    fill(&mut residual, 4);
    let mut output = Activations::zeros(images, out_side, 1, out_channels);
    let conv = Conv2d::new(isa, algorithm, shape, &weights, &bias, true).unwrap();
    let mut scratch = Scratch::default();
    conv.run(&input, with_residual.then_some(&residual), &mut output, &mut scratch).unwrap();
    assert!(output.border_is_zero(), "{isa} {algorithm:?} {shape:?}: the border was written to");
    for image in 0..images {
        // Corners, borders and a sample of the interior.
        for y in (0..out_side).step_by(5).chain([out_side - 1]) {
            for x in (0..out_side).step_by(3).chain([out_side - 1]) {
                for out in (0..out_channels).step_by(7) {
                    let mut expected = reference(shape, &weights, &bias, &input, (image, out, y, x));
                    if with_residual {
                        expected += f64::from(residual.row(image, y)[x * out_channels + out]);
                    }
                    let got = f64::from(output.row(image, y)[x * out_channels + out]);
                    // The constants of F(4×4, 3×3), up to 5 and 1/24, cost two bits.
                    let constants = if algorithm == Algorithm::Winograd4 { 4.0 } else { 1.0 };
                    let tolerance = constants * 1e-5 * ((kernel * kernel * in_channels) as f64).sqrt();
                    assert!(
                        (got - expected.max(0.0)).abs() <= tolerance,
                        "{isa} {algorithm:?} {shape:?} image {image} channel {out} at ({y}, {x}): {got}, expected {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_instruction_set_agrees_with_the_definition() {
    let shape = |in_channels, out_channels, kernel, stride| ConvShape {
        in_channels,
        out_channels,
        kernel,
        stride,
        padding: kernel / 2,
    };
    for isa in Isa::available() {
        agrees(isa, Algorithm::Direct, shape(1, 64, 7, 2), 56, 1, false);
        agrees(isa, Algorithm::Direct, shape(3, 64, 7, 2), 56, 1, false);
        agrees(isa, Algorithm::Direct, shape(64, 64, 3, 1), 14, 2, true);
        agrees(isa, Algorithm::Direct, shape(64, 128, 3, 2), 28, 1, false);
        agrees(isa, Algorithm::Direct, shape(64, 128, 1, 2), 28, 1, false);
        agrees(isa, Algorithm::Direct, shape(128, 128, 3, 1), 14, 1, true);
        agrees(isa, Algorithm::Direct, shape(512, 512, 3, 1), 7, 3, true);
        agrees(isa, Algorithm::Direct, shape(5, 32, 3, 1), 7, 1, true);
        let (two, four) = (Algorithm::Winograd2, Algorithm::Winograd4);
        for (algorithm, side) in [(two, 14), (two, 6), (four, 12), (two, 7), (four, 7), (four, 14), (four, 5), (two, 1)]
        {
            agrees(isa, algorithm, shape(64, 64, 3, 1), side, 2, true);
            agrees(isa, algorithm, shape(32, 64, 3, 1), side, 1, false);
            // So many weights that all tiles pass at once.
            agrees(isa, algorithm, shape(256, 256, 3, 1), side, 3, true);
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let shape = ConvShape { in_channels: 4, out_channels: 32, kernel: 3, stride: 1, padding: 1 };
    let error = Conv2d::<f32>::new(Isa::Portable, Algorithm::Direct, shape, &[0.0; 10], &[0.0; 32], true)
        .unwrap_err()
        .to_string();
    assert!(error.contains("number of weights is 10, expected 1152"), "{error}");
    let conv = Conv2d::<f32>::new(Isa::Portable, Algorithm::Direct, shape, &[0.0; 1152], &[0.0; 32], true).unwrap();
    let input = Activations::zeros(1, 7, 0, 4);
    let error =
        conv.run(&input, None, &mut Activations::zeros(1, 7, 0, 32), &mut Scratch::default()).unwrap_err().to_string();
    assert!(error.contains("input border is 0, expected at least 1"), "{error}");
}

#[test]
fn winograd_wants_3x3_kernels_and_a_border_for_its_last_tiles() {
    let shape = ConvShape { in_channels: 16, out_channels: 32, kernel: 3, stride: 1, padding: 1 };
    let new = |shape: ConvShape| {
        let count = shape.in_channels * shape.out_channels * shape.kernel * shape.kernel;
        Conv2d::<f32>::new(Isa::Portable, Algorithm::Winograd4, shape, &vec![0.0; count], &[0.0; 32], true)
    };
    let error = new(ConvShape { stride: 2, ..shape }).unwrap_err().to_string();
    assert!(error.contains("stride is 2, expected 1 for Winograd"), "{error}");
    let error = new(ConvShape { kernel: 1, padding: 0, ..shape }).unwrap_err().to_string();
    assert!(error.contains("kernel is 1, expected 3 for Winograd"), "{error}");
    // 14 takes four tiles of four, which end two pixels behind it.
    let (input, mut output) = (Activations::zeros(1, 14, 1, 16), Activations::zeros(1, 14, 1, 32));
    let error = new(shape).unwrap().run(&input, None, &mut output, &mut Scratch::default()).unwrap_err().to_string();
    assert!(error.contains("input border is 1, expected at least 3"), "{error}");
}
