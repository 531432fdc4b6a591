use crate::{
    Activations, Isa,
    tile::{SEGMENT, Tile, TileFn, block_channels, tile_fn},
};

/// Shape of a square convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Input channels.
    pub in_channels: usize,
    /// Output channels, a multiple of 32.
    pub out_channels: usize,
    /// Side of the kernel in pixels.
    pub kernel: usize,
    /// Stride in pixels.
    pub stride: usize,
    /// Zero padding in pixels.
    pub padding: usize,
}

/// Weights or activations that do not fit a convolution.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("convolution {shape:?}: {what} is {got}, expected {expected}")]
pub struct ShapeError {
    shape: ConvShape,
    what: &'static str,
    got: usize,
    expected: String,
}

/// A convolution with bias, whose store also adds a residual and applies the ReLU.
///
/// Batch norm is expected to be folded into weights and bias.
#[derive(Debug)]
pub struct Conv2d {
    shape: ConvShape,
    relu: bool,
    block: usize,
    tile: TileFn,
    /// (out_channels / block, kernel, kernel × in_channels, block)
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Conv2d {
    /// Packs `weights` (out, in, kernel, kernel) for `isa`. `bias` has one value per output channel.
    ///
    /// # Panics
    /// If this processor does not have `isa`: running the kernel would then be undefined.
    pub fn new(isa: Isa, shape: ConvShape, weights: &[f32], bias: &[f32], relu: bool) -> Result<Self, ShapeError> {
        assert!(Isa::available().any(|available| available == isa), "this processor has no {isa}");
        let ConvShape { in_channels, out_channels, kernel, stride, .. } = shape;
        let check = |what, got, fits: bool, expected: String| {
            if fits { Ok(()) } else { Err(ShapeError { shape, what, got, expected }) }
        };
        let count = out_channels * in_channels * kernel * kernel;
        check("out_channels", out_channels, out_channels.is_multiple_of(32), "a multiple of 32".into())?;
        check("number of weights", weights.len(), weights.len() == count, count.to_string())?;
        check("number of biases", bias.len(), bias.len() == out_channels, out_channels.to_string())?;
        let block = block_channels(isa);
        let mut packed = Vec::with_capacity(count);
        for first in (0..out_channels).step_by(block) {
            for ky in 0..kernel {
                for kx in 0..kernel {
                    for c in 0..in_channels {
                        let tap = |out: usize| ((out * in_channels + c) * kernel + ky) * kernel + kx;
                        packed.extend((first..first + block).map(|out| weights[tap(out)]));
                    }
                }
            }
        }
        let tile = tile_fn(isa, stride * in_channels);
        Ok(Self { shape, relu, block, tile, weights: packed, bias: bias.to_vec() })
    }

    /// The convolution's shape.
    pub const fn shape(&self) -> ConvShape {
        self.shape
    }

    /// Convolves `input` into `output`; `residual`, shaped as the output, is added before the ReLU. A residual
    /// of one image serves all images.
    pub fn run(
        &self,
        input: &Activations,
        residual: Option<&Activations>,
        output: &mut Activations,
    ) -> Result<(), ShapeError> {
        self.check(input, residual, output)?;
        let ConvShape { in_channels, out_channels, kernel, stride, padding } = self.shape;
        let (side, segments_per_row) = (output.side(), output.side() / SEGMENT);
        let segments = output.images() * side * segments_per_row;
        let inset = input.border() - padding;
        let (run, block_weights) = (kernel * in_channels, kernel * kernel * in_channels * self.block);
        let interior = |of: &Activations, image: usize, y: usize, x: usize| {
            image * of.image_stride() + (y + of.border()) * of.row_stride() + (x + of.border()) * of.channels()
        };
        // Weights of one block stay in the cache while all pixels of all images pass.
        for block in 0..out_channels / self.block {
            let channel = block * self.block;
            for first in (0..segments).step_by(2) {
                // The last segment of an odd number is computed twice, to the same result.
                let place = [first, (first + 1).min(segments - 1)].map(|segment| {
                    let (row, x) = (segment / segments_per_row, segment % segments_per_row * SEGMENT);
                    (row / side, row % side, x)
                });
                // SAFETY: `check` compared all shapes: the kernel's window of every output pixel lies within the
                // input's padded rows, residual and output have a whole block of channels at every pixel, and the
                // packed weights hold `out_channels / block` blocks. The tile function was chosen for an
                // instruction set that `new` found available.
                unsafe {
                    (self.tile)(&Tile {
                        input: place.map(|(image, y, x)| {
                            let (row, column) = (y * stride + inset, x * stride + inset);
                            let at = image * input.image_stride() + row * input.row_stride() + column * in_channels;
                            input.as_ptr().add(at)
                        }),
                        weights: self.weights.as_ptr().add(block * block_weights),
                        bias: self.bias.as_ptr().add(channel),
                        residual: place.map(|(image, y, x)| {
                            residual.map_or(std::ptr::null(), |residual| {
                                let image = image.min(residual.images() - 1);
                                residual.as_ptr().add(interior(residual, image, y, x) + channel)
                            })
                        }),
                        output: place.map(|(image, y, x)| {
                            let at = interior(output, image, y, x) + channel;
                            output.as_mut_ptr().add(at)
                        }),
                        kernel_rows: kernel,
                        run,
                        input_row: input.row_stride(),
                        input_step: stride * in_channels,
                        residual_step: out_channels,
                        output_step: out_channels,
                        relu: self.relu,
                    });
                }
            }
        }
        Ok(())
    }

    fn check(
        &self,
        input: &Activations,
        residual: Option<&Activations>,
        output: &Activations,
    ) -> Result<(), ShapeError> {
        let ConvShape { in_channels, out_channels, kernel, stride, padding } = self.shape;
        let check = |what, got, fits: bool, expected: String| {
            if fits { Ok(()) } else { Err(ShapeError { shape: self.shape, what, got, expected }) }
        };
        let side = (input.side() + 2 * padding - kernel) / stride + 1;
        check("input channels", input.channels(), input.channels() == in_channels, in_channels.to_string())?;
        check("input border", input.border(), input.border() >= padding, format!("at least {padding}"))?;
        check("output channels", output.channels(), output.channels() == out_channels, out_channels.to_string())?;
        check("output side", output.side(), output.side() == side, side.to_string())?;
        check("output side", side, side.is_multiple_of(SEGMENT), format!("a multiple of {SEGMENT}"))?;
        check("output images", output.images(), output.images() == input.images(), input.images().to_string())?;
        if let Some(residual) = residual {
            let images = residual.images();
            check(
                "residual channels",
                residual.channels(),
                residual.channels() == out_channels,
                out_channels.to_string(),
            )?;
            check("residual side", residual.side(), residual.side() == side, side.to_string())?;
            check("residual images", images, images == 1 || images == output.images(), output.images().to_string())?;
        }
        Ok(())
    }
}
