use crate::{
    Matrix, MatrixMut,
    aligned::{Aligned, row_stride},
    matmul::row_padding,
};

/// A matrix whose rows begin at cache lines and have room for whole panels, so that every product may read it as either
/// factor.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    values: Aligned<f32>,
    rows: usize,
    columns: usize,
    stride: usize,
}

impl Rows {
    /// Zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        let mut zeros = Self::default();
        zeros.reshape(rows, columns);
        zeros
    }

    /// Makes it a matrix of another shape, whose numbers may be anything. Allocates only where it was never as large.
    pub fn reshape(&mut self, rows: usize, columns: usize) {
        let stride = row_stride::<f32>(columns.next_multiple_of(row_padding()));
        self.values.grow_to(rows * stride);
        (self.rows, self.columns, self.stride) = (rows, columns, stride);
    }

    /// Number of rows.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in a row that count.
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// From one row to the next.
    pub const fn stride(&self) -> usize {
        self.stride
    }

    /// Row by row, padding included.
    pub fn values(&self) -> &[f32] {
        &self.values[..self.rows * self.stride]
    }

    /// Row by row, padding included.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.rows * self.stride]
    }

    /// One row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.stride..][..self.columns]
    }

    /// One row.
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.values[index * self.stride..][..self.columns]
    }

    /// All rows.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::rows(&self.values, self.rows, self.columns, self.stride)
    }

    /// All rows.
    pub fn matrix_mut(&mut self) -> MatrixMut<'_> {
        MatrixMut { values: &mut self.values, rows: self.rows, columns: self.columns, row_step: self.stride }
    }
}
