use std::fmt;

use crate::{Activations, Element, Isa, aligned::Aligned, direct::Direct, tile::SEGMENT, winograd::Winograd};

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

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// As it is defined. The output's side is a multiple of 7.
    Direct,
    /// Winograd's F(2×2, 3×3): 16 multiplications for 4 outputs instead of 36. Kernels of 3×3 and stride 1 only.
    Winograd2,
    /// Winograd's F(4×4, 3×3): 36 multiplications for 16 outputs instead of 144. Kernels of 3×3 and stride 1 only.
    Winograd4,
}

/// Memory that a convolution works in, kept from call to call and shared by all layers of a thread.
#[derive(Debug, Default)]
pub struct Scratch(pub(crate) Aligned<f32>);

/// A convolution with bias, whose store also adds a residual and applies the ReLU.
///
/// Batch norm is expected to be folded into weights and bias. Weights and activations are stored as `E`, which is `f32` or
/// [`half::bf16`]; sums are in f32.
#[derive(Debug)]
pub struct Conv2d<E = f32> {
    shape: ConvShape,
    kernel: Kernel<E>,
}

#[derive(Debug)]
enum Kernel<E> {
    Direct(Direct<E>),
    Winograd(Winograd<E>),
}

impl Algorithm {
    /// Zero pixels that an input needs around its `side` under a convolution of `padding`: a last tile that is not
    /// whole reads beyond the padding.
    pub const fn border(self, side: usize, padding: usize) -> usize {
        let tile = match self {
            Self::Direct => 1,
            Self::Winograd2 => 2,
            Self::Winograd4 => 4,
        };
        padding + side.next_multiple_of(tile) - side
    }
}

impl ConvShape {
    /// An error that says what `what` is and should be, unless it fits.
    pub(crate) fn expect(
        self,
        what: &'static str,
        got: usize,
        fits: bool,
        expected: impl fmt::Display,
    ) -> Result<(), ShapeError> {
        if fits { Ok(()) } else { Err(ShapeError { shape: self, what, got, expected: expected.to_string() }) }
    }

    /// What every convolution asks of its weights.
    pub(crate) fn check_weights(self, weights: &[f32], bias: &[f32]) -> Result<(), ShapeError> {
        let Self { in_channels, out_channels, kernel, .. } = self;
        let count = out_channels * in_channels * kernel * kernel;
        self.expect("out_channels", out_channels, out_channels.is_multiple_of(32), "a multiple of 32")?;
        self.expect("number of weights", weights.len(), weights.len() == count, count)?;
        self.expect("number of biases", bias.len(), bias.len() == out_channels, out_channels)
    }
}

impl<E: Element> Conv2d<E> {
    /// Packs `weights` (out, in, kernel, kernel) for `isa`. `bias` has one value per output channel.
    ///
    /// # Panics
    /// If this processor does not have `isa`: running the kernel would then be undefined.
    pub fn new(
        isa: Isa,
        algorithm: Algorithm,
        shape: ConvShape,
        weights: &[f32],
        bias: &[f32],
        relu: bool,
    ) -> Result<Self, ShapeError> {
        isa.assert_available();
        let ConvShape { in_channels, kernel, stride, .. } = shape;
        shape.check_weights(weights, bias)?;
        let run = kernel * in_channels;
        shape.expect(
            "kernel × in_channels",
            run,
            run.is_multiple_of(E::GROUP),
            format!("a multiple of {}", E::GROUP),
        )?;
        if algorithm != Algorithm::Direct {
            shape.expect("kernel", kernel, kernel == 3, "3 for Winograd")?;
            shape.expect("stride", stride, stride == 1, "1 for Winograd")?;
            shape.expect(
                "in_channels",
                in_channels,
                in_channels.is_multiple_of(16),
                "a multiple of 16 for Winograd",
            )?;
        }
        let kernel = match algorithm {
            Algorithm::Direct => Kernel::Direct(Direct::new(isa, shape, weights, bias, relu)),
            Algorithm::Winograd2 => Kernel::Winograd(Winograd::new(isa, 2, shape, weights, bias, relu)),
            Algorithm::Winograd4 => Kernel::Winograd(Winograd::new(isa, 4, shape, weights, bias, relu)),
        };
        Ok(Self { shape, kernel })
    }

    /// The convolution's shape.
    pub const fn shape(&self) -> ConvShape {
        self.shape
    }

    /// Convolves `input` into `output`; `residual`, shaped as the output, is added before the ReLU. A residual
    /// of one image serves all images.
    pub fn run(
        &self,
        input: &Activations<E>,
        residual: Option<&Activations<E>>,
        output: &mut Activations<E>,
        scratch: &mut Scratch,
    ) -> Result<(), ShapeError> {
        self.check(input, residual, output)?;
        match &self.kernel {
            Kernel::Direct(direct) => direct.run(input, residual, output),
            Kernel::Winograd(winograd) => winograd.run(input, residual, output, scratch),
        }
        Ok(())
    }

    fn check(
        &self,
        input: &Activations<E>,
        residual: Option<&Activations<E>>,
        output: &Activations<E>,
    ) -> Result<(), ShapeError> {
        let ConvShape { in_channels, out_channels, kernel, stride, padding } = self.shape;
        let expect = |what, got, fits, expected: usize| self.shape.expect(what, got, fits, expected);
        let side = (input.side() + 2 * padding - kernel) / stride + 1;
        expect("input channels", input.channels(), input.channels() == in_channels, in_channels)?;
        let border = match &self.kernel {
            Kernel::Direct(_) => padding,
            Kernel::Winograd(winograd) => winograd.algorithm().border(side, padding),
        };
        self.shape.expect("input border", input.border(), input.border() >= border, format!("at least {border}"))?;
        expect("output channels", output.channels(), output.channels() == out_channels, out_channels)?;
        expect("output side", output.side(), output.side() == side, side)?;
        if let Kernel::Direct(_) = self.kernel {
            self.shape.expect("output side", side, side.is_multiple_of(SEGMENT), format!("a multiple of {SEGMENT}"))?;
        }
        expect("output images", output.images(), output.images() == input.images(), input.images())?;
        if let Some(residual) = residual {
            let images = residual.images();
            expect("residual channels", residual.channels(), residual.channels() == out_channels, out_channels)?;
            expect("residual side", residual.side(), residual.side() == side, side)?;
            expect("residual images", images, images == 1 || images == output.images(), output.images())?;
        }
        Ok(())
    }
}
