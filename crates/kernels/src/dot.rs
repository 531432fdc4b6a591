//! A register of 32-bit sums to which products of 8-bit integers are added, four neighbours at a time.
//!
//! All instruction sets compute the same integers and the same floats of them, so that what is quantised does not depend
//! on the processor.

/// `LANES` sums in one register, and what becomes of them.
///
/// # Safety
/// As for [`crate::vector::Vector`]: the processor must have the instruction set, and pointers be valid for `LANES`
/// elements; weights for 4 × `LANES`. No alignment is needed.
pub(crate) trait DotVector: Copy {
    const LANES: usize;
    /// As many weights as are loaded at a time: `LANES` times four neighbours.
    type Weights: Copy;
    /// As many activations: four neighbours in every lane.
    type Quad: Copy;
    /// As many floats as there are sums.
    type Floats: Copy;

    unsafe fn zero() -> Self;
    unsafe fn load_weights(from: *const i8) -> Self::Weights;
    unsafe fn splat_quad(from: *const u8) -> Self::Quad;
    /// `self + Σ activation × weight` over the four of each lane, exactly.
    unsafe fn add_products(self, activations: Self::Quad, weights: Self::Weights) -> Self;
    /// `sum × factor + addend`, rounded after each.
    unsafe fn scaled(self, factor: *const f32, addend: *const f32) -> Self::Floats;
    unsafe fn add(floats: Self::Floats, other: *const f32) -> Self::Floats;
    unsafe fn relu(floats: Self::Floats) -> Self::Floats;
    unsafe fn store(floats: Self::Floats, to: *mut f32);
    /// Stores `float × factor` rounded to the nearest integer, halves to the even one, between 0 and 255.
    unsafe fn store_quantised(floats: Self::Floats, factor: *const f32, to: *mut u8);
}

/// The portable register: four sums in an array.
#[derive(Clone, Copy)]
pub(crate) struct Sums4([i32; 4]);

