#[cfg(target_arch = "x86_64")]
use crate::vector::{Ymm, Zmm};
use crate::{
    Isa,
    vector::{Floats4, Vector},
};

/// Accumulators that do not wait for one another: enough to hide the latency of two multiply-adds per cycle.
const CHAINS: usize = 12;

/// Does `rounds` × 12 independent multiply-adds in registers, and tells how many floating-point operations that was:
/// the limit that no kernel of this instruction set can pass.
///
/// # Panics
/// If this processor does not have `isa`: running it would then be undefined.
pub fn multiply_add_in_registers(isa: Isa, rounds: usize) -> u64 {
    isa.assert_available();
    // SAFETY: the processor has the instruction set; nothing is read or written but registers and a local array.
    let lanes = unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => chains_avx512(rounds),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => chains_avx2(rounds),
            _ => chains::<Floats4>(rounds),
        }
    };
    2 * (lanes * CHAINS * rounds) as u64
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn chains_avx512(rounds: usize) -> usize {
    // SAFETY: the caller's contract, and this function is compiled for the instruction set.
    unsafe { chains::<Zmm>(rounds) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn chains_avx2(rounds: usize) -> usize {
    // SAFETY: the caller's contract, and this function is compiled for the instruction set.
    unsafe { chains::<Ymm>(rounds) }
}

/// # Safety
/// The processor must have `V`'s instructions.
#[inline(always)]
unsafe fn chains<V: Vector>(rounds: usize) -> usize {
    // SAFETY: the caller's contract; every store is to a local array of `V::LANES` floats at least.
    unsafe {
        let (factor, addend) = (V::splat(std::hint::black_box(0.999)), V::splat(std::hint::black_box(0.001)));
        let mut sums = [V::splat(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, addend);
            }
        }
        for sum in sums {
            let mut out = [0.0; 16];
            sum.store(out.as_mut_ptr());
            std::hint::black_box(out);
        }
    }
    V::LANES
}
