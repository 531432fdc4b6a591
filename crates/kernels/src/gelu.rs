//! GELU by the error function (Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>): x Φ(x), with Φ the normal
//! distribution's cumulative function and derivative Φ(x) + x φ(x).

use crate::{
    Isa,
    functions::normal_distribution,
    vector::{Vector, for_each_isa},
};

/// `y` = x Φ(x).
///
/// # Panics
/// If the lengths differ.
pub fn gelu(isa: Isa, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "lengths of a GELU");
    // SAFETY: the lengths are equal; the instruction set comes from `Isa::available`.
    unsafe { forward(isa, x, y) }
}

/// Turns the gradient of GELU into that of `x`, and gives GELU(`x`) once more: it is cheaper to compute than to keep.
///
/// # Panics
/// If the lengths differ.
pub fn gelu_backward(isa: Isa, x: &[f32], grad: &mut [f32], y: &mut [f32]) {
    assert!(x.len() == grad.len() && x.len() == y.len(), "lengths of a GELU's gradient");
    // SAFETY: the lengths are equal; the instruction set comes from `Isa::available`.
    unsafe { backward(isa, x, grad, y) }
}

for_each_isa! {
    fn forward = values(x: &[f32], y: &mut [f32])
}

for_each_isa! {
    fn backward = gradients(x: &[f32], grad: &mut [f32], y: &mut [f32])
}

#[inline(always)]
unsafe fn values<V: Vector>(x: &[f32], y: &mut [f32]) {
    let count = x.len();
    for i in (0..count).step_by(V::LANES) {
        // SAFETY: all places are within the slices.
        unsafe {
            let x = V::load_some(x.as_ptr().add(i), count - i, 0.0);
            let (cumulative, _) = normal_distribution(x);
            x.mul(cumulative).store_some(y.as_mut_ptr().add(i), count - i);
        }
    }
}

#[inline(always)]
unsafe fn gradients<V: Vector>(x: &[f32], grad: &mut [f32], y: &mut [f32]) {
    let count = x.len();
    for i in (0..count).step_by(V::LANES) {
        // SAFETY: all places are within the slices.
        unsafe {
            let x = V::load_some(x.as_ptr().add(i), count - i, 0.0);
            let (cumulative, density) = normal_distribution(x);
            let slope = x.mul_add(density, cumulative);
            let x_grad = V::load_some(grad.as_ptr().add(i), count - i, 0.0).mul(slope);
            x_grad.store_some(grad.as_mut_ptr().add(i), count - i);
            x.mul(cumulative).store_some(y.as_mut_ptr().add(i), count - i);
        }
    }
}
