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
        let Matrix { rows, columns, .. } = matrix;
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
