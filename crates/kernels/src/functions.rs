//! Functions of 32-bit floats, a register at a time.

use crate::vector::Vector;

/// eˣ of numbers not above 0, to 2 units in the last place; 0 below −87.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2, and a polynomial for eʳ (coefficients of Cephes' `expf`,
/// <https://www.netlib.org/cephes/>).
///
/// # Safety
/// As for [`Vector`].
#[inline(always)]
pub(crate) unsafe fn exp_of_negative<V: Vector>(x: V) -> V {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    // SAFETY: the caller's contract.
    unsafe {
        let x = x.max(V::splat(-87.0));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(V::splat(-LN_2_LOW), n.mul_add(V::splat(-LN_2_HIGH), x));
        let mut series = V::splat(COEFFICIENTS[0]);
        for coefficient in &COEFFICIENTS[1..] {
            series = series.mul_add(r, V::splat(*coefficient));
        }
        let power = series.mul_add(r.mul(r), r.add(V::splat(1.0)));
        power.mul(n.power_of_two())
    }
}

/// Of the standard normal distribution, at x: the cumulative function Φ(x) and the density φ(x).
///
/// Φ by Abramowitz & Stegun 1964, formula 7.1.26 (erf to 1.5·10⁻⁷), whose exponential is the density's.
///
/// # Safety
/// As for [`Vector`].
#[inline(always)]
pub(crate) unsafe fn normal_distribution<V: Vector>(x: V) -> (V, V) {
    const P: f32 = 0.327_591_1;
    const COEFFICIENTS: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6];
    const DENSITY_AT_0: f32 = 0.398_942_3;
    // SAFETY: the caller's contract.
    unsafe {
        let zero = V::splat(0.0);
        let size = x.max(zero.sub(x));
        let exponential = exp_of_negative(x.mul(x).mul(V::splat(-0.5)));
        let t = size.mul_add(V::splat(P * std::f32::consts::FRAC_1_SQRT_2), V::splat(1.0)).reciprocal();
        let mut series = V::splat(COEFFICIENTS[0]);
        for coefficient in &COEFFICIENTS[1..] {
            series = series.mul_add(t, V::splat(*coefficient));
        }
        let tail = series.mul(t).mul(exponential).mul(V::splat(0.5)); // Φ(−|x|)
        let cumulative = x.choose(tail, V::splat(1.0).sub(tail));
        (cumulative, exponential.mul(V::splat(DENSITY_AT_0)))
    }
}
