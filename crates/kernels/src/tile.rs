//! The register tile: 14 output pixels × `VECTORS` registers of output channels.
//!
//! Every side in ResNet-18 at 224 pixels (112, 56, 28, 14, 7) is a multiple of seven, so a tile is two
//! segments of seven neighbouring pixels; the second segment may lie in the next row or the next image.
//! In channels-last order the inputs of one kernel row are contiguous: `kernel × channels` values, from which
//! the inner loop broadcasts one value per pixel (two in bfloat16) and multiplies it with a row of the packed weights.
//! With two AVX-512 registers per pixel, 28 accumulators, two weights and one broadcast fill 31 of the 32
//! registers; 14 broadcasts and two loads feed 28 multiply-adds, so that the arithmetic is the limit. Where there are 16
//! registers, the pixels of a tile are computed a few at a time: a single accumulator that does not fit costs three
//! quarters of the speed, since each multiply-add then waits for memory.

use half::bf16;

#[cfg(target_arch = "x86_64")]
use crate::vector::{Ymm, Zmm};
use crate::{
    Isa,
    element::{Lanes, Products},
    vector::{Floats4, Vector},
};

/// Output pixels in a segment.
pub(crate) const SEGMENT: usize = 7;

/// Output pixels in a tile.
const PIXELS: usize = 2 * SEGMENT;

/// Where one tile reads elements and writes them or sums. Strides are in elements.
#[derive(Debug)]
pub struct Tile<E, O> {
    /// First input value of each segment's first pixel.
    pub input: [*const E; 2],
    /// Packed weights of this block of output channels: (kernel rows, run / group, block, group).
    pub weights: *const E,
    /// Bias of this block of output channels.
    pub bias: *const f32,
    /// Residual of each segment's first pixel, laid out as the output; null for none.
    pub residual: [*const O; 2],
    /// Output of each segment's first pixel.
    pub output: [*mut O; 2],
    /// Rows of the convolution kernel.
    pub kernel_rows: usize,
    /// Contiguous input values per kernel row: kernel columns × input channels.
    pub run: usize,
    /// From one input row to the next.
    pub input_row: usize,
    /// From one output pixel's input to the next: convolution stride × input channels.
    pub input_step: usize,
    /// From one residual pixel to the next.
    pub residual_step: usize,
    /// From one output pixel to the next: output channels.
    pub output_step: usize,
    /// Whether negative results become zero.
    pub relu: bool,
}

/// A tile function of one instruction set and one input step.
pub type TileFn<E, O> = unsafe fn(&Tile<E, O>);

/// Output channels per tile of floats for `isa`.
pub(crate) const fn block_channels(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 32,
        Isa::Avx2 => 16,
        Isa::Portable => 4,
    }
}

/// Steps that occur in ResNet-18 are compiled in as constants, which turns the addresses of all 14 pixels into
/// displacements; any other step is taken from the tile.
macro_rules! by_step {
    ($step:expr, $function:ident::<$($element:ty),*>) => {
        match $step {
            2 => $function::<$($element,)* 2>,
            6 => $function::<$($element,)* 6>,
            64 => $function::<$($element,)* 64>,
            128 => $function::<$($element,)* 128>,
            256 => $function::<$($element,)* 256>,
            512 => $function::<$($element,)* 512>,
            _ => $function::<$($element,)* 0>,
        }
    };
}

/// The tile function of floats for `isa`.
pub(crate) fn tile_fn(isa: Isa, input_step: usize) -> TileFn<f32, f32> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => by_step!(input_step, tile_avx512::<f32, f32>),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => by_step!(input_step, tile_avx2::<f32, f32>),
        _ => by_step!(input_step, tile_portable::<f32, f32>),
    }
}

/// The instruction set that bfloat16 is multiplied with: not every processor with AVX-512 has its dot products.
pub(crate) fn bf16_isa(isa: Isa) -> Isa {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && !is_x86_feature_detected!("avx512bf16") {
        return Isa::available().find(|other| *other != Isa::Avx512).unwrap_or(Isa::Portable);
    }
    isa
}

/// Output channels per tile of bfloat16 for `isa`.
pub(crate) fn bf16_block_channels(isa: Isa) -> usize {
    block_channels(bf16_isa(isa))
}

/// The tile function of bfloat16 for `isa`, which stores bfloat16 or sums.
#[cfg(target_arch = "x86_64")]
pub(crate) fn bf16_tile_fn<O>(isa: Isa, input_step: usize) -> TileFn<bf16, O>
where
    O: Lanes<Zmm> + Lanes<Ymm> + Lanes<Floats4>,
{
    match bf16_isa(isa) {
        Isa::Avx512 => by_step!(input_step, tile_avx512_bf16::<O>),
        Isa::Avx2 => by_step!(input_step, tile_avx2::<bf16, O>),
        Isa::Portable => by_step!(input_step, tile_portable::<bf16, O>),
    }
}

