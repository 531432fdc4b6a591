//! The register tile of 8-bit integers: as [`crate::tile`], with four neighbouring input channels in every lane.

#[cfg(target_arch = "x86_64")]
use crate::dot::{YmmSums, ZmmSums};
use crate::{
    Isa,
    dot::{DotVector, Sums4},
    tile::{SEGMENT, for_each_pixel},
};

/// Neighbouring input channels that one instruction multiplies and sums.
pub(crate) const QUAD: usize = 4;

/// Where one tile reads and writes. Strides are in elements.
pub(crate) struct QuantisedTile {
    /// First input value of each segment's first pixel.
    pub input: [*const u8; 2],
    /// Packed weights of this block of output channels: (kernel rows, run / 4, block, 4).
    pub weights: *const i8,
    /// What one unit of this block's sums is worth.
    pub factor: *const f32,
    /// Bias of this block of output channels.
    pub bias: *const f32,
    /// Residual of each segment's first pixel; null for none.
    pub residual: [*const f32; 2],
    /// Output in floats of each segment's first pixel; null for none.
    pub output: [*mut f32; 2],
    /// Output in integers of each segment's first pixel; null for none.
    pub quantised: [*mut u8; 2],
    /// Integers that one is worth in the quantised output, of this block of output channels.
    pub quantised_factor: *const f32,
    /// Rows of the convolution kernel.
    pub kernel_rows: usize,
    /// Contiguous input values per kernel row: kernel columns × input channels.
    pub run: usize,
    /// From one input row to the next.
    pub input_row: usize,
    /// From one output pixel's input to the next: convolution stride × input channels.
    pub input_step: usize,
    /// From one pixel of residual and outputs to the next: output channels.
    pub output_step: usize,
    /// Whether negative results become zero.
    pub relu: bool,
}

/// A tile function of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuantisedTileFn {
    pub run: unsafe fn(&QuantisedTile),
    /// Output channels per tile.
    pub block: usize,
}

impl QuantisedTileFn {
    /// The fastest one that `isa` allows: not every processor with AVX-512 has its dot products of bytes.
    pub(crate) fn of(isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        match isa {
            Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => {
                return Self { run: tile_avx512_vnni, block: 2 * ZmmSums::LANES };
            }
            Isa::Avx512 | Isa::Avx2 if is_x86_feature_detected!("avx2") => {
                return Self { run: tile_avx2, block: YmmSums::LANES };
            }
            _ => {}
        }
        let _ = isa;
        Self { run: compute::<Sums4, 1>, block: Sums4::LANES }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile_avx512_vnni(tile: &QuantisedTile) {
    // SAFETY: the caller's contract, and this function is compiled for the instruction set.
    unsafe { compute::<ZmmSums, 2>(tile) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn tile_avx2(tile: &QuantisedTile) {
    // SAFETY: the caller's contract, and this function is compiled for the instruction set.
    unsafe { compute::<YmmSums, 1>(tile) }
}

/// # Safety
/// All pointers must be valid for the extents that the tile describes, and the processor must have `V`'s
/// instructions.
#[inline(always)]
unsafe fn compute<V: DotVector, const VECTORS: usize>(tile: &QuantisedTile) {
    // SAFETY: offsets stay within the extents that the caller vouches for: `run` values from each of the seven pixels
    // of both segments in each kernel row, and one block of channels per pixel in residual and outputs.
    unsafe {
        let mut sums = [[V::zero(); VECTORS]; 2 * SEGMENT];
        let mut weights = tile.weights;
        for kernel_row in 0..tile.kernel_rows {
            let rows = tile.input.map(|start| start.add(kernel_row * tile.input_row));
            for i in (0..tile.run).step_by(QUAD) {
                let weight: [V::Weights; VECTORS] =
                    std::array::from_fn(|v| V::load_weights(weights.add(v * QUAD * V::LANES)));
                for_each_pixel!(S, PIXEL, {
                    let quad = V::splat_quad(rows[S].add(PIXEL * tile.input_step + i));
                    for v in 0..VECTORS {
                        let sum = &mut sums[S * SEGMENT + PIXEL][v];
                        *sum = sum.add_products(quad, weight[v]);
                    }
                });
                weights = weights.add(VECTORS * QUAD * V::LANES);
            }
        }
        for_each_pixel!(S, PIXEL, {
            for (v, sum) in sums[S * SEGMENT + PIXEL].into_iter().enumerate() {
                let channel = v * V::LANES;
                let at = PIXEL * tile.output_step + channel;
                let mut value = sum.scaled(tile.factor.add(channel), tile.bias.add(channel));
                if !tile.residual[S].is_null() {
                    value = V::add(value, tile.residual[S].add(at));
                }
                if tile.relu {
                    value = V::relu(value);
                }
                if !tile.output[S].is_null() {
                    V::store(value, tile.output[S].add(at));
                }
                if !tile.quantised[S].is_null() {
                    V::store_quantised(value, tile.quantised_factor.add(channel), tile.quantised[S].add(at));
                }
            }
        });
    }
}
