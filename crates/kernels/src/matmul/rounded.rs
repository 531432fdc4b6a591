use half::bf16;

use super::{Matrix, row_padding};
use crate::{
    Element as _, Isa,
    aligned::{Aligned, row_stride},
    vector::{Vector, for_each_isa},
};

/// A matrix rounded to bfloat16 and kept in 32-bit floats, for processors that multiply nothing else: they would widen
/// pairs anew for each tile, which takes two to three times as long as the products.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounded(Aligned<f32>);

impl Rounded {
    /// Of `matrix`, whose columns lie one after the other. Its rows have room for a multiple of [`row_padding`].
    pub(super) fn of(&mut self, isa: Isa, matrix: Matrix<'_>) -> Matrix<'_> {
        let Matrix { rows, columns, column_step, .. } = matrix;
        assert_eq!(column_step, 1, "columns of a factor to round lie one after the other");
        let stride = row_stride::<f32>(columns.next_multiple_of(row_padding()));
        self.0.grow_to(rows * stride);
        for (row, to) in self.0.chunks_exact_mut(stride).take(rows).enumerate() {
            let to = &mut to[..columns];
            to.copy_from_slice(&matrix.values[row * matrix.row_step..][..columns]);
            round(isa, to);
        }
        Matrix::rows(&self.0, rows, columns, stride)
    }
}

/// Rounds `values` to bfloat16 where they lie.
pub(super) fn round(isa: Isa, values: &mut [f32]) {
    // SAFETY: the instruction set comes from `Isa::available`.
    unsafe { round_values(isa, values) }
}

for_each_isa! {
    fn round_values = round_lanes(values: &mut [f32])
}

#[inline(always)]
unsafe fn round_lanes<V: Vector>(values: &mut [f32]) {
    let rounded = |value: f32| f32::from_bits(u32::from(bf16::round(value).to_bits()) << 16);
    let mut lanes = values.chunks_exact_mut(V::LANES);
    for register in &mut lanes {
        register.iter_mut().for_each(|value| *value = rounded(*value));
    }
    lanes.into_remainder().iter_mut().for_each(|value| *value = rounded(*value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Begin, MatrixMut, Multiplier, Panels, Rows, matmul::Factors};

    /// Numbers of all sizes, among them halves between two neighbours of bfloat16, infinity and what is no number.
    fn values(count: usize, seed: u32) -> Vec<f32> {
        let value = |index: u32| match index.wrapping_mul(2_654_435_761).wrapping_add(seed) % 1009 {
            7 => f32::from_bits(0x3F80_8000),
            8 => f32::from_bits(0xBF81_8000),
            9 => f32::from_bits(0x0000_8001 + index),
            10 if seed == 1 => f32::INFINITY,
            11 if seed == 1 => f32::NAN,
            number => (number as f32 - 504.0) * 1.000_37 / 97.0,
        };
        (0..count as u32).map(value).collect()
    }

    fn matrix(rows: usize, columns: usize, values: &[f32]) -> Rows {
        let mut matrix = Rows::zeros(rows, columns);
        (0..rows).for_each(|row| matrix.row_mut(row).copy_from_slice(&values[row * columns..][..columns]));
        matrix
    }

    #[test]
    fn products_of_rounded_factors_are_those_of_factors_rounded_beforehand() {
        let rounded_before =
            |values: &[f32]| -> Vec<f32> { values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect() };
        for (m, n, k) in [(1, 1, 1), (13, 37, 18), (29, 40, 1051)] {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            for isa in Isa::available() {
                let product = |factors: Factors, a: &[f32], b: &[f32]| {
                    let mut multiplier = Multiplier::of(isa, factors);
                    let mut panels = Panels::of(isa, factors, k, n);
                    panels.pack(Matrix::rows(b, k, n, n));
                    let [mut one, mut other] = [vec![0.5; m * n], vec![0.5; m * n]];
                    let to = |values| MatrixMut { values, rows: m, columns: n, row_step: n };
                    multiplier.multiply(Matrix::rows(a, m, k, k), &panels, Begin::Present, to(&mut one));
                    let transposed: Vec<f32> = (0..k * m).map(|at| a[at % m * k + at / m]).collect();
                    let (a, b) = (matrix(k, m, &transposed), matrix(k, n, b));
                    multiplier.multiply_transposed(a.matrix(), b.matrix(), Begin::Present, to(&mut other));
                    [one, other].map(|way| way.into_iter().map(f32::to_bits).collect::<Vec<u32>>())
                };
                let got = product(Factors::Rounded, &a, &b);
                let expected = product(Factors::AsTheyAre, &rounded_before(&a), &rounded_before(&b));
                assert!(got == expected, "{isa}: {m} by {n} by {k}");
                assert!(got[0] == got[1], "{isa}: the ways differ");
            }
        }
    }
}
