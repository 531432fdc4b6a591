//! Kernels for NVIDIA GPUs: what `kernels` is for the CPU to the training step, and of the backbone's pass the stem and what stands
//! between the convolutions.
//!
//! ```text
//! cuda/*.cu ─► Gpu, PassKernel ─► Card     compiled by NVRTC for the model at hand, run by the driver (feature `cuda`)
//!                              └► OnCpu    compiled by the C++ compiler, for tests where there is no card (feature `on-cpu`)
//! copies.rs ─► Stream                      short and long copies through pinned memory: of a Card, and of Transfers beside what candle computes
//! ```
//!
//! Each kernel works on all runs that are trained at once: alone each is too small for a card. Shapes: R runs, B images,
//! N tokens of a sequence, M = B N rows, D width, H heads, K classes, P places of the token grid, I inputs and O outputs of a
//! linear layer. Everything lies in memory in this order, run by run, and is 32-bit floats unless it says otherwise.

mod array;
mod calls;
#[cfg(feature = "cuda")]
mod card;
#[cfg(any(feature = "cuda", test))]
mod copies;
mod factors;
#[cfg(feature = "cuda")]
mod freed_memory;
#[cfg(any(feature = "cuda", test))]
mod kept_code;
mod machine;
#[cfg(feature = "cuda")]
mod nvrtc;
#[cfg(feature = "on-cpu")]
mod on_cpu;
mod pass;
mod source;
#[cfg(feature = "cuda")]
mod stream;
mod structs;
mod tables;
#[cfg(feature = "cuda")]
mod transfers;

pub use array::Array;
pub use calls::{Extent, Gpu, KERNELS, Layer};
#[cfg(feature = "cuda")]
pub use card::Card;
pub use factors::{Factors, Numbers};
#[cfg(feature = "cuda")]
pub use freed_memory::{free_bytes, keep_freed_memory, release_freed_memory};
pub use machine::{Argument, GpuError, Machine, Memory, Recording};
#[cfg(feature = "on-cpu")]
pub use on_cpu::OnCpu;
pub use pass::{PASS_KERNELS, PassKernel};
pub use source::{Constants, MOST_PARTS, Program};
pub use structs::{AdamStep, Embedding, Linear, Projection, Source};
pub use tables::{Embeds, Head, Linears, Targets};
#[cfg(feature = "cuda")]
pub use transfers::{Ready, Transfers};