impl DotVector for Sums4 {
    const LANES: usize = 4;
    type Weights = [i8; 16];
    type Quad = [u8; 4];
    type Floats = [f32; 4];

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0; 4])
    }

    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> [i8; 16] {
        // SAFETY: the trait's contract; an array of bytes has no alignment.
        unsafe { from.cast::<[i8; 16]>().read() }
    }

    #[inline(always)]
    unsafe fn splat_quad(from: *const u8) -> [u8; 4] {
        // SAFETY: as for `load_weights`.
        unsafe { from.cast::<[u8; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn add_products(self, activations: [u8; 4], weights: [i8; 16]) -> Self {
        Self(std::array::from_fn(|lane| {
            let products = (0..4).map(|i| i32::from(activations[i]) * i32::from(weights[lane * 4 + i]));
            self.0[lane] + products.sum::<i32>()
        }))
    }

    #[inline(always)]
    unsafe fn scaled(self, factor: *const f32, addend: *const f32) -> [f32; 4] {
        // SAFETY: the trait's contract.
        std::array::from_fn(|lane| unsafe { self.0[lane] as f32 * *factor.add(lane) + *addend.add(lane) })
    }

    #[inline(always)]
    unsafe fn add(floats: [f32; 4], other: *const f32) -> [f32; 4] {
        // SAFETY: the trait's contract.
        std::array::from_fn(|lane| unsafe { floats[lane] + *other.add(lane) })
    }

    #[inline(always)]
    unsafe fn relu(floats: [f32; 4]) -> [f32; 4] {
        floats.map(|value| value.max(0.0))
    }

    #[inline(always)]
    unsafe fn store(floats: [f32; 4], to: *mut f32) {
        // SAFETY: the trait's contract; an array of floats has a float's alignment.
        unsafe { to.cast::<[f32; 4]>().write(floats) }
    }

    #[inline(always)]
    unsafe fn store_quantised(floats: [f32; 4], factor: *const f32, to: *mut u8) {
        for (lane, value) in floats.into_iter().enumerate() {
            // SAFETY: the trait's contract.
            unsafe { *to.add(lane) = (value * *factor.add(lane)).clamp(0.0, 255.0).round_ties_even() as u8 };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::DotVector;

    /// 16 sums by AVX512-VNNI.
    #[derive(Clone, Copy)]
    pub(crate) struct ZmmSums(__m512i);

    impl DotVector for ZmmSums {
        const LANES: usize = 16;
        type Weights = __m512i;
        type Quad = __m512i;
        type Floats = __m512;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the trait's contract, here and in all that follows.
            Self(unsafe { _mm512_setzero_si512() })
        }

        #[inline(always)]
        unsafe fn load_weights(from: *const i8) -> __m512i {
            // SAFETY: see `zero`.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        #[inline(always)]
        unsafe fn splat_quad(from: *const u8) -> __m512i {
            // SAFETY: see `zero`.
            unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn add_products(self, activations: __m512i, weights: __m512i) -> Self {
            // SAFETY: see `zero`.
            Self(unsafe { _mm512_dpbusd_epi32(self.0, activations, weights) })
        }

        #[inline(always)]
        unsafe fn scaled(self, factor: *const f32, addend: *const f32) -> __m512 {
            // SAFETY: see `zero`.
            unsafe {
                let product = _mm512_mul_ps(_mm512_cvtepi32_ps(self.0), _mm512_loadu_ps(factor));
                _mm512_add_ps(product, _mm512_loadu_ps(addend))
            }
        }

        #[inline(always)]
        unsafe fn add(floats: __m512, other: *const f32) -> __m512 {
            // SAFETY: see `zero`.
            unsafe { _mm512_add_ps(floats, _mm512_loadu_ps(other)) }
        }

        #[inline(always)]
        unsafe fn relu(floats: __m512) -> __m512 {
            // SAFETY: see `zero`.
            unsafe { _mm512_max_ps(floats, _mm512_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn store(floats: __m512, to: *mut f32) {
            // SAFETY: see `zero`.
            unsafe { _mm512_storeu_ps(to, floats) }
        }

        #[inline(always)]
        unsafe fn store_quantised(floats: __m512, factor: *const f32, to: *mut u8) {
            // SAFETY: see `zero`.
            unsafe {
                let value = _mm512_mul_ps(floats, _mm512_loadu_ps(factor));
                let value = _mm512_min_ps(_mm512_max_ps(value, _mm512_setzero_ps()), _mm512_set1_ps(255.0));
                _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(value)));
            }
        }
    }

    /// 8 sums by AVX2, whose only product of bytes saturates: even and odd neighbours are widened and multiplied apart.
    #[derive(Clone, Copy)]
    pub(crate) struct YmmSums(__m256i);

    impl DotVector for YmmSums {
        const LANES: usize = 8;
        /// The even ones and the odd ones, in 16 bits each.
        type Weights = [__m256i; 2];
        type Quad = [__m256i; 2];
        type Floats = __m256;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the trait's contract, here and in all that follows.
            Self(unsafe { _mm256_setzero_si256() })
        }

        #[inline(always)]
        unsafe fn load_weights(from: *const i8) -> [__m256i; 2] {
            // SAFETY: see `zero`.
            unsafe {
                let bytes = _mm256_loadu_si256(from.cast());
                [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
            }
        }

        #[inline(always)]
        unsafe fn splat_quad(from: *const u8) -> [__m256i; 2] {
            // SAFETY: see `zero`.
            unsafe {
                let bytes = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
                [_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(bytes)]
            }
        }

        #[inline(always)]
        unsafe fn add_products(self, activations: [__m256i; 2], weights: [__m256i; 2]) -> Self {
            // SAFETY: see `zero`.
            unsafe {
                let even = _mm256_madd_epi16(activations[0], weights[0]);
                let odd = _mm256_madd_epi16(activations[1], weights[1]);
                Self(_mm256_add_epi32(self.0, _mm256_add_epi32(even, odd)))
            }
        }

        #[inline(always)]
        unsafe fn scaled(self, factor: *const f32, addend: *const f32) -> __m256 {
            // SAFETY: see `zero`.
            unsafe {
                let product = _mm256_mul_ps(_mm256_cvtepi32_ps(self.0), _mm256_loadu_ps(factor));
                _mm256_add_ps(product, _mm256_loadu_ps(addend))
            }
        }

        #[inline(always)]
        unsafe fn add(floats: __m256, other: *const f32) -> __m256 {
            // SAFETY: see `zero`.
            unsafe { _mm256_add_ps(floats, _mm256_loadu_ps(other)) }
        }

        #[inline(always)]
        unsafe fn relu(floats: __m256) -> __m256 {
            // SAFETY: see `zero`.
            unsafe { _mm256_max_ps(floats, _mm256_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn store(floats: __m256, to: *mut f32) {
            // SAFETY: see `zero`.
            unsafe { _mm256_storeu_ps(to, floats) }
        }

        #[inline(always)]
        unsafe fn store_quantised(floats: __m256, factor: *const f32, to: *mut u8) {
            // SAFETY: see `zero`.
            unsafe {
                let value = _mm256_mul_ps(floats, _mm256_loadu_ps(factor));
                let value = _mm256_min_ps(_mm256_max_ps(value, _mm256_setzero_ps()), _mm256_set1_ps(255.0));
                let integers = _mm256_cvtps_epi32(value);
                let halves = [_mm256_castsi256_si128(integers), _mm256_extracti128_si256::<1>(integers)];
                let words = _mm_packus_epi32(halves[0], halves[1]);
                _mm_storel_epi64(to.cast(), _mm_packus_epi16(words, words));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{YmmSums, ZmmSums};
