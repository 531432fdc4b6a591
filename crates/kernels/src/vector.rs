//! A register of 32-bit floats, so that one microkernel is written for all instruction sets.

/// `LANES` floats in one register.
///
/// # Safety
/// The methods compile to instructions of their instruction set: call them only on a processor that has it,
/// from a function compiled for it. Pointers must be valid for `LANES` floats; no alignment is needed.
pub(crate) trait Vector: Copy {
    const LANES: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn sqrt(self) -> Self;
    /// Where this is below 0 `negative`, else `other`.
    unsafe fn choose(self, negative: Self, other: Self) -> Self;
    /// To the nearest integer.
    unsafe fn round(self) -> Self;
    /// 2ⁿ of integers n from −126 to 127.
    unsafe fn power_of_two(self) -> Self;
    /// `self × factor + addend`, rounded once where the instruction set fuses.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// Sum of the lanes, in a fixed order.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lanes = [0.0; MOST_LANES];
        // SAFETY: the array has room for the lanes.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut half = Self::LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The largest lane, if none is NaN.
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let mut lanes = [0.0; MOST_LANES];
        // SAFETY: the array has room for the lanes.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut half = Self::LANES / 2;
        while half > 0 {
            for lane in 0..half {
                // Unlike `f32::max` one instruction.
                lanes[lane] = if lanes[lane] > lanes[lane + half] { lanes[lane] } else { lanes[lane + half] };
            }
            half /= 2;
        }
        lanes[0]
    }

    /// 1 / self to 1 unit in the last place, of finite numbers whose reciprocals are normal.
    #[inline(always)]
    unsafe fn reciprocal(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self::splat(1.0).div(self) }
    }

    /// Exchanges rows and columns of `LANES` rows of `LANES` floats, which begin `from_step` apart, and leaves the result
    /// in rows `to_step` apart.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        for row in 0..Self::LANES {
            for column in 0..Self::LANES {
                // SAFETY: the caller vouches for both squares.
                unsafe { to.add(column * to_step + row).write(from.add(row * from_step + column).read()) }
            }
        }
    }

    /// The first of `count` floats, as many as there are lanes, and `rest` where there are fewer.
    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize, rest: f32) -> Self {
        // SAFETY: the caller vouches for `count` floats.
        unsafe { if count >= Self::LANES { Self::load(from) } else { Self::load_part(from, count, rest) } }
    }

    /// Stores the lanes, or the first `count` where there are fewer.
    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, count: usize) {
        // SAFETY: as for `load_some`.
        unsafe { if count >= Self::LANES { self.store(to) } else { self.store_part(to, count) } }
    }

    /// Asks for the cache line at `from`, to be read or written soon. Any address will do.
    #[inline(always)]
    fn prefetch(from: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, which reads nothing and never faults; every x86-64 processor has it.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(from.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = from;
    }

    /// `count` floats, fewer than `LANES`, and `rest` in the other lanes.
    unsafe fn load_part(from: *const f32, count: usize, rest: f32) -> Self;
    /// Stores the first `count` lanes, fewer than `LANES`.
    unsafe fn store_part(self, to: *mut f32, count: usize);
}

/// Lanes of the widest register.
pub(crate) const MOST_LANES: usize = 16;

