//! The training kernels against their definitions in double precision, on every instruction set of this processor.
#![allow(clippy::unwrap_used, reason = "tests")]

use half::{bf16, f16};
use kernels::{
    AdamStep, Begin, Isa, Matrix, MatrixMut, Multiplier, Panels, Patches, Precision, Rows, Standardise, adam, gelu,
    gelu_backward, multiply, multiply_rows, normalise, normalise_backward,
};
use proptest::prelude::*;

fn wave(count: usize, offset: f32) -> Vec<f32> {
    (0..count).map(|i| (offset + 0.37 * i as f32).sin()).collect()
}

fn rows(rows: usize, columns: usize, offset: f32) -> Rows {
    let mut matrix = Rows::zeros(rows, columns);
    for row in 0..rows {
        matrix.row_mut(row).copy_from_slice(&wave(columns, offset + row as f32));
    }
    matrix
}

/// Σ_k a(m, k) b(k, n) + begin, with the bound on its rounding errors.
fn by_definition(depth: usize, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32, begin: f32) -> (f64, f64) {
    let terms = (0..depth).map(|k| f64::from(a(k)) * f64::from(b(k)));
    let size: f64 = terms.clone().map(f64::abs).sum::<f64>() + f64::from(begin.abs());
    (terms.sum::<f64>() + f64::from(begin), 1e-6 + 1e-7 * depth as f64 * size)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn products_follow_their_definition(m in 1usize..40, n in 1usize..80, k in 0usize..60, long in any::<bool>()) {
        // Sums longer than a block continue what the block before left.
        let k = if long { k + 1020 } else { k };
        let (a, b, bias) = (rows(m, k, 0.1), rows(k, n, 0.2), wave(n, 0.3));
        for isa in Isa::available() {
            let mut panels = Panels::new(isa, Precision::F32, k, n);
            panels.pack(b.matrix());
            let mut from_columns = Panels::new(isa, Precision::F32, k, n);
            let columns: Vec<f32> = (0..n * k).map(|i| b.row(i % k)[i / k]).collect();
            from_columns.pack(Matrix::rows(&columns, n, k, k).transposed());
            let a_columns: Vec<f32> = (0..m * k).map(|i| a.row(i % m)[i / m]).collect();
            let a_columns = Matrix::rows(&a_columns, k, m, m).transposed();
            for (begin, present) in [(Begin::Zero, 0.0), (Begin::Bias(&bias), 0.0), (Begin::Present, 0.7)] {
                let mut results = Vec::new();
                for way in 0..4 {
                    // One number behind each row shows what writes too far.
                    let mut c = vec![0.7; m * (n + 1)];
                    let to = MatrixMut { values: &mut c, rows: m, columns: n, row_step: n + 1 };
                    match way {
                        0 => multiply(a.matrix(), &panels, begin, to),
                        1 => multiply(a_columns, &from_columns, begin, to),
                        2 => multiply_rows(isa, a.matrix(), b.matrix(), begin, to),
                        _ => multiply_rows(isa, a_columns, b.matrix(), begin, to),
                    }
                    results.push(c);
                }
                prop_assert!(results.iter().all(|result| result == &results[0]), "{isa}: the ways differ");
                for (row, got) in results[0].chunks_exact(n + 1).enumerate() {
                    prop_assert_eq!(got[n], 0.7, "written beyond the row");
                    for (column, got) in got[..n].iter().enumerate() {
                        let start = if let Begin::Bias(bias) = begin { bias[column] } else { present };
                        let (expected, bound) = by_definition(k, |k| a.row(row)[k], |k| b.row(k)[column], start);
                        prop_assert!((f64::from(*got) - expected).abs() <= bound, "{isa}: {got}, not {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn products_in_bfloat16_follow_their_definition(m in 1usize..40, n in 1usize..80, k in 0usize..60, long in any::<bool>()) {
        let k = if long { k + 2040 } else { k };
        let (a, b, bias) = (rows(m, k, 0.1), rows(k, n, 0.2), wave(n, 0.3));
        let mut a_transposed = Rows::zeros(k, m);
        (0..k * m).for_each(|i| a_transposed.row_mut(i / m)[i % m] = a.row(i % m)[i / m]);
        let columns: Vec<f32> = (0..n * k).map(|i| b.row(i % k)[i / k]).collect();
        let rounded = |value: f32| bf16::from_f32(value).to_f32();
        for isa in Isa::available() {
            let mut multiplier = Multiplier::new(isa, Precision::Bf16);
            let mut panels = [(); 2].map(|()| Panels::new(isa, Precision::Bf16, k, n));
            panels[0].pack(b.matrix());
            panels[1].pack(Matrix::rows(&columns, n, k, k).transposed());
            for (begin, present) in [(Begin::Zero, 0.0), (Begin::Bias(&bias), 0.0), (Begin::Present, 0.7)] {
                let mut results = Vec::new();
                for way in 0..3 {
                    let mut c = vec![0.7; m * (n + 1)];
                    let to = MatrixMut { values: &mut c, rows: m, columns: n, row_step: n + 1 };
                    match panels.get(way) {
                        Some(panels) => multiplier.multiply(a.matrix(), panels, begin, to),
                        None => multiplier.multiply_transposed(a_transposed.matrix(), b.matrix(), begin, to),
                    }
                    results.push(c);
                }
                prop_assert!(results.iter().all(|result| result == &results[0]), "{isa}: the ways differ");
                for (row, got) in results[0].chunks_exact(n + 1).enumerate() {
                    prop_assert_eq!(got[n], 0.7, "written beyond the row");
                    for (column, got) in got[..n].iter().enumerate() {
                        let start = if let Begin::Bias(bias) = begin { bias[column] } else { present };
                        let term = (|k: usize| rounded(a.row(row)[k]), |k: usize| rounded(b.row(k)[column]));
                        let (expected, bound) = by_definition(k, term.0, term.1, start);
                        prop_assert!((f64::from(*got) - expected).abs() <= bound, "{isa}: {got}, not {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn layer_norm_and_its_gradient_follow_their_definition(columns in 2usize..100) {
        let (x, grad) = (rows(3, columns, 0.4), rows(3, columns, 1.9));
        for isa in Isa::available() {
            let (mut y, mut inverse_std, mut x_grad) = (x.clone(), [0.0; 3], rows(3, columns, 0.0));
            normalise(isa, &x, 1e-5, &mut y, &mut inverse_std);
            normalise_backward(isa, &y, &inverse_std, &grad, &mut x_grad);
            for row in 0..3 {
                let count = columns as f64;
                let mean = |of: &dyn Fn(usize) -> f64| (0..columns).map(of).sum::<f64>() / count;
                let at = |matrix: &Rows, i: usize| f64::from(matrix.row(row)[i]);
                let x_mean = mean(&|i| at(&x, i));
                let rate = (mean(&|i| (at(&x, i) - x_mean).powi(2)) + 1e-5).sqrt().recip();
                let normal = |i| (at(&x, i) - x_mean) * rate;
                let (grad_mean, along) = (mean(&|i| at(&grad, i)), mean(&|i| at(&grad, i) * normal(i)));
                for i in 0..columns {
                    prop_assert!((at(&y, i) - normal(i)).abs() < 1e-5 * (1.0 + rate));
                    let before = f64::from(wave(columns, row as f32)[i]);
                    let expected = before + rate * (at(&grad, i) - grad_mean - normal(i) * along);
                    prop_assert!((at(&x_grad, i) - expected).abs() < 1e-5 * (1.0 + rate * rate), "{isa}");
                }
            }
        }
    }
}

#[test]
fn gelu_follows_the_error_function() {
    // From Python: P = 0.5 * (1 + math.erf(x / math.sqrt(2))); x * P, and
    // P + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi).
    let expected = [
        (-6.0, -5.92e-9, -3.55e-8),
        (-2.5, -0.015_524_163, -0.037_611_086),
        (-1.0, -0.158_655_25, -0.083_315_47),
        (0.0, 0.0, 0.5),
        (0.3, 0.185_373_43, 0.732_327_76),
        (1.7, 1.624_238_7, 1.115_318),
        (8.0, 8.0, 1.0),
    ];
    for isa in Isa::available() {
        let x: Vec<f32> = expected.iter().map(|row| row.0).collect();
        let (mut y, mut again, mut grad) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![2.0; x.len()]);
        gelu(isa, &x, &mut y);
        gelu_backward(isa, &x, &mut grad, &mut again);
        assert_eq!(y, again);
        for ((got, slope), (x, value, derivative)) in y.iter().zip(&grad).zip(expected) {
            assert!((got - value).abs() < 1e-6, "{isa}: gelu({x}) = {got}, not {value}");
            assert!((slope / 2.0 - derivative).abs() < 2e-6, "{isa}: gelu'({x}) = {}, not {derivative}", slope / 2.0);
        }
    }
}

#[test]
fn adam_follows_its_definition() {
    let step = AdamStep {
        gradient_scale: 0.5,
        gradient_decay: 0.1,
        weight_scale: 0.99,
        beta1: 0.9,
        beta1_rest: 0.1,
        beta2: 0.999,
        beta2_rest: 0.001,
        rate: 0.02,
        root_scale: 3.0,
        epsilon: 1e-8,
    };
    const COUNT: usize = 37;
    for isa in Isa::available() {
        let (mut weights, gradients) = (wave(COUNT, 0.1), wave(COUNT, 0.2));
        let (mut mean, mut square) = (wave(COUNT, 0.3), wave(COUNT, 0.4).iter().map(|v| v * v).collect::<Vec<_>>());
        let before = (weights.clone(), mean.clone(), square.clone());
        adam(isa, &step, &mut weights, &gradients, &mut mean, &mut square);
        for i in 0..COUNT {
            let wide = f64::from;
            let gradient = 0.5 * wide(gradients[i]) + 0.1 * wide(before.0[i]);
            let new_mean = 0.9 * wide(before.1[i]) + 0.1 * gradient;
            let new_square = 0.999 * wide(before.2[i]) + 0.001 * gradient * gradient;
            let weight = 0.99 * wide(before.0[i]) - 0.02 * new_mean / (3.0 * new_square.sqrt() + 1e-8);
            for (got, expected) in [(mean[i], new_mean), (square[i], new_square), (weights[i], weight)] {
                assert!((wide(got) - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{isa}: {got}, not {expected}");
            }
        }
    }
}

#[test]
fn stored_tokens_are_standardised_like_ready_ones() {
    // Runs of 5 × 7 values, which no register fits; tokens of 175.
    let patches = Patches { side: 10, grid: 2, patch_side: 5, channels: 7 };
    let map: Vec<f16> = wave(patches.values_per_map(), 0.5).into_iter().map(f16::from_f32).collect();
    let pixel = |y: usize, x: usize| &map[(y * 10 + x) * 7..][..7];
    let scales: Vec<[f32; 2]> =
        (0..7).map(|channel| [0.3 - 0.1 * channel as f32, 1.7 - 0.2 * channel as f32]).collect();
    for norm in [false, true] {
        let standardise = Standardise::new(&scales, patches, norm);
        for (isa, token) in Isa::available().flat_map(|isa| (0..4).map(move |token| (isa, token))) {
            let (top, left) = (token / 2 * 5, token % 2 * 5);
            let pixels = (0..5).flat_map(|y| (0..5).map(move |x| (top + y, left + x)));
            let mut ready: Vec<f32> = pixels.flat_map(|(y, x)| pixel(y, x)).map(|value| value.to_f32()).collect();
            standardise.token(isa, &mut ready);
            let moments = standardise.moments(isa, &map, token);
            let mut whole = vec![0.0; patches.token_width()];
            standardise.part(isa, &map, token, 0, moments, &mut whole);
            let apart = whole.iter().zip(&ready).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-5, "{isa}, norm {norm}: {apart}");
            // In two parts, of which neither fills its registers.
            let mut parts = vec![0.0; patches.token_width()];
            standardise.part(isa, &map, token, 0, moments, &mut parts[..41]);
            standardise.part(isa, &map, token, 41, moments, &mut parts[41..]);
            assert_eq!(parts, whole, "{isa}, norm {norm}");
            let mean = ready.iter().sum::<f32>() / ready.len() as f32;
            assert_eq!(mean.abs() < 1e-6, norm, "{mean}");
        }
    }
}

#[test]
fn a_patch_of_one_tone_is_standardised_to_nothing() {
    let patches = Patches { side: 8, grid: 1, patch_side: 8, channels: 3 };
    let standardise = Standardise::new(&[[0.5, 1000.0], [0.5, 1000.0], [0.5, 1000.0]], patches, true);
    let map = vec![f16::from_f32(0.7); patches.values_per_map()];
    for isa in Isa::available() {
        let mut token = vec![1.0; patches.token_width()];
        let moments = standardise.moments(isa, &map, 0);
        standardise.part(isa, &map, 0, 0, moments, &mut token);
        assert!(token.iter().all(|value| value.abs() < 0.05), "{isa}: {moments:?}, {token:?}");
    }
}
