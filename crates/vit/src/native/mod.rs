//! The network and its training step on the CPU, written out.
//!
//! candle's autograd allocates every activation anew, sums every gradient into a tensor of zeros, and passes over memory
//! once for each elementary op. Here a thread takes a [`Chunk`] of a few images from the tokens to the loss and back to the
//! gradients of all weights, while their activations stay in its core's cache; all memory is allocated once. The
//! layers are those of [`crate::network`], which runs on GPUs and is what the tests compare with.
//!
//! The order of every sum is fixed by the model and the batch, never by the threads: rows are summed within a chunk, chunks
//! one after the other within a [`Group`], and groups in their order. So the same seed gives the same weights, bit for
//! bit, on any number of threads.
//!
//! Shapes: B batch, N tokens in the sequence, R rows of a chunk (its images' tokens), D width, I inputs, O outputs,
//! K classes.

mod block;
mod chunk;
mod embed;
mod group;
mod layout;
mod linear;
mod masks;
mod network;
mod trainer;

use chunk::Chunk;
pub(crate) use group::Chunks;
use group::Group;
pub(crate) use layout::Layout;
use layout::Slot;
use linear::Linear;
use masks::BranchMasks;
pub(crate) use masks::Masks;
pub(crate) use network::Network;
pub(crate) use trainer::Trainer;

/// Numbers that one task updates, squares or sums.
const PIECE: usize = 1 << 14;
