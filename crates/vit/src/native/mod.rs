//! The network and its training step on the CPU, written out.
//!
//! candle's autograd allocates every activation anew, sums every gradient into a tensor of zeros, and passes over memory
//! once for each elementary op. Here a batch is shared out in [`Chunk`]s of a few images whose activations stay in the
//! cache of the core that computes them, from the tokens to the loss; all memory is allocated once. The layers are
//! those of [`crate::network`], which runs on GPUs and is what the tests compare with.
//!
//! The order of every sum is fixed by the model and the batch, never by the threads: rows are summed within a chunk, and
//! chunks one after the other. So the same seed gives the same weights, bit for bit, on any number of threads.
//!
//! Shapes: B batch, N tokens in the sequence, R rows of a chunk (its images' tokens), D width, I inputs, O outputs,
//! K classes.

mod block;
mod chunk;
mod embed;
mod layout;
mod linear;
mod masks;
mod network;
mod trainer;
mod weight_gradient;

pub(crate) use chunk::Chunk;
pub(crate) use layout::Layout;
use layout::Slot;
use linear::Linear;
use masks::BranchMasks;
pub(crate) use masks::Masks;
pub(crate) use network::Network;
pub(crate) use trainer::Trainer;
