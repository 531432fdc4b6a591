//! From stored half-precision values to standardised tokens, when a product needs them: the batch then takes half the
//! memory, and conversion costs next to nothing beside the products.

use half::f16;

use crate::{
    Isa,
    element::Lanes,
    layer_norm::{moments, normalise_row},
    vector::{Floats4, Vector, for_each_isa},
};

/// Added to a token's variance, as in PyTorch's `LayerNorm`; it matters only where a patch is all of one tone.
const EPSILON: f32 = 1e-5;

/// How the values of a token are standardised: each less its mean and times its rate, and then, if wished for, the whole
/// token to mean 0 and variance 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardise {
    mean: Vec<f32>,
    rate: Vec<f32>,
    norm: bool,
}

/// Mean and 1 / standard deviation of a token before its norm; 0 and 1 without norm.
pub type TokenMoments = [f32; 2];

/// Moments that leave a token as it is.
const UNMOVED: TokenMoments = [0.0, 1.0];

impl Standardise {
    /// With `scales`, mean and rate of each value, which repeat along a token of `width` values.
    pub fn new(scales: &[[f32; 2]], width: usize, norm: bool) -> Self {
        let repeated = |part: usize| scales.iter().map(|scale| scale[part]).cycle().take(width).collect();
        Self { mean: repeated(0), rate: repeated(1), norm }
    }

    /// Values of a token.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Standardises one token in place.
    ///
    /// # Panics
    /// If it is not as wide as it should be.
    pub fn token(&self, isa: Isa, token: &mut [f32]) {
        assert_eq!(token.len(), self.mean.len(), "width of a token");
        for ((value, mean), rate) in token.iter_mut().zip(&self.mean).zip(&self.rate) {
            *value = (*value - mean) * rate;
        }
        if self.norm {
            let plain = token.to_vec();
            // SAFETY: both have the same length; the instruction set comes from `Isa::available`.
            unsafe { normalise_row(isa, &plain, EPSILON, token) };
        }
    }

    /// A whole stored token, and what [`part`](Self::part) needs for parts of it.
    ///
    /// # Panics
    /// If it is not as wide as it should be, or not as long as `to`.
    pub fn stored(&self, isa: Isa, token: &[f16], to: &mut [f32]) -> TokenMoments {
        self.part(isa, token, 0, UNMOVED, to);
        // SAFETY: the instruction set comes from `Isa::available`.
        if self.norm { unsafe { normalise_in_place(isa, to) } } else { UNMOVED }
    }

    /// The part of a stored token that begins at `first`, with what [`stored`](Self::stored) found of the whole.
    ///
    /// # Panics
    /// If the part reaches beyond the token or is not as long as `to`.
    pub fn part(&self, isa: Isa, part: &[f16], first: usize, [mean, rate]: TokenMoments, to: &mut [f32]) {
        let range = first..first + part.len();
        assert_eq!(part.len(), to.len(), "length of a token's part");
        let (means, rates) = (&self.mean[range.clone()], &self.rate[range]);
        // SAFETY: all four have the same length; the instruction set comes from `Isa::available`.
        unsafe { standardise_row(isa, part, means, rates, mean, rate, to) }
    }
}

for_each_isa! {
    fn standardise_row = standardise(
        from: &[f16], means: &[f32], rates: &[f32], mean: f32, rate: f32, to: &mut [f32]
    )
}

for_each_isa! {
    fn normalise_in_place = to_moments_of_0_and_1(row: &mut [f32]) -> TokenMoments
}

#[inline(always)]
unsafe fn standardise<V: Vector>(from: &[f16], means: &[f32], rates: &[f32], mean: f32, rate: f32, to: &mut [f32])
where
    f16: Lanes<V>,
{
    let count = from.len();
    // SAFETY: all places are within the slices.
    unsafe {
        for i in (0..count).step_by(V::LANES) {
            let value: V = if count - i >= V::LANES {
                f16::load(from.as_ptr().add(i))
            } else {
                let mut some = [f16::ZERO; crate::vector::MOST_LANES];
                std::ptr::copy_nonoverlapping(from.as_ptr().add(i), some.as_mut_ptr(), count - i);
                f16::load(some.as_ptr())
            };
            let plain = value.sub(V::load_some(means.as_ptr().add(i), count - i, 0.0));
            let scaled = plain.mul(V::load_some(rates.as_ptr().add(i), count - i, 0.0));
            let normal = scaled.sub(V::splat(mean)).mul(V::splat(rate));
            normal.store_some(to.as_mut_ptr().add(i), count - i);
        }
    }
}

#[inline(always)]
unsafe fn to_moments_of_0_and_1<V: Vector>(row: &mut [f32]) -> TokenMoments {
    let count = row.len();
    // SAFETY: all places are within the slice.
    unsafe {
        let [mean, rate] = moments::<V>(row, EPSILON);
        for i in (0..count).step_by(V::LANES) {
            let place = row.as_mut_ptr().add(i);
            let normal = V::load_some(place, count - i, 0.0).sub(V::splat(mean)).mul(V::splat(rate));
            normal.store_some(place, count - i);
        }
        [mean, rate]
    }
}

impl Lanes<Floats4> for f16 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> Floats4 {
        // SAFETY: the trait's contract; an array of elements has their alignment.
        Floats4(unsafe { from.cast::<[Self; 4]>().read() }.map(Self::to_f32))
    }

    #[inline(always)]
    unsafe fn store(values: Floats4, to: *mut Self) {
        // SAFETY: as for `load`.
        unsafe { to.cast::<[Self; 4]>().write(values.0.map(Self::from_f32)) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Lanes, f16};
    use crate::vector::{Ymm, Zmm};

    impl Lanes<Zmm> for f16 {
        #[inline(always)]
        unsafe fn load(from: *const Self) -> Zmm {
            // SAFETY: the trait's contract, here and in all that follows.
            unsafe { Zmm(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn store(values: Zmm, to: *mut Self) {
            // SAFETY: see `load`.
            unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values.0)) }
        }
    }

    impl Lanes<Ymm> for f16 {
        #[inline(always)]
        unsafe fn load(from: *const Self) -> Ymm {
            // SAFETY: see above.
            unsafe { Ymm(_mm256_cvtph_ps(_mm_loadu_si128(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn store(values: Ymm, to: *mut Self) {
            // SAFETY: see above.
            unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values.0)) }
        }
    }
}
