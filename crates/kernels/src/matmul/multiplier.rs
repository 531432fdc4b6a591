use super::{
    Begin, Factors, Left, Matrix, MatrixMut, Panels, Precision, Right, Values, bf16, multiply_floats, multiply_rows,
    pairs::Pairs, panels::panel_columns, product, rounded::Rounded,
};
use crate::Isa;

/// Products of 32-bit floats in a precision that is chosen once, with the memory that rounding takes.
#[derive(Clone, Debug)]
pub struct Multiplier {
    isa: Isa,
    factors: Factors,
    rounded: [Rounded; 2],
    pairs: [Pairs; 2],
}

impl Multiplier {
    /// For `isa`.
    ///
    /// # Panics
    /// If this processor does not have `isa`: using it would then be undefined.
    pub fn new(isa: Isa, precision: Precision) -> Self {
        isa.assert_available();
        Self::of(isa, precision.factors(isa))
    }

    pub(super) fn of(isa: Isa, factors: Factors) -> Self {
        Self { isa, factors, rounded: Default::default(), pairs: Default::default() }
    }

    /// C = begin + A · B of a matrix A (M, K), row by row, and panels of the same precision.
    ///
    /// # Panics
    /// If the shapes or precisions do not fit together, or the matrices reach beyond their values.
    pub fn multiply(&mut self, a: Matrix<'_>, b: &Panels, begin: Begin<'_>, c: MatrixMut<'_>) {
        assert_eq!((self.factors, self.isa), (b.factors, b.isa), "precision and instruction set of the right factor");
        assert_eq!((a.columns, a.column_step, b.columns), (b.depth, 1, c.columns), "shapes of a product");
        let Values::Pairs(values) = &b.values else {
            let is_rounded = self.factors == Factors::Rounded;
            return multiply_floats(if is_rounded { self.rounded[0].of(self.isa, a) } else { a }, b, begin, c);
        };
        let pairs = &mut self.pairs[0];
        pairs.along_columns(a);
        let left = Left { values: pairs.values.as_ptr(), rows: a.rows, row: pairs.stride, step: GROUP };
        let (groups, width) = (b.depth.div_ceil(GROUP), GROUP * panel_columns(b.isa));
        let right = Right { values: values.as_ptr(), step: width, panel: groups * width };
        // SAFETY: the left factor has been filled up to whole groups; the panels hold as many groups.
        unsafe { product(self.isa, &left, &right, groups, begin, c) }
    }

    /// C (M, N) = begin + Aᵀ · B of matrices A (K, M) and B (K, N), row by row. Every row of `b.values` must have room for a
    /// multiple of [`row_padding`](super::row_padding).
    ///
    /// # Panics
    /// If the shapes do not fit together or reach beyond their values.
    pub fn multiply_transposed(&mut self, a: Matrix<'_>, b: Matrix<'_>, begin: Begin<'_>, c: MatrixMut<'_>) {
        let shapes = (a.rows, a.column_step, b.column_step, b.columns);
        assert_eq!(shapes, (b.rows, 1, 1, c.columns), "shapes of a product");
        match self.factors {
            Factors::AsTheyAre => return multiply_rows(self.isa, a.transposed(), b, begin, c),
            Factors::Rounded => {
                let [left, right] = &mut self.rounded;
                let (a, b) = (left.of(self.isa, a).transposed(), right.of(self.isa, b));
                return multiply_rows(self.isa, a, b, begin, c);
            }
            Factors::Pairs => {}
        }
        let [left, right] = &mut self.pairs;
        left.along_rows(a);
        right.along_rows(b);
        let left = Left { values: left.values.as_ptr(), rows: a.columns, row: GROUP, step: left.stride };
        let panel = GROUP * panel_columns(self.isa);
        let right = Right { values: right.values.as_ptr(), step: right.stride, panel };
        // SAFETY: both have been filled up to whole groups, and their rows have room for whole panels.
        unsafe { product(self.isa, &left, &right, a.rows.div_ceil(GROUP), begin, c) }
    }
}

/// Numbers of bfloat16 that a lane multiplies and adds.
const GROUP: usize = <bf16 as crate::element::Kernels>::GROUP;
