//! Winograd's minimal filtering for 3×3 convolutions of stride 1 (Lavin & Gray 2016, section 4,
//! <https://arxiv.org/abs/1509.09308>).
//!
//! The output is cut into tiles of m×m pixels, the last of which may overhang. Each tile's window of (m + 2)² input
//! pixels is transformed, multiplied point by point with the transformed weights, summed over the channels, and
//! transformed back. The sums over channels are (m + 2)² matrix products of (tiles, in) and (in, out), which the register
//! tile of the direct convolution computes as convolutions of 1×1.
//!
//! Names follow the paper: d a window, V its transform, U the transformed weights, M the products, Y the output.

use std::mem::MaybeUninit;

use half::bf16;

#[cfg(target_arch = "x86_64")]
use crate::vector::{Ymm, Zmm};
use crate::{
    Activations, Algorithm, ConvShape, Element, Isa, Scratch,
    aligned::{Aligned, LINE_BYTES},
    element::Lanes,
    tile::{SEGMENT, Tile, TileFn, bf16_isa},
    vector::{Floats4, Vector},
};

/// Tiles that the register tile takes at a time.
const STRIP: usize = 2 * SEGMENT;

/// Bytes of transformed weights that stay in the second-level cache beside the V and M of some strips. Larger ones are
/// read once for all tiles.
const CACHED_WEIGHTS_BYTES: usize = 1_200_000;

/// Strips that pass together where the weights stay in the cache: 1, 2, 4, 7 and 14 gave 439, 423, 411, 405 and 475 µs
/// an image in ResNet-18's first stage, and 4 need half the memory of 7.
const CACHED_STRIPS: usize = 4;

/// Floats in the widest register.
const WIDEST_REGISTER: usize = 16;

/// The widest window, m + 2 for m = 4.
const WIDEST: usize = 6;

/// A window or tile of which one dimension is transformed, for one register of channels.
#[repr(C, align(64))]
struct HalfTransformed([f32; WIDEST_REGISTER * WIDEST * WIDEST]);

/// A 3×3 convolution of stride 1 by F(m×m, 3×3).
#[derive(Debug)]
pub(crate) struct Winograd<E> {
    shape: ConvShape,
    relu: bool,
    /// m, 2 or 4.
    m: usize,
    block: usize,
    tile: TileFn<E, f32>,
    transforms: Transforms<E>,
    /// U: (window², out_channels / block, in_channels / group, block, group).
    weights: Aligned<E>,
    bias: Aligned<f32>,
    zeros: Aligned<f32>,
}

/// The transforms of one instruction set and tile size.
#[derive(Clone, Copy, Debug)]
pub struct Transforms<E> {
    input: unsafe fn(&InputTransform<E>),
    output: unsafe fn(&OutputTransform<E>),
}

/// One tile's d → V. Strides are in elements.
struct InputTransform<E> {
    /// The window's first pixel.
    window: *const E,
    row_stride: usize,
    channels: usize,
    /// V of this tile, first frequency.
    transformed: *mut E,
    frequency_stride: usize,
}

/// One tile's M → Y. Strides are in elements.
struct OutputTransform<E> {
    /// M of this tile, first frequency.
    products: *const f32,
    frequency_stride: usize,
    channels: usize,
    /// How much of the tile lies within the output: 1 to m each.
    rows: usize,
    columns: usize,
    bias: *const f32,
    /// Residual of the tile's first pixel, laid out as the output; null for none.
    residual: *const E,
    residual_row: usize,
    /// The tile's first pixel.
    output: *mut E,
    output_row: usize,
    relu: bool,
}

