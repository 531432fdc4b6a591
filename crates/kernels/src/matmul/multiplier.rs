use super::{
    Begin, Left, Matrix, MatrixMut, Panels, Precision, Right, Values, bf16, multiply, multiply_rows, pairs::Pairs,
    panels::panel_columns, product,
};
use crate::Isa;

/// Products of 32-bit floats in a precision that is chosen once, with the memory that rounding takes.
#[derive(Clone, Debug)]
pub struct Multiplier {
    isa: Isa,
    precision: Precision,
    left: Pairs,
    right: Pairs,
}

impl Multiplier {
    /// For `isa`; where it has no instructions for bfloat16, the next best is used for that.
    ///
    /// # Panics
    /// If this processor does not have `isa`: using it would then be undefined.
    pub fn new(isa: Isa, precision: Precision) -> Self {
        assert!(Isa::available().any(|available| available == isa), "this processor has no {isa}");
        Self { isa: precision.isa(isa), precision, left: Pairs::default(), right: Pairs::default() }
    }

    /// C = begin + A · B of a matrix A (M, K), row by row, and panels of the same precision.
    ///
    /// # Panics
    /// If the shapes or precisions do not fit together, or the matrices reach beyond their values.
    pub fn multiply(&mut self, a: Matrix<'_>, b: &Panels, begin: Begin<'_>, c: MatrixMut<'_>) {
        let Values::Bf16(values) = &b.values else { return multiply(a, b, begin, c) };
        assert_eq!((self.precision, self.isa), (Precision::Bf16, b.isa), "precision of the right factor");
        assert_eq!((a.columns, a.column_step, b.columns), (b.depth, 1, c.columns), "shapes of a product");
        self.left.along_columns(self.isa, a);
        let left = Left { values: self.left.values.as_ptr(), rows: a.rows, row: self.left.stride, step: GROUP };
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
        if self.precision == Precision::F32 {
            return multiply_rows(self.isa, a.transposed(), b, begin, c);
        }
        let shapes = (a.rows, a.column_step, b.column_step, b.columns);
        assert_eq!(shapes, (b.rows, 1, 1, c.columns), "shapes of a product");
        self.left.along_rows(self.isa, a);
        self.right.along_rows(self.isa, b);
        let left = Left { values: self.left.values.as_ptr(), rows: a.columns, row: GROUP, step: self.left.stride };
        let panel = GROUP * panel_columns(self.isa);
        let right = Right { values: self.right.values.as_ptr(), step: self.right.stride, panel };
        // SAFETY: both have been filled up to whole groups, and their rows have room for whole panels.
        unsafe { product(self.isa, &left, &right, a.rows.div_ceil(GROUP), begin, c) }
    }
}

/// Numbers of bfloat16 that a lane multiplies and adds.
const GROUP: usize = <bf16 as crate::element::Kernels>::GROUP;
