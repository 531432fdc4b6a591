//! Convolutions in 8-bit integers: unsigned activations, which a ReLU left without negative values, and signed weights.
//!
//! An activation of channel c is an integer times `steps[c]`, a weight of output channel o an integer times a step of o.
//! The steps of the activations go into the weights before these are rounded, so that a sum over all input channels is an
//! integer times one factor. Sums are exact; what is left is the rounding of weights and activations.

use crate::{
    Activations, ConvShape, Isa, ShapeError,
    aligned::Aligned,
    quantised_tile::{QUAD, QuantisedTile, QuantisedTileFn},
    tile::{Places, SEGMENT},
};

/// The largest magnitude of a weight.
const LARGEST_WEIGHT: f64 = 127.0;

/// What is known of the activations that a convolution reads, per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantisedInput {
    /// From one integer to the next; positive.
    pub steps: Vec<f32>,
    /// The mean activation, by which rounded weights shift the output and the bias is corrected.
    pub means: Vec<f32>,
}

/// Where a convolution stores its output; either or both.
#[derive(Debug, Default)]
pub struct Outputs<'a> {
    /// In floats.
    pub floats: Option<&'a mut Activations>,
    /// In integers, with how many of them one is worth per channel: the inverse of the next layer's steps.
    pub quantised: Option<(&'a mut Activations<u8>, &'a [f32])>,
}

/// A convolution in 8-bit integers with bias, whose store also adds a residual and applies the ReLU.
#[derive(Debug)]
pub struct QuantisedConv2d {
    shape: ConvShape,
    relu: bool,
    tile: QuantisedTileFn,
    /// (out_channels / block, kernel, kernel × in_channels / 4, block, 4)
    weights: Aligned<i8>,
    factors: Aligned<f32>,
    bias: Aligned<f32>,
}

impl QuantisedConv2d {
    /// Quantises and packs `weights` (out, in, kernel, kernel) for `isa`. `bias` has one value per output channel.
    ///
    /// # Panics
    /// If this processor does not have `isa`: running the kernel would then be undefined.
    pub fn new(
        isa: Isa,
        shape: ConvShape,
        weights: &[f32],
        bias: &[f32],
        relu: bool,
        input: &QuantisedInput,
    ) -> Result<Self, ShapeError> {
        isa.assert_available();
        let ConvShape { in_channels, out_channels, kernel, .. } = shape;
        shape.check_weights(weights, bias)?;
        shape.expect("in_channels", in_channels, in_channels.is_multiple_of(QUAD), "a multiple of 4")?;
        shape.expect("number of steps", input.steps.len(), input.steps.len() == in_channels, in_channels)?;
        shape.expect("number of means", input.means.len(), input.means.len() == in_channels, in_channels)?;
        let tile = QuantisedTileFn::of(isa);
        let taps = kernel * kernel;
        let mut packed = Aligned::zeros(weights.len());
        let (mut factors, mut corrected) = (Aligned::zeros(out_channels), Aligned::<f32>::from(bias));
        for (out, filter) in weights.chunks_exact(in_channels * taps).enumerate() {
            // On integer activations.
            let weight = |c: usize, tap: usize| f64::from(filter[c * taps + tap]) * f64::from(input.steps[c]);
            let channels_and_taps = || (0..in_channels).flat_map(|c| (0..taps).map(move |tap| (c, tap)));
            let largest = channels_and_taps().map(|(c, tap)| weight(c, tap).abs()).fold(0.0, f64::max);
            let step = if largest > 0.0 { largest / LARGEST_WEIGHT } else { 1.0 };
            let mut shift = 0.0;
            for (c, tap) in channels_and_taps() {
                let integer = (weight(c, tap) / step).round_ties_even();
                shift += (weight(c, tap) - integer * step) * f64::from(input.means[c] / input.steps[c]);
                let row = ((out / tile.block) * kernel + tap / kernel) * kernel * in_channels
                    + tap % kernel * in_channels
                    + c / QUAD * QUAD;
                packed[row * tile.block + out % tile.block * QUAD + c % QUAD] = integer as i8;
            }
            factors[out] = step as f32;
            corrected[out] = (f64::from(bias[out]) + shift) as f32;
        }
        Ok(Self { shape, relu, tile, weights: packed, factors, bias: corrected })
    }

    /// The convolution's shape.
    pub const fn shape(&self) -> ConvShape {
        self.shape
    }

