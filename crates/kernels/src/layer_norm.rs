//! Layer norm without gain and offset (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>), row by row, and its gradient.

use crate::{
    Isa, Rows,
    vector::{Vector, for_each_isa},
};

/// `x` less its mean and over its standard deviation along each row: `y`, and 1 / standard deviation per row.
///
/// # Panics
/// If the shapes differ.
pub fn normalise(isa: Isa, x: &Rows, epsilon: f32, y: &mut Rows, inverse_std: &mut [f32]) {
    assert_eq!((x.rows(), x.columns(), x.rows()), (y.rows(), y.columns(), inverse_std.len()), "shapes of a layer norm");
    for (row, inverse_std) in inverse_std.iter_mut().enumerate() {
        // SAFETY: both rows have the same length; the instruction set comes from `Isa::available`.
        *inverse_std = unsafe { normalise_row(isa, x.row(row), epsilon, y.row_mut(row)) };
    }
}

/// Adds to `x_grad` what the gradient `grad` of `y` makes of it, for `y` and `inverse_std` as [`normalise`] left them.
///
/// # Panics
/// If the shapes differ.
pub fn normalise_backward(isa: Isa, y: &Rows, inverse_std: &[f32], grad: &Rows, x_grad: &mut Rows) {
    let shape = |rows: &Rows| (rows.rows(), rows.columns());
    assert!(shape(y) == shape(grad) && shape(y) == shape(x_grad), "shapes of a layer norm's gradient");
    assert_eq!(y.rows(), inverse_std.len(), "rows of a layer norm");
    for (row, inverse_std) in inverse_std.iter().enumerate() {
        // SAFETY: the rows have the same length; the instruction set comes from `Isa::available`.
        unsafe { add_row_gradient(isa, y.row(row), *inverse_std, grad.row(row), x_grad.row_mut(row)) }
    }
}

for_each_isa! {
    /// One row; both slices have the same length.
    pub(crate) fn normalise_row = normalise_one(x: &[f32], epsilon: f32, y: &mut [f32]) -> f32
}

for_each_isa! {
    /// One row; all slices have the same length.
    pub(crate) fn add_row_gradient = add_gradient_of_one(y: &[f32], inverse_std: f32, grad: &[f32], x_grad: &mut [f32])
}

/// Mean and 1 / standard deviation.
#[inline(always)]
unsafe fn moments<V: Vector>(x: &[f32], epsilon: f32) -> [f32; 2] {
    let count = x.len();
    let per_value = 1.0 / count as f32;
    // SAFETY: all places are within the slice.
    unsafe {
        let load = |i: usize, rest| V::load_some(x.as_ptr().add(i), count - i, rest);
        let mut sum = V::splat(0.0);
        for i in (0..count).step_by(V::LANES) {
            sum = sum.add(load(i, 0.0));
        }
        let mean = sum.sum() * per_value;
        let mut squares = V::splat(0.0);
        for i in (0..count).step_by(V::LANES) {
            let apart = load(i, mean).sub(V::splat(mean));
            squares = apart.mul_add(apart, squares);
        }
        [mean, 1.0 / (squares.sum() * per_value + epsilon).sqrt()]
    }
}

#[inline(always)]
unsafe fn normalise_one<V: Vector>(x: &[f32], epsilon: f32, y: &mut [f32]) -> f32 {
    let count = x.len();
    // SAFETY: all places are within the slices.
    unsafe {
        let [mean, inverse_std] = moments::<V>(x, epsilon);
        for i in (0..count).step_by(V::LANES) {
            let apart = V::load_some(x.as_ptr().add(i), count - i, mean).sub(V::splat(mean));
            apart.mul(V::splat(inverse_std)).store_some(y.as_mut_ptr().add(i), count - i);
        }
        inverse_std
    }
}

#[inline(always)]
unsafe fn add_gradient_of_one<V: Vector>(y: &[f32], inverse_std: f32, grad: &[f32], x_grad: &mut [f32]) {
    let count = y.len();
    let per_value = 1.0 / count as f32;
    // SAFETY: all places are within the slices.
    unsafe {
        let load = |from: &[f32], i: usize| V::load_some(from.as_ptr().add(i), count - i, 0.0);
        let (mut sum, mut along) = (V::splat(0.0), V::splat(0.0));
        for i in (0..count).step_by(V::LANES) {
            let grad = load(grad, i);
            sum = sum.add(grad);
            along = grad.mul_add(load(y, i), along);
        }
        let (mean, along) = (V::splat(sum.sum() * per_value), V::splat(-along.sum() * per_value));
        for i in (0..count).step_by(V::LANES) {
            let inner = load(y, i).mul_add(along, load(grad, i).sub(mean));
            let total = inner.mul_add(V::splat(inverse_std), load(x_grad, i));
            total.store_some(x_grad.as_mut_ptr().add(i), count - i);
        }
    }
}