impl<E: Element> Winograd<E> {
    /// Transforms and packs `weights` (out, in, 3, 3) for `isa`, which the processor has.
    pub(crate) fn new(isa: Isa, m: usize, shape: ConvShape, weights: &[f32], bias: &[f32], relu: bool) -> Self {
        let ConvShape { in_channels, out_channels, .. } = shape;
        let block = E::block_channels(isa);
        let frequencies = (m + 2) * (m + 2);
        let mut packed = Aligned::zeros(frequencies * out_channels * in_channels);
        for first in (0..out_channels).step_by(block) {
            for c in 0..in_channels {
                for out in first..first + block {
                    let transformed = transform_weights(m, &weights[(out * in_channels + c) * 9..][..9]);
                    for (frequency, value) in (0..frequencies).zip(within_window(&transformed, m)) {
                        let row = (frequency * (out_channels / block) + first / block) * in_channels + c;
                        let group = row / E::GROUP * block + out - first;
                        packed[group * E::GROUP + row % E::GROUP] = E::round(*value as f32);
                    }
                }
            }
        }
        Self {
            shape,
            relu,
            m,
            block,
            tile: E::sums_tile(isa, in_channels),
            transforms: E::transforms(isa, m),
            weights: packed,
            bias: bias.into(),
            zeros: Aligned::zeros(block),
        }
    }

    /// Which algorithm it is.
    pub(crate) const fn algorithm(&self) -> Algorithm {
        if self.m == 2 { Algorithm::Winograd2 } else { Algorithm::Winograd4 }
    }

    /// Convolves. The activations fit the shape, and the input's border the algorithm.
    pub(crate) fn run(
        &self,
        input: &Activations<E>,
        residual: Option<&Activations<E>>,
        output: &mut Activations<E>,
        scratch: &mut Scratch,
    ) {
        let ConvShape { in_channels, out_channels, padding, .. } = self.shape;
        let (m, window) = (self.m, self.m + 2);
        let side = output.side();
        let tiles_per_row = side.div_ceil(m);
        let tiles_per_image = tiles_per_row * tiles_per_row;
        let tiles = output.images() * tiles_per_image;
        let chunk = match size_of_val(&self.weights[..]) {
            0..=CACHED_WEIGHTS_BYTES => CACHED_STRIPS * STRIP,
            _ => tiles.next_multiple_of(STRIP),
        };
        let frequencies = window * window;
        // One line more than the tiles need: multiples of large powers of two would put a tile's values of all
        // frequencies into the same few sets of the cache.
        let v_stride = chunk * in_channels + LINE_BYTES / size_of::<E>();
        let m_stride = chunk * out_channels + LINE_BYTES / size_of::<f32>();
        let v_floats = frequencies * v_stride * size_of::<E>() / size_of::<f32>();
        scratch.0.grow_to(v_floats + frequencies * m_stride);
        let (v, rest) = scratch.0.split_at_mut(v_floats);
        let v: &mut [E] = bytemuck::cast_slice_mut(v);
        let products = &mut rest[..frequencies * m_stride];
        let inset = input.border() - padding;
        let place = |tile: usize| {
            let within = tile % tiles_per_image;
            (tile / tiles_per_image, within / tiles_per_row * m, within % tiles_per_row * m)
        };

        for first in (0..tiles).step_by(chunk) {
            let count = chunk.min(tiles - first);
            for t in 0..count {
                let (image, y, x) = place(first + t);
                let at = image * input.image_stride() + (y + inset) * input.row_stride() + (x + inset) * in_channels;
                // SAFETY: the caller checked that the input's border holds the padding and what the last tiles overhang,
                // so that the window of every output tile lies within it; V has `chunk` tiles of `in_channels` per
                // frequency. The transform was chosen for an instruction set that the processor has.
                unsafe {
                    (self.transforms.input)(&InputTransform {
                        window: input.as_ptr().add(at),
                        row_stride: input.row_stride(),
                        channels: in_channels,
                        transformed: v.as_mut_ptr().add(t * in_channels),
                        frequency_stride: v_stride,
                    });
                }
            }
            for frequency in 0..frequencies {
                for block in 0..out_channels / self.block {
                    // What lies behind the last tile is multiplied too and never read.
                    for strip in (0..count).step_by(STRIP) {
                        let v_at = frequency * v_stride + strip * in_channels;
                        let m_at = frequency * m_stride + strip * out_channels + block * self.block;
                        // SAFETY: `chunk` is a multiple of STRIP, so a whole strip of V and M lies behind every
                        // offset; U holds `in_channels` × `block` values per frequency and block.
                        unsafe {
                            let v = v.as_ptr().add(v_at);
                            let products = products.as_mut_ptr().add(m_at);
                            (self.tile)(&Tile {
                                input: [v, v.add(SEGMENT * in_channels)],
                                weights: self
                                    .weights
                                    .as_ptr()
                                    .add((frequency * (out_channels / self.block) + block) * in_channels * self.block),
                                bias: self.zeros.as_ptr(),
                                residual: [std::ptr::null(); 2],
                                output: [products, products.add(SEGMENT * out_channels)],
                                kernel_rows: 1,
                                run: in_channels,
                                input_row: 0,
                                input_step: in_channels,
                                residual_step: 0,
                                output_step: out_channels,
                                relu: false,
                            });
                        }
                    }
                }
            }
            for t in 0..count {
                let (image, y, x) = place(first + t);
                let output_at = output.interior(image, y, x);
                // SAFETY: the tile's first `rows` × `columns` pixels lie within output and residual, whose shapes the
                // caller compared; M has `chunk` tiles of `out_channels` per frequency.
                unsafe {
                    (self.transforms.output)(&OutputTransform {
                        products: products.as_ptr().add(t * out_channels),
                        frequency_stride: m_stride,
                        channels: out_channels,
                        rows: m.min(side - y),
                        columns: m.min(side - x),
                        bias: self.bias.as_ptr(),
                        residual: residual.map_or(std::ptr::null(), |residual| {
                            let image = image.min(residual.images() - 1);
                            residual.as_ptr().add(residual.interior(image, y, x))
                        }),
                        residual_row: residual.map_or(0, Activations::row_stride),
                        output: output.as_mut_ptr().add(output_at),
                        output_row: output.row_stride(),
                        relu: self.relu,
                    });
                }
            }
        }
    }
}