/// The tile function of bfloat16, which stores bfloat16 or sums.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn bf16_tile_fn<O: Lanes<Floats4>>(_: Isa, input_step: usize) -> TileFn<bf16, O> {
    by_step!(input_step, tile_portable::<bf16, O>)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn tile_avx512<E: Products<Zmm>, O: Lanes<Zmm>, const STEP: usize>(tile: &Tile<E, O>) {
    // SAFETY: the caller's contract, and this function is compiled for the instruction set.
    unsafe { compute::<Zmm, 2, E, O, STEP, 0, PIXELS>(tile) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile_avx512_bf16<O: Lanes<Zmm>, const STEP: usize>(tile: &Tile<bf16, O>) {
    // SAFETY: the caller's contract, and this function is compiled for the instruction set.
    unsafe { compute::<Zmm, 2, bf16, O, STEP, 0, PIXELS>(tile) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_avx2<E: Products<Ymm>, O: Lanes<Ymm>, const STEP: usize>(tile: &Tile<E, O>) {
    // SAFETY: the caller's contract, and this function is compiled for the instruction set.
    unsafe {
        if E::GROUP == 1 {
            // Ten accumulators, two weights, and broadcasts.
            compute::<Ymm, 2, E, O, STEP, 0, 5>(tile);
            compute::<Ymm, 2, E, O, STEP, 5, 10>(tile);
            compute::<Ymm, 2, E, O, STEP, 10, PIXELS>(tile);
        } else {
            // Eight, and twice as many weights.
            compute::<Ymm, 2, E, O, STEP, 0, 4>(tile);
            compute::<Ymm, 2, E, O, STEP, 4, 8>(tile);
            compute::<Ymm, 2, E, O, STEP, 8, 11>(tile);
            compute::<Ymm, 2, E, O, STEP, 11, PIXELS>(tile);
        }
    }
}

unsafe fn tile_portable<E: Products<Floats4>, O: Lanes<Floats4>, const STEP: usize>(tile: &Tile<E, O>) {
    // SAFETY: the caller's contract.
    unsafe {
        compute::<Floats4, 1, E, O, STEP, 0, SEGMENT>(tile);
        compute::<Floats4, 1, E, O, STEP, SEGMENT, PIXELS>(tile);
    }
}

/// Walks over the segments of all images, row by row. Counting is several divisions cheaper than computing each place,
/// which shows where a tile is as small as the grey stem's.
pub(crate) struct Places {
    side: usize,
    image: usize,
    y: usize,
    x: usize,
}

impl Places {
    pub(crate) const fn new(side: usize) -> Self {
        Self { side, image: 0, y: 0, x: 0 }
    }

    /// The image, row and column where the next segment begins.
    pub(crate) const fn next_segment(&mut self) -> (usize, usize, usize) {
        let place = (self.image, self.y, self.x);
        self.x += SEGMENT;
        if self.x == self.side {
            (self.x, self.y) = (0, self.y + 1);
        }
        if self.y == self.side {
            (self.y, self.image) = (0, self.image + 1);
        }
        place
    }
}

/// Repeats a block for every pixel of a tile, with its segment and its place there as constants.
///
/// Written out instead of looped over: accumulators in an array that is ever indexed by a variable live in memory,
/// and a store after each multiply-add then takes twice the time of the arithmetic.
macro_rules! for_each_pixel {
    ($segment:ident, $pixel:ident, $body:block) => {
        for_each_pixel!($segment, $pixel, $body, 0: 0 1 2 3 4 5 6);
        for_each_pixel!($segment, $pixel, $body, 1: 0 1 2 3 4 5 6);
    };
    ($segment:ident, $pixel:ident, $body:block, $s:literal: $($p:literal)*) => {
        $({
            const $segment: usize = $s;
            const $pixel: usize = $p;
            $body
        })*
    };
}

pub(crate) use for_each_pixel;

/// Computes the pixels of a tile from `FROM` on, up to `TO`.
///
/// # Safety
/// All pointers must be valid for the extents that the tile describes, and the processor must have `V`'s
/// instructions.
#[inline(always)]
unsafe fn compute<V, const VECTORS: usize, E, O, const STEP: usize, const FROM: usize, const TO: usize>(
    tile: &Tile<E, O>,
) where
    V: Vector,
    E: Products<V>,
    O: Lanes<V>,
{
    let step = if STEP == 0 { tile.input_step } else { STEP };
    // SAFETY: offsets stay within the extents that the caller vouches for: `run` values from each of the seven
    // pixels of both segments in each kernel row, and one block of channels per pixel in residual and output.
    unsafe {
        let bias: [V; VECTORS] = std::array::from_fn(|v| V::load(tile.bias.add(v * V::LANES)));
        let mut sums = [bias; PIXELS];
        let mut weights = tile.weights;
        for kernel_row in 0..tile.kernel_rows {
            let rows = tile.input.map(|start| start.add(kernel_row * tile.input_row));
            for i in (0..tile.run).step_by(E::GROUP) {
                let weight: [E::Groups; VECTORS] =
                    std::array::from_fn(|v| E::load_groups(weights.add(v * V::LANES * E::GROUP)));
                for_each_pixel!(S, PIXEL, {
                    if (FROM..TO).contains(&(S * SEGMENT + PIXEL)) {
                        let value = E::splat_group(rows[S].add(PIXEL * step + i));
                        for v in 0..VECTORS {
                            let sum = &mut sums[S * SEGMENT + PIXEL][v];
                            *sum = E::add_products(*sum, value, weight[v]);
                        }
                    }
                });
                weights = weights.add(VECTORS * V::LANES * E::GROUP);
            }
        }
        let zero = V::splat(0.0);
        for_each_pixel!(S, PIXEL, {
            let is_part = (FROM..TO).contains(&(S * SEGMENT + PIXEL));
            for (v, mut sum) in sums[S * SEGMENT + PIXEL].into_iter().enumerate().filter(|_| is_part) {
                if !tile.residual[S].is_null() {
                    sum = sum.add(O::load(tile.residual[S].add(PIXEL * tile.residual_step + v * V::LANES)));
                }
                if tile.relu {
                    sum = sum.max(zero);
                }
                O::store(sum, tile.output[S].add(PIXEL * tile.output_step + v * V::LANES));
            }
        });
    }
}