    /// Convolves `input`; `residual`, shaped as the output, is added before the ReLU.
    pub fn run(
        &self,
        input: &Activations<u8>,
        residual: Option<&Activations>,
        outputs: Outputs,
    ) -> Result<(), ShapeError> {
        let Outputs { mut floats, mut quantised } = outputs;
        let side = self.check_input(input)?;
        let fits = |what, images, side_there, channels| {
            self.shape.expect(what, images, images == input.images(), input.images())?;
            self.shape.expect(what, side_there, side_there == side, side)?;
            self.shape.expect(what, channels, channels == self.shape.out_channels, self.shape.out_channels)
        };
        for (what, there) in [("residual", residual), ("output", floats.as_deref())] {
            if let Some(there) = there {
                fits(what, there.images(), there.side(), there.channels())?;
            }
        }
        if let Some((there, factors)) = &quantised {
            fits("quantised output", there.images(), there.side(), there.channels())?;
            fits("factors of the quantised output", there.images(), there.side(), factors.len())?;
        }

        let ConvShape { in_channels, out_channels, kernel, stride, padding } = self.shape;
        let segments = input.images() * side * (side / SEGMENT);
        let inset = input.border() - padding;
        let block_weights = kernel * kernel * in_channels * self.tile.block;
        for block in 0..out_channels / self.tile.block {
            let channel = block * self.tile.block;
            let mut places = Places::new(side);
            for first in (0..segments).step_by(2) {
                let one = places.next_segment();
                // The last segment of an odd number is computed twice, to the same result.
                let place = [one, if first + 1 < segments { places.next_segment() } else { one }];
                // SAFETY: all shapes were compared: the kernel's window of every output pixel lies within the input's
                // padded rows, residual and outputs have a whole block of channels at every pixel, and the packed
                // weights hold `out_channels / block` blocks. The tile function was chosen for what the processor has.
                unsafe {
                    (self.tile.run)(&QuantisedTile {
                        input: place.map(|(image, y, x)| {
                            let (row, column) = (y * stride + inset, x * stride + inset);
                            let at = image * input.image_stride() + row * input.row_stride() + column * in_channels;
                            input.as_ptr().add(at)
                        }),
                        weights: self.weights.as_ptr().add(block * block_weights),
                        factor: self.factors.as_ptr().add(channel),
                        bias: self.bias.as_ptr().add(channel),
                        residual: place.map(|(image, y, x)| {
                            residual.map_or(std::ptr::null(), |of| of.as_ptr().add(of.interior(image, y, x) + channel))
                        }),
                        output: place.map(|(image, y, x)| {
                            floats.as_mut().map_or(std::ptr::null_mut(), |of| {
                                let at = of.interior(image, y, x) + channel;
                                of.as_mut_ptr().add(at)
                            })
                        }),
                        quantised: place.map(|(image, y, x)| {
                            quantised.as_mut().map_or(std::ptr::null_mut(), |(of, _)| {
                                let at = of.interior(image, y, x) + channel;
                                of.as_mut_ptr().add(at)
                            })
                        }),
                        quantised_factor: quantised
                            .as_ref()
                            .map_or(std::ptr::null(), |(_, factors)| factors.as_ptr().add(channel)),
                        kernel_rows: kernel,
                        run: kernel * in_channels,
                        input_row: input.row_stride(),
                        input_step: stride * in_channels,
                        output_step: out_channels,
                        relu: self.relu,
                    });
                }
            }
        }
        Ok(())
    }

    /// The side of what becomes of `input`.
    fn check_input(&self, input: &Activations<u8>) -> Result<usize, ShapeError> {
        let ConvShape { in_channels, kernel, stride, padding, .. } = self.shape;
        let side = (input.side() + 2 * padding - kernel) / stride + 1;
        let (channels, border) = (input.channels(), input.border());
        self.shape.expect("input channels", channels, channels == in_channels, in_channels)?;
        self.shape.expect("input border", border, border >= padding, format!("at least {padding}"))?;
        self.shape.expect("output side", side, side.is_multiple_of(SEGMENT), format!("a multiple of {SEGMENT}"))?;
        Ok(side)
    }
}

/// Quantises `from`, which has no negative values, into `to`: `factors[c]` integers for one of channel c, rounded to the
/// nearest, halves to the even one, at most 255.
///
/// # Panics
/// If the shapes differ.
pub fn quantise(from: &Activations, factors: &[f32], to: &mut Activations<u8>) {
    assert!(
        (from.images(), from.side(), from.channels()) == (to.images(), to.side(), to.channels())
            && factors.len() == from.channels(),
        "shapes differ"
    );
    for image in 0..from.images() {
        for y in 0..from.side() {
            quantise_row(from.row(image, y), factors, to.row_mut(image, y));
        }
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2"))]
fn quantise_row(from: &[f32], factors: &[f32], to: &mut [u8]) {
    for (from, to) in from.chunks_exact(factors.len()).zip(to.chunks_exact_mut(factors.len())) {
        for ((value, factor), integer) in from.iter().zip(factors).zip(to) {
            *integer = (value * factor).clamp(0.0, 255.0).round_ties_even() as u8;
        }
    }
}
