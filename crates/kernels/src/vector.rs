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
    unsafe fn max(self, other: Self) -> Self;
    /// `self × factor + addend`, rounded once where the instruction set fuses.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
}

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
        ($name:ident, $register:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $max:ident, $fma:ident) => {
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
                unsafe fn max(self, other: Self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $max(self.0, other.0) })
                }

                #[inline(always)]
                unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
                    // SAFETY: the trait's contract.
                    Self(unsafe { $fma(self.0, factor.0, addend.0) })
                }
            }
        };
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
        _mm512_max_ps,
        _mm512_fmadd_ps
    );
    register!(
        Ymm,
        __m256,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_max_ps,
        _mm256_fmadd_ps
    );
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Ymm, Zmm};
