//! The kernels of the backbone's pass, as functions that say how they are launched.

use crate::{
    Argument,
    Argument::{Address, Float, Int, Long},
};

/// All kernels of [`Program::pass`](crate::Program::pass) by name.
pub const PASS_KERNELS: [&str; 3] = ["finish", "finish_pool", "stem_cells"];

/// Threads of a block.
const THREADS: usize = 256;

/// Channels that a thread takes.
const EIGHT: usize = 8;

/// A kernel of the pass with all that it is given; addresses are those of (images, side, side, channels).
#[derive(Clone, Debug, PartialEq)]
pub struct PassKernel {
    /// Which one.
    pub name: &'static str,
    /// Blocks of [`threads`](Self::threads).
    pub blocks: usize,
    /// Threads of a block.
    pub threads: usize,
    /// In its order.
    pub arguments: Vec<Argument>,
}

impl PassKernel {
    fn new(name: &'static str, threads: usize, arguments: Vec<Argument>) -> Self {
        Self { name, blocks: threads.div_ceil(THREADS), threads: THREADS, arguments }
    }

    /// From `images` (`count`, `side`, `side`, `colours`) to `cells` (`count`, `side` / 2 + 3, `side` / 2 + 3, 8 or 16) in
    /// f16: each cell has the four pixels of a square of two by two, each pixel two channels if it is grey, its value and 1,
    /// and else four, its values and 0. A value is multiplied by its channel's `rates` and its `offsets` is added. Two cells of
    /// zeros stand before each row and column, one behind.
    pub fn stem_cells(
        images: u64,
        cells: u64,
        [count, side, colours]: [usize; 3],
        rates: [f32; 3],
        offsets: [f32; 3],
    ) -> Self {
        let mut arguments = vec![Address(images), Address(cells), Int(count as i32), Int(side as i32)];
        arguments.push(Int(colours as i32));
        arguments.extend(rates.map(Float));
        arguments.extend(offsets.map(Float));
        let cells_along = side / 2 + 3;
        Self::new("stem_cells", count * cells_along * cells_along, arguments)
    }

    /// `out` = `sums` + `bias` (+ `shortcut`, unless that is 0), negative values made zero with `relu`; `count` values of
    /// `channels` channels, which are a multiple of 8.
    pub fn finish([sums, bias, shortcut, out]: [u64; 4], count: usize, channels: usize, relu: bool) -> Self {
        let mut arguments = [sums, bias, shortcut, out].map(Address).to_vec();
        arguments.extend([Long((count / EIGHT) as i64), Int((channels / EIGHT) as i32), Int(relu.into())]);
        Self::new("finish", count / EIGHT, arguments)
    }

    /// `out` (`count`, `side` / 2, `side` / 2, `channels`) from `sums` (`count`, `side`, `side`, `channels`) in f16: the largest in
    /// windows of three by three at every second place, + `bias`, negative values made zero.
    pub fn finish_pool([sums, bias, out]: [u64; 3], [count, side, channels]: [usize; 3]) -> Self {
        let mut arguments = [sums, bias, out].map(Address).to_vec();
        arguments.extend([count, side, channels / EIGHT].map(|number| Int(number as i32)));
        Self::new("finish_pool", count * (side / 2) * (side / 2) * channels / EIGHT, arguments)
    }
}
