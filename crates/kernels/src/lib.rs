//! Fused CPU kernels for the frozen backbone and for training the Vision Transformer behind it.
//!
//! # The backbone
//! One activation layout from the first layer to the last: channels-last (N, H, W, C) with a zero border,
//! [`Activations`], in 32-bit floats or bfloat16 ([`Element`]). One convolution, [`Conv2d`], whose epilogue adds the bias, an optional residual
//! and the ReLU before the only store; by definition or by Winograd's [`Algorithm`], both on the same register
//! tile. Its counterpart in 8-bit integers is [`QuantisedConv2d`]. The instruction set is chosen at run time ([`Isa`]),
//! so that one binary runs everywhere; `FMSTUDY_ISA=avx512|avx2|portable` forces one.
//!
//! # Training
//! Matrix products on one register tile for x Wᵀ, dY W and dYᵀ X, in 32-bit floats or bfloat16 ([`Multiplier`]); layer norm, GELU and
//! [`Attention`] forward and backward; Adam in one pass; tokens standardised as products need them ([`Standardise`]).
//!
//! Kernels are single-threaded: callers share out images, which costs no synchronisation between layers.

mod activations;
mod adam;
mod aligned;
mod attention;
mod bf16_lanes;
mod conv;
mod direct;
mod dot;
mod element;
mod functions;
mod gelu;
mod isa;
mod layer_norm;
mod matmul;
mod patches;
mod peak;
mod pool;
mod quantised;
mod quantised_tile;
mod rows;
mod standardise;
mod tile;
mod vector;
mod winograd;

pub use activations::Activations;
pub use adam::{AdamStep, adam};
pub use aligned::Aligned;
pub use attention::Attention;
pub use conv::{Algorithm, Conv2d, ConvShape, Scratch, ShapeError};
pub use element::Element;
pub use gelu::{gelu, gelu_backward};
pub use isa::{Isa, UnavailableIsa};
pub use layer_norm::{normalise, normalise_backward};
pub use matmul::{Begin, Matrix, MatrixMut, Multiplier, Panels, Precision, multiply, multiply_rows, row_padding};
pub use patches::Patches;
pub use peak::multiply_add_in_registers;
pub use pool::max_pool_3x3_stride_2;
pub use quantised::{Outputs, QuantisedConv2d, QuantisedInput, quantise};
pub use rows::Rows;
pub use standardise::{Standardise, TokenMoments};
