//! From stored half-precision values to standardised tokens, when a product needs them: the batch then takes half the
//! memory, and conversion costs next to nothing beside the products.

use half::f16;

use crate::{
    Isa, Patches,
    element::Lanes,
    layer_norm::normalise_row,
    vector::{Floats4, MOST_LANES, Vector, for_each_isa},
};

/// How the values of a token are standardised: each less its mean and times its rate, and then, if wished for, the whole
/// token to mean 0 and variance 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardise {
    patches: Patches,
    /// Rate of each value, and −mean × rate.
    rate: Vec<f32>,
    offset: Vec<f32>,
    norm: bool,
}

/// Mean and 1 / standard deviation of a token before its norm; 0 and 1 without norm.
pub type TokenMoments = [f32; 2];

/// Moments that leave a token as it is.
const UNMOVED: TokenMoments = [0.0, 1.0];

impl Standardise {
    /// Added to a token's variance, as in PyTorch's `LayerNorm`; it matters only where a patch is all of one tone.
    pub const EPSILON: f32 = 1e-5;

    /// Of the tokens of `patches`, with `scales`, mean and rate of each channel.
    ///
    /// # Panics
    /// If there is not one scale for each channel.
    pub fn new(scales: &[[f32; 2]], patches: Patches, norm: bool) -> Self {
        assert_eq!(scales.len(), patches.channels, "scales of the channels");
        let repeated = |of: fn(&[f32; 2]) -> f32| scales.iter().map(of).cycle().take(patches.token_width()).collect();
        Self { patches, rate: repeated(|[_, rate]| *rate), offset: repeated(|[mean, rate]| -mean * rate), norm }
    }

    /// How maps are cut into tokens.
    pub const fn patches(&self) -> Patches {
        self.patches
    }

    /// What each value of a token is multiplied by, before the norm.
    pub fn rates(&self) -> &[f32] {
        &self.rate
    }

    /// What is then added to each.
    pub fn offsets(&self) -> &[f32] {
        &self.offset
    }

    /// Standardises one token in place.
    ///
    /// # Panics
    /// If it is not as wide as it should be.
    pub fn token(&self, isa: Isa, token: &mut [f32]) {
        assert_eq!(token.len(), self.rate.len(), "width of a token");
        for ((value, rate), offset) in token.iter_mut().zip(&self.rate).zip(&self.offset) {
            *value = *value * rate + offset;
        }
        if self.norm {
            let plain = token.to_vec();
            // SAFETY: both have the same length; the instruction set comes from `Isa::available`.
            unsafe { normalise_row(isa, &plain, Self::EPSILON, token) };
        }
    }

    /// What [`part`](Self::part) needs to know of the whole of a map's `token`.
    ///
    /// # Panics
    /// If `map` is no whole map.
    pub fn moments(&self, isa: Isa, map: &[f16], token: usize) -> TokenMoments {
        assert_eq!(map.len(), self.patches.values_per_map(), "values of a map");
        if !self.norm {
            return UNMOVED;
        }
        // SAFETY: the map is whole; the instruction set comes from `Isa::available`.
        unsafe { token_moments(isa, self, map, token) }
    }

    /// The values of a map's `token` from `first` on, with the [`moments`](Self::moments) of the whole token.
    ///
    /// # Panics
    /// If the part reaches beyond the token, or `map` is no whole map.
    pub fn part(&self, isa: Isa, map: &[f16], token: usize, first: usize, moments: TokenMoments, to: &mut [f32]) {
        assert_eq!(map.len(), self.patches.values_per_map(), "values of a map");
        let run = self.patches.run();
        let (mut at, mut left) = (first, to);
        while !left.is_empty() {
            let (y, within) = (at / run, at % run);
            let (now, later) = left.split_at_mut(left.len().min(run - within));
            let stored = &map[self.patches.start(token, y) + within..][..now.len()];
            let (rates, offsets) = (&self.rate[at..][..now.len()], &self.offset[at..][..now.len()]);
            at += now.len();
            // SAFETY: all four have the same length; the instruction set comes from `Isa::available`.
            unsafe { standardise_run(isa, stored, rates, offsets, moments, now) }
            left = later;
        }
    }
}

for_each_isa! {
    fn token_moments = moments_of(standardise: &Standardise, map: &[f16], token: usize) -> TokenMoments
}

for_each_isa! {
    fn standardise_run = standardise(from: &[f16], rates: &[f32], offsets: &[f32], moments: TokenMoments, to: &mut [f32])
}

/// `V::LANES` values from `i` on, or as many as there are, and zeros.
#[inline(always)]
unsafe fn load<V: Vector>(from: &[f16], i: usize) -> V
where
    f16: Lanes<V>,
{
    let count = from.len() - i;
    // SAFETY: all places are within the slice, or within an array with room for all lanes.
    unsafe {
        if count >= V::LANES {
            return f16::load(from.as_ptr().add(i));
        }
        let mut some = [f16::ZERO; MOST_LANES];
        std::ptr::copy_nonoverlapping(from.as_ptr().add(i), some.as_mut_ptr(), count);
        f16::load(some.as_ptr())
    }
}

#[inline(always)]
unsafe fn moments_of<V: Vector>(standardise: &Standardise, map: &[f16], token: usize) -> TokenMoments
where
    f16: Lanes<V>,
{
    let Standardise { patches, rate, offset, .. } = standardise;
    let run = patches.run();
    // Seen from one of the token's own values, sums and squares lose nothing where all values are nearly alike.
    let origin = map[patches.start(token, 0)].to_f32().mul_add(rate[0], offset[0]);
    // SAFETY: all places are within the slices.
    unsafe {
        let (mut sum, mut squares) = (V::splat(0.0), V::splat(0.0));
        for y in 0..patches.patch_side {
            let from = &map[patches.start(token, y)..][..run];
            let (rate, offset) = (&rate[y * run..][..run], &offset[y * run..][..run]);
            for i in (0..run).step_by(V::LANES) {
                let rates = V::load_some(rate.as_ptr().add(i), run - i, 0.0);
                let offsets = V::load_some(offset.as_ptr().add(i), run - i, origin);
                let apart = load::<V>(from, i).mul_add(rates, offsets).sub(V::splat(origin));
                sum = sum.add(apart);
                squares = apart.mul_add(apart, squares);
            }
        }
        let per_value = 1.0 / patches.token_width() as f32;
        let mean = sum.sum() * per_value;
        let variance = (squares.sum() * per_value - mean * mean).max(0.0);
        [origin + mean, 1.0 / (variance + Standardise::EPSILON).sqrt()]
    }
}

#[inline(always)]
unsafe fn standardise<V: Vector>(
    from: &[f16],
    rates: &[f32],
    offsets: &[f32],
    [mean, rate]: TokenMoments,
    to: &mut [f32],
) where
    f16: Lanes<V>,
{
    let count = from.len();
    // SAFETY: all places are within the slices.
    unsafe {
        for i in (0..count).step_by(V::LANES) {
            let rates = V::load_some(rates.as_ptr().add(i), count - i, 0.0);
            let offsets = V::load_some(offsets.as_ptr().add(i), count - i, 0.0);
            let scaled = load::<V>(from, i).mul_add(rates, offsets);
            scaled.sub(V::splat(mean)).mul(V::splat(rate)).store_some(to.as_mut_ptr().add(i), count - i);
        }
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