/// Defines `$name(isa, …)`, which calls `$generic::<V>(…)` compiled for `isa`.
///
/// The function is unsafe: the processor must have `isa`, and `$generic`'s contract is the caller's.
macro_rules! for_each_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident = $generic:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)?) => {
        $(#[$doc])*
        $vis unsafe fn $name(isa: $crate::Isa, $($argument: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            unsafe fn avx512($($argument: $kind),*) $(-> $result)? {
                // SAFETY: the caller's contract, and this function is compiled for the instruction set.
                unsafe { $generic::<$crate::vector::Zmm>($($argument),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2($($argument: $kind),*) $(-> $result)? {
                // SAFETY: the caller's contract, and this function is compiled for the instruction set.
                unsafe { $generic::<$crate::vector::Ymm>($($argument),*) }
            }
            // SAFETY: the caller's contract.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    $crate::Isa::Avx512 => avx512($($argument),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::Isa::Avx2 => avx2($($argument),*),
                    _ => $generic::<$crate::vector::Floats4>($($argument),*),
                }
            }
        }
    };
}

/// Defines `$name(…)`, which calls `$generic::<V>(…)` compiled for AVX512-BF16; where the target has no such thing it is never
/// called.
///
/// The function is unsafe: the processor must have these instructions, and `$generic`'s contract is the caller's.
macro_rules! for_avx512_bf16 {
    ($(#[$doc:meta])* fn $name:ident = $generic:ident($($argument:ident: $kind:ty),*)) => {
        $(#[$doc])*
        #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f,avx512bf16"))]
        unsafe fn $name($($argument: $kind),*) {
            #[cfg(target_arch = "x86_64")]
            use $crate::vector::Zmm as Widest;
            #[cfg(not(target_arch = "x86_64"))]
            use $crate::vector::Floats4 as Widest;
            // SAFETY: the caller's contract, and this function is compiled for the instruction set.
            unsafe { $generic::<Widest>($($argument),*) }
        }
    };
}

pub(crate) use for_avx512_bf16;
pub(crate) use for_each_isa;

/// The portable register: four floats in an array.
#[derive(Clone, Copy)]
pub(crate) struct Floats4(pub(crate) [f32; 4]);

impl Vector for Floats4 {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller passes a pointer to four floats; an array of them has a float's alignment.
        Self(unsafe { from.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as for `load`.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] - other.0[lane]))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * other.0[lane]))
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] / other.0[lane]))
    }

    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize, rest: f32) -> Self {
        // SAFETY: the caller vouches for `count` floats.
        Self(std::array::from_fn(|lane| if lane < count { unsafe { from.add(lane).read() } } else { rest }))
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        for (lane, value) in self.0.into_iter().enumerate().take(count) {
            // SAFETY: as for `load_part`.
            unsafe { to.add(lane).write(value) }
        }
    }

    #[inline(always)]
    unsafe fn choose(self, negative: Self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| if self.0[lane] < 0.0 { negative.0[lane] } else { other.0[lane] }))
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Beyond 1.5 × 2²³ floats have no places after the point.
        const SHIFT: f32 = 12_582_912.0;
        Self(self.0.map(|lane| (lane + SHIFT) - SHIFT))
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        Self(self.0.map(|lane| f32::from_bits(((lane as i32 + 127) as u32) << 23)))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| if self.0[lane] > other.0[lane] { self.0[lane] } else { other.0[lane] }))
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // Not `f32::mul_add`, which is a library call where the target has no fused instruction.
        Self(std::array::from_fn(|lane| self.0[lane] * factor.0[lane] + addend.0[lane]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;

    macro_rules! register {
        ($name:ident, $register:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $max:ident, $sqrt:ident, $fma:ident, $load_part:expr, $store_part:expr, $choose:expr, $round:expr, $power:expr $(, $own:item)*) => {
            #[derive(Clone, Copy)]
            pub(crate) struct $name(pub(crate) $register);

            impl Vector for $name {
                const LANES: usize = $lanes;

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $splat(value) })
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $load(from) })
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: the trait's contract.
                    unsafe { $store(to, self.0) }
                }

                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $add(self.0, other.0) })
                }

                #[inline(always)]
                unsafe fn sub(self, other: Self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $sub(self.0, other.0) })
                }

                #[inline(always)]
                unsafe fn mul(self, other: Self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $mul(self.0, other.0) })
                }

                #[inline(always)]
                unsafe fn div(self, other: Self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $div(self.0, other.0) })
                }

                #[inline(always)]
                unsafe fn max(self, other: Self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $max(self.0, other.0) })
                }

                #[inline(always)]
                unsafe fn sqrt(self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $sqrt(self.0) })
                }

                #[inline(always)]
                unsafe fn load_part(from: *const f32, count: usize, rest: f32) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $load_part(from, count, $splat(rest)) })
                }

                #[inline(always)]
                unsafe fn store_part(self, to: *mut f32, count: usize) {
                    // SAFETY: the trait's contract.
                    unsafe { $store_part(to, count, self.0) }
                }

                #[inline(always)]
                unsafe fn choose(self, negative: Self, other: Self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $choose(self.0, negative.0, other.0) })
                }

                #[inline(always)]
                unsafe fn round(self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $round(self.0) })
                }

                #[inline(always)]
                unsafe fn power_of_two(self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $power(self.0) })
                }

                #[inline(always)]
                unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $fma(self.0, factor.0, addend.0) })
                }

                $($own)*
            }
        };
    }

    /// A bit for each of the first `count` lanes.
    #[inline(always)]
    const fn first_lanes(count: usize) -> __mmask16 {
        (1 << count) - 1
    }

    /// All bits of each of the first `count` lanes.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn first_eight_lanes(count: usize) -> __m256i {
        // SAFETY: the caller's contract.
        unsafe {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
        }
    }

    register!(
        Zmm,
        __m512,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_div_ps,
        _mm512_max_ps,
        _mm512_sqrt_ps,
        _mm512_fmadd_ps,
        |from, count, rest| _mm512_mask_loadu_ps(rest, first_lanes(count), from),
        |to, count, values| _mm512_mask_storeu_ps(to, first_lanes(count), values),
        |x, negative, other| {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, _mm512_setzero_ps()), other, negative)
        },
        |x| _mm512_roundscale_ps::<0>(x),
        |x| _mm512_scalef_ps(_mm512_set1_ps(1.0), x),
        #[inline(always)]
        unsafe fn reciprocal(self) -> Self {
            // SAFETY: the trait's contract.
            unsafe {
                // 14 bits, and twice as many by one of Newton's steps: a division takes as long as 16 multiplications.
                let rough = _mm512_rcp14_ps(self.0);
                let missing = _mm512_fnmadd_ps(self.0, rough, _mm512_set1_ps(1.0));
                Self(_mm512_fmadd_ps(rough, missing, rough))
            }
        },
        #[inline(always)]
        unsafe fn transpose(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
            // SAFETY: the trait's contract.
            unsafe { transpose_16(from, from_step, to, to_step) }
        }
    );

    /// Pairs of rows become pairs of columns, then fours, then blocks of four.
    ///
    /// # Safety
    /// The processor must have AVX-512, and both squares must be valid.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn transpose_16(from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: the caller's contract.
        let rows: [__m512; 16] = std::array::from_fn(|row| unsafe { _mm512_loadu_ps(from.add(row * from_step)) });
        let twos: [__m512; 16] = std::array::from_fn(|i| {
            let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
            if i % 2 == 0 { _mm512_unpacklo_ps(a, b) } else { _mm512_unpackhi_ps(a, b) }
        });
        // Row i of four holds columns i, i + 4, i + 8 and i + 12, of four rows each.
        let fours: [__m512; 16] = std::array::from_fn(|i| {
            let pair = i / 4 * 4 + i % 4 / 2;
            let (a, b) = (_mm512_castps_pd(twos[pair]), _mm512_castps_pd(twos[pair + 2]));
            _mm512_castpd_ps(if i % 2 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) })
        });
        for column in 0..4 {
            let [a, b, c, d] = [0, 4, 8, 12].map(|block| fours[block + column]);
            let (low_even, low_odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            let (high_even, high_odd) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
            let columns = [
                _mm512_shuffle_f32x4::<0x88>(low_even, high_even),
                _mm512_shuffle_f32x4::<0x88>(low_odd, high_odd),
                _mm512_shuffle_f32x4::<0xdd>(low_even, high_even),
                _mm512_shuffle_f32x4::<0xdd>(low_odd, high_odd),
            ];
            for (block, values) in columns.into_iter().enumerate() {
                // SAFETY: the caller's contract.
                unsafe { _mm512_storeu_ps(to.add((4 * block + column) * to_step), values) }
            }
        }
    }

    register!(
        Ymm,
        __m256,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_div_ps,
        _mm256_max_ps,
        _mm256_sqrt_ps,
        _mm256_fmadd_ps,
        |from, count, rest| {
            let mask = first_eight_lanes(count);
            _mm256_blendv_ps(rest, _mm256_maskload_ps(from, mask), _mm256_castsi256_ps(mask))
        },
        |to, count, values| _mm256_maskstore_ps(to, first_eight_lanes(count), values),
        |x, negative, other| { _mm256_blendv_ps(other, negative, _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_setzero_ps())) },
        |x| _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x),
        |x| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(
            _mm256_cvtps_epi32(x),
            _mm256_set1_epi32(127)
        )))
    );
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Ymm, Zmm};
