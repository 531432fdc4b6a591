use half::bf16;

use super::Matrix;
use crate::{
    aligned::{Aligned, row_stride},
    bf16_lanes::StorePairs,
    element::Lanes,
    vector::{Vector, for_avx512_bf16},
};

/// Numbers that a register of the widest instruction set takes; rows are filled up to a multiple of two of them.
const PADDING: usize = 32;

/// A matrix rounded to bfloat16, with the two numbers side by side that a lane multiplies and sums.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    pub(super) values: Aligned<bf16>,
    /// From one row, or pair of rows, to the next.
    pub(super) stride: usize,
}

impl Pairs {
    /// Of neighbouring columns: (R, C), an odd C filled up with zeros. Columns lie one after the other in `matrix`.
    pub(super) fn along_columns(&mut self, matrix: Matrix<'_>) {
        self.reshape(matrix.rows, matrix.columns);
        for (row, to) in self.values.chunks_exact_mut(self.stride).take(matrix.rows).enumerate() {
            round(&matrix.values[row * matrix.row_step..][..matrix.columns], to);
        }
    }

    /// Of neighbouring rows: (R / 2, C, 2), an odd R filled up with zeros. Columns lie one after the other in `matrix`.
    pub(super) fn along_rows(&mut self, matrix: Matrix<'_>) {
        self.reshape(matrix.rows.div_ceil(2), 2 * matrix.columns.next_multiple_of(PADDING));
        let row = |row: usize| &matrix.values[row * matrix.row_step..][..matrix.columns];
        for (index, to) in self.values.chunks_exact_mut(self.stride).take(matrix.rows / 2).enumerate() {
            pair(row(2 * index), row(2 * index + 1), to);
        }
        if !matrix.rows.is_multiple_of(2) {
            let last = matrix.rows - 1;
            let to = &mut self.values[last / 2 * self.stride..][..2 * matrix.columns];
            to.chunks_exact_mut(2).zip(row(last)).for_each(|(to, from)| {
                to.copy_from_slice(&[<bf16 as crate::Element>::round(*from), bf16::ZERO]);
            });
        }
    }

    fn reshape(&mut self, rows: usize, numbers: usize) {
        self.stride = row_stride::<bf16>(numbers.next_multiple_of(PADDING));
        self.values.grow_to(rows * self.stride);
    }
}

/// Rounds `from` into the beginning of `to`, and fills it up with zeros to a whole register.
///
/// # Panics
/// If `to` has no room for whole registers.
fn round(from: &[f32], to: &mut [bf16]) {
    assert!(from.len().next_multiple_of(PADDING) <= to.len(), "room for a rounded row");
    // SAFETY: there is room; there are pairs with AVX512-BF16 alone.
    unsafe { round_row(from, to) }
}

/// Rounds the rows `first` and `second` into the beginning of `to`, their numbers side by side.
///
/// # Panics
/// If the rows differ in length, or `to` has no room for whole registers.
pub(super) fn pair(first: &[f32], second: &[f32], to: &mut [bf16]) {
    assert_eq!(first.len(), second.len(), "lengths of a pair of rows");
    assert!(2 * first.len().next_multiple_of(PADDING / 2) <= to.len(), "room for a pair of rows");
    // SAFETY: as for `round`.
    unsafe { pair_rows(first, second, to) }
}

for_avx512_bf16! {
    fn round_row = round_one(from: &[f32], to: &mut [bf16])
}

for_avx512_bf16! {
    fn pair_rows = pair_two(first: &[f32], second: &[f32], to: &mut [bf16])
}

#[inline(always)]
unsafe fn round_one<V: Vector>(from: &[f32], to: &mut [bf16])
where
    bf16: Lanes<V>,
{
    for i in (0..from.len()).step_by(V::LANES) {
        // SAFETY: all places are within `from`, and within `to` up to whole registers.
        unsafe { bf16::store(V::load_some(from.as_ptr().add(i), from.len() - i, 0.0), to.as_mut_ptr().add(i)) }
    }
}

#[inline(always)]
unsafe fn pair_two<V: Vector>(first: &[f32], second: &[f32], to: &mut [bf16])
where
    bf16: StorePairs<V>,
{
    let count = first.len();
    for i in (0..count).step_by(V::LANES) {
        // SAFETY: as above.
        unsafe {
            let load = |from: &[f32]| V::load_some(from.as_ptr().add(i), count - i, 0.0);
            bf16::store_pairs(load(first), load(second), to.as_mut_ptr().add(2 * i));
        }
    }
}
