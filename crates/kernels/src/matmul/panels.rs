use half::bf16;

use super::{Factors, Matrix, Precision, pairs, rounded};
use crate::{
    Isa,
    aligned::Aligned,
    vector::{Vector, for_each_isa},
};

/// Columns of a panel for `isa`.
pub(super) const fn panel_columns(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 32,
        Isa::Avx2 => 16,
        Isa::Portable => 8,
    }
}

/// The right factor (K, N) in panels: (N / panel columns, K, panel columns), the last one filled up with zeros. In pairs of
/// bfloat16 (N / panel columns, K / 2, panel columns, 2), an odd K filled up likewise.
#[derive(Clone, Debug)]
pub struct Panels {
    pub(super) isa: Isa,
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) factors: Factors,
    pub(super) values: Values,
}

/// A factor's numbers.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Floats(Aligned<f32>),
    Pairs(Aligned<bf16>),
}

/// Rows of a panel that are brought into their order before they are rounded.
const ROUNDED_ROWS: usize = 32;

impl Panels {
    /// A factor of zeros for the tiles of `isa`.
    ///
    /// # Panics
    /// If this processor does not have `isa`: using it would then be undefined.
    pub fn new(isa: Isa, precision: Precision, depth: usize, columns: usize) -> Self {
        isa.assert_available();
        Self::of(isa, precision.factors(isa), depth, columns)
    }

    pub(super) fn of(isa: Isa, factors: Factors, depth: usize, columns: usize) -> Self {
        let width = panel_columns(isa);
        let numbers = |depth: usize| columns.div_ceil(width) * width * depth;
        let values = match factors {
            Factors::AsTheyAre | Factors::Rounded => Values::Floats(Aligned::zeros(numbers(depth))),
            Factors::Pairs => Values::Pairs(Aligned::zeros(numbers(depth.next_multiple_of(2)))),
        };
        Self { isa, depth, columns, factors, values }
    }

    /// Overwrites it with `matrix` (K, N).
    ///
    /// # Panics
    /// If the shapes differ or `matrix` reaches beyond its values.
    pub fn pack(&mut self, matrix: Matrix<'_>) {
        assert_eq!((matrix.rows, matrix.columns), (self.depth, self.columns), "shape of the right factor");
        assert!(matrix.extent() <= matrix.values.len(), "the right factor reaches beyond its values");
        let (isa, width, depth) = (self.isa, panel_columns(self.isa), self.depth.max(1));
        match &mut self.values {
            Values::Floats(values) => {
                for (index, panel) in values.chunks_exact_mut(depth * width).enumerate() {
                    copy_panel(isa, matrix.columns_from(index * width), panel, width);
                    if self.factors == Factors::Rounded {
                        rounded::round(isa, panel);
                    }
                }
            }
            Values::Pairs(values) => {
                let mut rows = [0.0; ROUNDED_ROWS * panel_columns(Isa::Avx512)];
                for (index, panel) in values.chunks_exact_mut(depth.next_multiple_of(2) * width).enumerate() {
                    let matrix = matrix.columns_from(index * width);
                    for (block, panel) in panel.chunks_mut(ROUNDED_ROWS * width).enumerate() {
                        let count = ROUNDED_ROWS.min(matrix.rows - block * ROUNDED_ROWS);
                        let rows = &mut rows[..count.next_multiple_of(2) * width];
                        rows[count * width..].fill(0.0);
                        copy_panel(
                            isa,
                            matrix.rows_from(block * ROUNDED_ROWS, count),
                            &mut rows[..count * width],
                            width,
                        );
                        for (pair, to) in rows.chunks_exact(2 * width).zip(panel.chunks_exact_mut(2 * width)) {
                            pairs::pair(&pair[..width], &pair[width..], to);
                        }
                    }
                }
            }
        }
    }
}

/// The first `width` columns of `matrix` into `panel` (K, width), or as many as there are.
fn copy_panel(isa: Isa, matrix: Matrix<'_>, panel: &mut [f32], width: usize) {
    let columns = width.min(matrix.columns);
    if matrix.column_step == 1 {
        for (k, row) in panel.chunks_exact_mut(width).enumerate() {
            let begin = k * matrix.row_step;
            row[..columns].copy_from_slice(&matrix.values[begin..begin + columns]);
        }
    } else if matrix.row_step == 1 {
        // SAFETY: the values reach as far as the matrix, and the panel has as many rows of `width`; the instruction set comes
        // from `Isa::available`.
        unsafe { pack_columns(isa, matrix.values, matrix.column_step, columns, panel, width) }
    } else {
        for (k, row) in panel.chunks_exact_mut(width).enumerate() {
            for (column, to) in row[..columns].iter_mut().enumerate() {
                *to = matrix.values[column * matrix.column_step + k * matrix.row_step];
            }
        }
    }
}

for_each_isa! {
    /// Columns that lie one behind the other, `step` apart, into the rows of a panel.
    fn pack_columns = columns_to_rows(from: &[f32], step: usize, columns: usize, panel: &mut [f32], width: usize)
}

#[inline(always)]
unsafe fn columns_to_rows<V: Vector>(from: &[f32], step: usize, columns: usize, panel: &mut [f32], width: usize) {
    let depth = panel.len() / width;
    let (whole_depth, whole_columns) = (depth / V::LANES * V::LANES, columns / V::LANES * V::LANES);
    for k in (0..whole_depth).step_by(V::LANES) {
        for column in (0..whole_columns).step_by(V::LANES) {
            // SAFETY: a square within both.
            unsafe {
                V::transpose(
                    from.as_ptr().add(column * step + k),
                    step,
                    panel.as_mut_ptr().add(k * width + column),
                    width,
                )
            }
        }
    }
    for column in 0..columns {
        let begin = if column < whole_columns { whole_depth } else { 0 };
        for k in begin..depth {
            panel[k * width + column] = from[column * step + k];
        }
    }
}
