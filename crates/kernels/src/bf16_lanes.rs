//! bfloat16 in registers: two neighbours in every 32-bit lane. AVX512-BF16 multiplies and sums both; elsewhere each is
//! widened to a 32-bit float, whose product is exact.

use half::bf16;

use crate::{
    element::{Element, Lanes, Products},
    vector::{Floats4, Vector},
};

/// Stores two registers of 32-bit floats as pairs.
///
/// # Safety
/// As for [`Vector`].
pub(crate) trait StorePairs<V: Vector>: Sized {
    /// Stores every lane of `first` beside that of `second`, both rounded.
    unsafe fn store_pairs(first: V, second: V, to: *mut Self);
}

/// On x86-64 pairs are stored for AVX512-BF16 alone; elsewhere this stands in for it, and is never called.
impl StorePairs<Floats4> for bf16 {
    #[inline(always)]
    unsafe fn store_pairs(first: Floats4, second: Floats4, to: *mut Self) {
        let pair = |lane: usize| [first.0[lane], second.0[lane]].map(<Self as Element>::round);
        // SAFETY: the trait's contract; an array of elements has their alignment.
        unsafe { to.cast::<[[Self; 2]; 4]>().write(std::array::from_fn(pair)) }
    }
}

impl Lanes<Floats4> for bf16 {
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

impl Products<Floats4> for bf16 {
    const GROUP: usize = 2;
    type Groups = [Floats4; 2];

    #[inline(always)]
    unsafe fn load_groups(from: *const Self) -> [Floats4; 2] {
        // SAFETY: the trait's contract.
        let pairs = unsafe { from.cast::<[[Self; 2]; 4]>().read() };
        [0, 1].map(|i| Floats4(pairs.map(|pair| pair[i].to_f32())))
    }

    #[inline(always)]
    unsafe fn splat_group(from: *const Self) -> [Floats4; 2] {
        // SAFETY: the trait's contract.
        unsafe { [from.read(), from.add(1).read()] }.map(|value| Floats4([value.to_f32(); 4]))
    }

    #[inline(always)]
    unsafe fn add_products(sums: Floats4, values: [Floats4; 2], weights: [Floats4; 2]) -> Floats4 {
        // SAFETY: the trait's contract.
        unsafe { values[1].mul_add(weights[1], values[0].mul_add(weights[0], sums)) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, mem::transmute};

    use super::{Lanes, Products, StorePairs, Vector, bf16};
    use crate::vector::{Ymm, Zmm};

    impl StorePairs<Zmm> for bf16 {
        #[inline(always)]
        unsafe fn store_pairs(first: Zmm, second: Zmm, to: *mut Self) {
            // SAFETY: the trait's contract, here and in all that follows. Both types are 256 bits of bfloat16.
            unsafe {
                let [first, second] = [first, second]
                    .map(|row| _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(row.0))));
                _mm512_storeu_si512(to.cast(), _mm512_or_si512(first, _mm512_slli_epi32::<16>(second)));
            }
        }
    }

    /// Floats rounded to bfloat16, in the upper half of every lane.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn rounded_bits(values: Ymm) -> __m256i {
        // SAFETY: this function's contract.
        unsafe {
            let bits = _mm256_castps_si256(values.0);
            // To the nearest, halves to the even one; a NaN stays one.
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(values.0, values.0));
            _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7FC0_0000), nan)
        }
    }

    impl Lanes<Zmm> for bf16 {
        #[inline(always)]
        unsafe fn load(from: *const Self) -> Zmm {
            // SAFETY: the trait's contract, here and in all that follows.
            unsafe {
                let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                Zmm(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves)))
            }
        }

        #[inline(always)]
        unsafe fn store(values: Zmm, to: *mut Self) {
            // SAFETY: see `load`. Both types are 256 bits of bfloat16.
            unsafe { _mm256_storeu_si256(to.cast(), transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values.0))) }
        }
    }

    impl Products<Zmm> for bf16 {
        const GROUP: usize = 2;
        type Groups = __m512bh;

        #[inline(always)]
        unsafe fn load_groups(from: *const Self) -> __m512bh {
            // SAFETY: see `load`. Both types are 512 bits.
            unsafe { transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())) }
        }

        #[inline(always)]
        unsafe fn splat_group(from: *const Self) -> __m512bh {
            // SAFETY: see `load_groups`.
            unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(from.cast::<i32>().read_unaligned())) }
        }

        #[inline(always)]
        unsafe fn add_products(sums: Zmm, values: __m512bh, weights: __m512bh) -> Zmm {
            // SAFETY: see `load`.
            Zmm(unsafe { _mm512_dpbf16_ps(sums.0, values, weights) })
        }
    }

    /// The lower and the upper neighbour of every lane, widened.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn widen_pairs(pairs: __m256i) -> [Ymm; 2] {
        // SAFETY: this function's contract.
        unsafe {
            let upper = _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed()));
            [_mm256_slli_epi32::<16>(pairs), upper].map(|bits| Ymm(_mm256_castsi256_ps(bits)))
        }
    }

    impl Lanes<Ymm> for bf16 {
        #[inline(always)]
        unsafe fn load(from: *const Self) -> Ymm {
            // SAFETY: see above.
            unsafe {
                let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                Ymm(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves)))
            }
        }

        #[inline(always)]
        unsafe fn store(values: Ymm, to: *mut Self) {
            // SAFETY: see above.
            unsafe {
                let halves = _mm256_srli_epi32::<16>(rounded_bits(values));
                let packed = _mm256_permute4x64_epi64::<0b10_00>(_mm256_packus_epi32(halves, halves));
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(packed));
            }
        }
    }

    impl Products<Ymm> for bf16 {
        const GROUP: usize = 2;
        type Groups = [Ymm; 2];

        #[inline(always)]
        unsafe fn load_groups(from: *const Self) -> [Ymm; 2] {
            // SAFETY: see above.
            unsafe { widen_pairs(_mm256_loadu_si256(from.cast())) }
        }

        #[inline(always)]
        unsafe fn splat_group(from: *const Self) -> [Ymm; 2] {
            // SAFETY: see above.
            unsafe { widen_pairs(_mm256_set1_epi32(from.cast::<i32>().read_unaligned())) }
        }

        #[inline(always)]
        unsafe fn add_products(sums: Ymm, values: [Ymm; 2], weights: [Ymm; 2]) -> Ymm {
            // SAFETY: see above.
            unsafe { values[1].mul_add(weights[1], values[0].mul_add(weights[0], sums)) }
        }
    }
}
