//! The update of Adam and AdamW in one pass over weights, gradients and moments.

use crate::{
    Isa,
    vector::{Vector, for_each_isa},
};

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// What gradients are multiplied by first.
    pub gradient_scale: f32,
    /// Share of the weight that is added to its gradient.
    pub gradient_decay: f32,
    /// What weights are multiplied by first.
    pub weight_scale: f32,
    /// Decay of the gradient's running mean.
    pub beta1: f32,
    /// 1 − `beta1`, which f32 would round.
    pub beta1_rest: f32,
    /// Decay of the squared gradient's running mean.
    pub beta2: f32,
    /// 1 − `beta2`.
    pub beta2_rest: f32,
    /// Learning rate over the mean's correction.
    pub rate: f32,
    /// 1 / the correction of the square's root.
    pub root_scale: f32,
    /// Added to the root.
    pub epsilon: f32,
}

/// Moves `weights` along their `gradients`, and the moments `mean` and `square` with them.
///
/// # Panics
/// If the lengths differ.
pub fn adam(isa: Isa, step: &AdamStep, weights: &mut [f32], gradients: &[f32], mean: &mut [f32], square: &mut [f32]) {
    let count = weights.len();
    assert!([gradients.len(), mean.len(), square.len()] == [count; 3], "lengths of an update");
    // SAFETY: the lengths are equal; the instruction set comes from `Isa::available`.
    unsafe { update(isa, step, weights, gradients, mean, square) }
}

for_each_isa! {
    fn update = update_all(
        step: &AdamStep, weights: &mut [f32], gradients: &[f32], mean: &mut [f32], square: &mut [f32]
    )
}

#[inline(always)]
unsafe fn update_all<V: Vector>(
    step: &AdamStep,
    weights: &mut [f32],
    gradients: &[f32],
    mean: &mut [f32],
    square: &mut [f32],
) {
    let count = weights.len();
    for i in (0..count).step_by(V::LANES) {
        // SAFETY: all places are within the slices.
        unsafe {
            let load = |from: &[f32]| V::load_some(from.as_ptr().add(i), count - i, 0.0);
            let weight = load(weights);
            let gradient =
                weight.mul_add(V::splat(step.gradient_decay), load(gradients).mul(V::splat(step.gradient_scale)));
            let new_mean = load(mean).mul_add(V::splat(step.beta1), gradient.mul(V::splat(step.beta1_rest)));
            let squared = gradient.mul(gradient).mul(V::splat(step.beta2_rest));
            let new_square = load(square).mul_add(V::splat(step.beta2), squared);
            let root = new_square.sqrt().mul_add(V::splat(step.root_scale), V::splat(step.epsilon));
            let update = new_mean.div(root).mul(V::splat(-step.rate));
            new_mean.store_some(mean.as_mut_ptr().add(i), count - i);
            new_square.store_some(square.as_mut_ptr().add(i), count - i);
            weight.mul_add(V::splat(step.weight_scale), update).store_some(weights.as_mut_ptr().add(i), count - i);
        }
    }
}
