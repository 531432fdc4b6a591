//! What activations and weights are stored as: 32-bit floats or bfloat16. Sums are 32-bit floats in any case.

use std::fmt::Debug;

use bytemuck::Pod;
use half::bf16;

use crate::{
    Algorithm, Isa,
    tile::{TileFn, bf16_block_channels, bf16_tile_fn, block_channels, tile_fn},
    vector::Vector,
    winograd::{Transforms, bf16_transforms, transforms},
};

/// What activations and weights are stored as and multiplied in.
pub trait Element: Pod + Kernels + Debug + Send + Sync {
    /// The Winograd algorithm with the fewest multiplications whose rounding errors a deep network bears. Simulated on real
    /// images in bfloat16, relative error of ResNet-18's last feature map: direct 1.0%, F(2×2, 3×3) 1.2%, F(4×4, 3×3) 3.6%.
    const WINOGRAD: Algorithm;

    /// Rounds to the nearest.
    fn round(value: f32) -> Self;

    /// `row` in 32-bit floats: itself, or widened into the beginning of `memory`.
    fn floats<'a>(row: &'a [Self], memory: &'a mut [f32]) -> &'a [f32];

    /// Has `write` fill floats, as many as `row` is long, which are rounded into `row`: they are `row` itself, or lie in the
    /// beginning of `memory` meanwhile.
    fn fill(row: &mut [Self], memory: &mut [f32], write: impl FnOnce(&mut [f32]));
}

/// The kernels of an element.
pub trait Kernels: Sized {
    /// Neighbouring input channels that one instruction multiplies and sums.
    const GROUP: usize;

    /// Output channels per tile.
    fn block_channels(isa: Isa) -> usize;
    /// The tile that stores elements.
    fn tile(isa: Isa, input_step: usize) -> TileFn<Self, Self>;
    /// The tile that stores sums as they are.
    fn sums_tile(isa: Isa, input_step: usize) -> TileFn<Self, f32>;
    /// Winograd's transforms for tiles of m×m.
    fn transforms(isa: Isa, m: usize) -> Transforms<Self>;
}

/// An element that registers of kind `V` are loaded from and stored to.
///
/// # Safety
/// As for [`Vector`].
pub(crate) trait Lanes<V>: Copy {
    /// `V::LANES` elements, widened.
    unsafe fn load(from: *const Self) -> V;
    /// Stores them rounded.
    unsafe fn store(values: V, to: *mut Self);
}

/// An element that registers of kind `V` multiply.
///
/// # Safety
/// As for [`Vector`].
pub(crate) trait Products<V: Vector>: Lanes<V> {
    /// Neighbours that are multiplied and summed in one lane.
    const GROUP: usize;
    /// `GROUP` neighbours in every lane.
    type Groups: Copy;

    /// `V::LANES` groups.
    unsafe fn load_groups(from: *const Self) -> Self::Groups;
    /// The same group in every lane.
    unsafe fn splat_group(from: *const Self) -> Self::Groups;
    /// `sums + Σ value × weight` over the neighbours of each lane.
    unsafe fn add_products(sums: V, values: Self::Groups, weights: Self::Groups) -> V;
}

impl Element for f32 {
    const WINOGRAD: Algorithm = Algorithm::Winograd4;

    fn round(value: f32) -> Self {
        value
    }

    fn floats<'a>(row: &'a [Self], _: &'a mut [f32]) -> &'a [f32] {
        row
    }

    fn fill(row: &mut [Self], _: &mut [f32], write: impl FnOnce(&mut [f32])) {
        write(row);
    }
}

impl Kernels for f32 {
    const GROUP: usize = 1;

    fn block_channels(isa: Isa) -> usize {
        block_channels(isa)
    }

    fn tile(isa: Isa, input_step: usize) -> TileFn<Self, Self> {
        tile_fn(isa, input_step)
    }

    fn sums_tile(isa: Isa, input_step: usize) -> TileFn<Self, f32> {
        tile_fn(isa, input_step)
    }

    fn transforms(isa: Isa, m: usize) -> Transforms<Self> {
        transforms(isa, m)
    }
}

impl<V: Vector> Lanes<V> for f32 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> V {
        // SAFETY: the trait's contract.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn store(values: V, to: *mut Self) {
        // SAFETY: the trait's contract.
        unsafe { values.store(to) }
    }
}

impl<V: Vector> Products<V> for f32 {
    const GROUP: usize = 1;
    type Groups = V;

    #[inline(always)]
    unsafe fn load_groups(from: *const Self) -> V {
        // SAFETY: the trait's contract.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn splat_group(from: *const Self) -> V {
        // SAFETY: the trait's contract.
        unsafe { V::splat(*from) }
    }

    #[inline(always)]
    unsafe fn add_products(sums: V, values: V, weights: V) -> V {
        // SAFETY: the trait's contract.
        unsafe { values.mul_add(weights, sums) }
    }
}

impl Element for bf16 {
    const WINOGRAD: Algorithm = Algorithm::Winograd2;

    /// As [`bf16::from_f32`], without branches, so that loops over it become vector instructions.
    fn round(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
        Self::from_bits(if value.is_nan() { 0x7FC0 } else { rounded as u16 })
    }

    fn floats<'a>(row: &'a [Self], memory: &'a mut [f32]) -> &'a [f32] {
        let memory = &mut memory[..row.len()];
        memory.iter_mut().zip(row).for_each(|(to, from)| *to = f32::from_bits(u32::from(from.to_bits()) << 16));
        memory
    }

    fn fill(row: &mut [Self], memory: &mut [f32], write: impl FnOnce(&mut [f32])) {
        let memory = &mut memory[..row.len()];
        write(memory);
        row.iter_mut().zip(memory).for_each(|(to, from)| *to = Self::round(*from));
    }
}

impl Kernels for bf16 {
    const GROUP: usize = 2;

    fn block_channels(isa: Isa) -> usize {
        bf16_block_channels(isa)
    }

    fn tile(isa: Isa, input_step: usize) -> TileFn<Self, Self> {
        bf16_tile_fn(isa, input_step)
    }

    fn sums_tile(isa: Isa, input_step: usize) -> TileFn<Self, f32> {
        bf16_tile_fn(isa, input_step)
    }

    fn transforms(isa: Isa, m: usize) -> Transforms<Self> {
        bf16_transforms(isa, m)
    }
}