/// G g Gᵀ of the nine taps g, in double precision; m + 2 rows and columns of it count.
fn transform_weights(m: usize, taps: &[f32]) -> [[f64; WIDEST]; WIDEST] {
    let g: &[[f64; 3]] = match m {
        2 => &[[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]],
        _ => &[
            [1.0 / 4.0, 0.0, 0.0],
            [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
            [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
            [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
            [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
            [0.0, 0.0, 1.0],
        ],
    };
    let mut transformed = [[0.0; WIDEST]; WIDEST];
    for (row, transformed) in g.iter().zip(&mut transformed) {
        // One row of G g.
        let half: [f64; 3] = std::array::from_fn(|x| (0..3).map(|y| row[y] * f64::from(taps[y * 3 + x])).sum());
        for (column, value) in g.iter().zip(transformed) {
            *value = (0..3).map(|x| half[x] * column[x]).sum();
        }
    }
    transformed
}

/// The values of a window of m + 2 rows and columns, row by row.
fn within_window(values: &[[f64; WIDEST]; WIDEST], m: usize) -> impl Iterator<Item = &f64> {
    values[..m + 2].iter().flat_map(move |row| &row[..m + 2])
}

/// The transforms of floats for `isa`.
pub(crate) fn transforms(isa: Isa, m: usize) -> Transforms<f32> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::transforms(m),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::transforms(m),
        _ => portable_transforms(m),
    }
}

/// The transforms of bfloat16 for `isa`.
pub(crate) fn bf16_transforms(isa: Isa, m: usize) -> Transforms<bf16> {
    match bf16_isa(isa) {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512_bf16::transforms(m),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::transforms(m),
        _ => portable_transforms(m),
    }
}

fn portable_transforms<E: Lanes<Floats4>>(m: usize) -> Transforms<E> {
    match m {
        2 => Transforms { input: input::<Floats4, E, 2>, output: output::<Floats4, E, 2> },
        _ => Transforms { input: input::<Floats4, E, 4>, output: output::<Floats4, E, 4> },
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! compiled_for {
    ($module:ident, $features:literal, $register:ty) => {
        mod $module {
            use super::*;

            pub(super) fn transforms<E: Lanes<$register>>(m: usize) -> Transforms<E> {
                match m {
                    2 => Transforms { input: input::<E, 2>, output: output::<E, 2> },
                    _ => Transforms { input: input::<E, 4>, output: output::<E, 4> },
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn input<E: Lanes<$register>, const M: usize>(of: &InputTransform<E>) {
                // SAFETY: the caller's contract, and this function is compiled for the instruction set.
                unsafe { super::input::<$register, E, M>(of) }
            }

            #[target_feature(enable = $features)]
            unsafe fn output<E: Lanes<$register>, const M: usize>(of: &OutputTransform<E>) {
                // SAFETY: the caller's contract, and this function is compiled for the instruction set.
                unsafe { super::output::<$register, E, M>(of) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
compiled_for!(avx512, "avx512f", Zmm);
#[cfg(target_arch = "x86_64")]
compiled_for!(avx512_bf16, "avx512f,avx512bf16", Zmm);
#[cfg(target_arch = "x86_64")]
compiled_for!(avx2, "avx2,fma", Ymm);

/// The six values of a line, each written out: what is indexed by a loop variable lives in memory, and F(4×4) would wait
/// for memory at every step. Lines of F(2×2) have four; the others are zero and optimised away.
macro_rules! line {
    ($m:expr, $at:ident => $value:expr) => {
        [
            line!(@ $at 0 => $value),
            line!(@ $at 1 => $value),
            line!(@ $at 2 => $value),
            line!(@ $at 3 => $value),
            if $m == 4 { line!(@ $at 4 => $value) } else { V::splat(0.0) },
            if $m == 4 { line!(@ $at 5 => $value) } else { V::splat(0.0) },
        ]
    };
    (@ $at:ident $index:literal => $value:expr) => {{
        const $at: usize = $index;
        $value
    }};
}

/// Stores the first `$count` values of a line as `$element`, each written out.
macro_rules! store_line {
    ($element:ty, $line:expr, $count:expr, $at:ident => $to:expr) => {{
        let line = $line;
        store_line!(@ $element, line, $count, $at => $to, 0 1 2 3 4 5);
    }};
    (@ $element:ty, $line:ident, $count:expr, $at:ident => $to:expr, $($index:literal)*) => {
        $(if $index < $count {
            const $at: usize = $index;
            <$element as Lanes<V>>::store($line[$index], $to);
        })*
    };
}

/// V = Bᵀ d B of one tile, for all channels.
///
/// # Safety
/// All pointers must be valid for the extents that `of` describes, and the processor must have `V`'s instructions.
#[inline(always)]
unsafe fn input<V: Vector, E: Lanes<V>, const M: usize>(of: &InputTransform<E>) {
    let window = M + 2;
    let mut rows = MaybeUninit::<HalfTransformed>::uninit();
    let rows = rows.as_mut_ptr().cast::<f32>();
    // SAFETY: offsets stay within the window and within one tile's V, which the caller vouches for, and within `rows`,
    // which has room for 36 of the widest register.
    unsafe {
        for channel in (0..of.channels).step_by(V::LANES) {
            for y in 0..window {
                let from = of.window.add(y * of.row_stride + channel);
                let d = line!(M, X => E::load(from.add(X * of.channels)));
                let to = rows.add(y * WIDEST * V::LANES);
                store_line!(f32, input_line::<V, M>(d), window, X => to.add(X * V::LANES));
            }
            for x in 0..window {
                let from = rows.add(x * V::LANES);
                let column = line!(M, Y => V::load(from.add(Y * WIDEST * V::LANES)));
                let to = of.transformed.add(x * of.frequency_stride + channel);
                store_line!(E, input_line::<V, M>(column), window, Y => to.add(Y * window * of.frequency_stride));
            }
        }
    }
}

/// Y = Aᵀ M A of one tile, for all channels, with bias, residual and ReLU.
///
/// # Safety
/// As for [`input`].
#[inline(always)]
unsafe fn output<V: Vector, E: Lanes<V>, const M: usize>(of: &OutputTransform<E>) {
    let window = M + 2;
    let mut rows = MaybeUninit::<HalfTransformed>::uninit();
    let rows = rows.as_mut_ptr().cast::<f32>();
    // SAFETY: offsets stay within one tile's M, and within the tile's first `rows` × `columns` pixels in output and
    // residual, which the caller vouches for, and within `rows`, which has room for 36 of the widest register.
    unsafe {
        let zero = V::splat(0.0);
        for channel in (0..of.channels).step_by(V::LANES) {
            let bias = V::load(of.bias.add(channel));
            for y in 0..window {
                let from = of.products.add(y * window * of.frequency_stride + channel);
                let m = line!(M, X => V::load(from.add(X * of.frequency_stride)));
                let to = rows.add(y * WIDEST * V::LANES);
                store_line!(f32, output_line::<V, M>(m), M, X => to.add(X * V::LANES));
            }
            for x in 0..of.columns {
                let from = rows.add(x * V::LANES);
                let column = line!(M, Y => V::load(from.add(Y * WIDEST * V::LANES)));
                let mut values = output_line::<V, M>(column).map(|value| value.add(bias));
                if !of.residual.is_null() {
                    let residual = of.residual.add(x * of.channels + channel);
                    for (y, value) in values.iter_mut().enumerate() {
                        if y < of.rows {
                            *value = value.add(E::load(residual.add(y * of.residual_row)));
                        }
                    }
                }
                if of.relu {
                    values = values.map(|value| value.max(zero));
                }
                let to = of.output.add(x * of.channels + channel);
                store_line!(E, values, of.rows, Y => to.add(Y * of.output_row));
            }
        }
    }
}

/// Bᵀ d of one line of a window.
///
/// # Safety
/// The processor must have `V`'s instructions.
#[inline(always)]
unsafe fn input_line<V: Vector, const M: usize>(d: [V; WIDEST]) -> [V; WIDEST] {
    // SAFETY: the caller's contract.
    unsafe {
        if M == 2 {
            return [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3]), d[4], d[5]];
        }
        let (two, four, minus_five, minus_four) = (V::splat(2.0), V::splat(4.0), V::splat(-5.0), V::splat(-4.0));
        let (even, odd) = (d[2].mul_add(minus_four, d[4]), d[1].mul_add(minus_four, d[3]));
        let (even_2, odd_2) = (d[4].sub(d[2]), d[3].sub(d[1]));
        [
            d[0].mul_add(four, d[2].mul_add(minus_five, d[4])),
            even.add(odd),
            even.sub(odd),
            odd_2.mul_add(two, even_2),
            even_2.sub(odd_2.add(odd_2)),
            d[1].mul_add(four, d[3].mul_add(minus_five, d[5])),
        ]
    }
}

/// Aᵀ m of one line of a tile's products; what lies behind the first M is of no use.
///
/// # Safety
/// The processor must have `V`'s instructions.
#[inline(always)]
unsafe fn output_line<V: Vector, const M: usize>(m: [V; WIDEST]) -> [V; WIDEST] {
    // SAFETY: the caller's contract.
    unsafe {
        let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
        if M == 2 {
            return [m[0].add(sum), difference.sub(m[3]), m[4], m[4], m[4], m[4]];
        }
        let (sum_2, difference_2) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(sum).add(sum_2),
            difference_2.mul_add(V::splat(2.0), difference),
            sum_2.mul_add(V::splat(4.0), sum),
            difference_2.mul_add(V::splat(8.0), difference).add(m[5]),
            m[5],
            m[5],
        ]
    }
}
