//! The kernels of the backbone's pass, as functions that say how they are launched.

use crate::{
    Argument,
    Argument::{Address, Float, Int, Long},
};

/// All kernels of [`Program::pass`](crate::Program::pass) by name.
pub const PASS_KERNELS: [&str; 8] =
    ["finish", "finish_pairs", "join_pairs", "pool", "split_colour", "split_grey", "stem_colour", "stem_grey"];

/// Threads of a block.
const THREADS: usize = 256;

/// Channels that a thread takes, in bfloat16 and in pairs.
const EIGHT: usize = 8;
const FOUR: usize = 4;

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
    /// `out` (`count`, 56, 56, 64) from `images` (`count`, 224, 224, `colours`) of 1 or 3 colours in 32-bit floats, each multiplied by its
    /// channel's `rates` and increased by its `offsets`: a convolution of seven by seven, + a bias, negative values made zero, the largest of
    /// windows of three by three, at every second place each. `filters` are in f16, as `stem.cu` says; `biases` (5, 5, 64) in 32-bit
    /// floats, for filters that stand outside, at the first place, at the second, further in and at the end of a column and of a row.
    pub fn stem(
        [images, filters, biases, out]: [u64; 4],
        count: usize,
        colours: usize,
        rates: [f32; 3],
        offsets: [f32; 3],
    ) -> Self {
        let mut arguments = [images, filters, biases, out].map(Address).to_vec();
        arguments.extend(rates.iter().chain(&offsets).map(|value| Float(*value)));
        let (name, pooled_rows) = if colours == 1 { ("stem_grey", 14) } else { ("stem_colour", 4) };
        // A block has half of the channels, its eight warps seven of the 56 columns each.
        Self { name, blocks: count * (56 / pooled_rows) * 2, threads: THREADS, arguments }
    }

    /// `out` = `sums` + `bias` (+ `shortcut`, unless that is 0), negative values made zero with `relu`; `count` values of
    /// `channels` channels, which are a multiple of 8.
    pub fn finish([sums, bias, shortcut, out]: [u64; 4], count: usize, channels: usize, relu: bool) -> Self {
        let (count, channels) = (count / EIGHT, channels / EIGHT);
        Self::over("finish", &[sums, bias, shortcut, out], count, &[Int(channels as i32), Int(relu.into())])
    }

    /// `out` (`pixels`, 4 `colours`): parts of `images` (`pixels`, `colours`) of 1 or 3 colours, each multiplied by its channel's `rates` and
    /// increased by its `offsets`; high, low, high and zeros.
    pub fn split([images, out]: [u64; 2], pixels: usize, colours: usize, rates: [f32; 3], offsets: [f32; 3]) -> Self {
        let numbers: Vec<Argument> = rates[..colours].iter().chain(&offsets[..colours]).copied().map(Float).collect();
        Self::over(if colours == 1 { "split_grey" } else { "split_colour" }, &[images, out], pixels, &numbers)
    }

    /// `out` (`images`, 56, 56, 3 · 64) in pairs: the largest of windows of three by three, at every second place, of `sums` (`images`, 112,
    /// 112, 64) + `biases` (5, 5, 64) as for the [`stem`](Self::stem), negative values made zero.
    pub fn pool([sums, biases, out]: [u64; 3], images: usize) -> Self {
        Self::over("pool", &[sums, biases, out], images * 56 * 56 * 64 / FOUR, &[])
    }

    /// As [`finish`](Self::finish) of `count` sums in 32-bit floats; `shortcut` and `out` in pairs. `channels` are a multiple of 4.
    pub fn finish_pairs([sums, bias, shortcut, out]: [u64; 4], count: usize, channels: usize, relu: bool) -> Self {
        let (count, channels) = (count / FOUR, channels / FOUR);
        Self::over("finish_pairs", &[sums, bias, shortcut, out], count, &[Int(channels as i32), Int(relu.into())])
    }

    /// `out`: the `count` values, of `channels` channels, which are a multiple of 4, that `pairs` are those of.
    pub fn join_pairs([pairs, out]: [u64; 2], count: usize, channels: usize) -> Self {
        Self::over("join_pairs", &[pairs, out], count / FOUR, &[Int((channels / FOUR) as i32)])
    }

    /// With a thread for each of `count`, which the kernel is told behind its addresses.
    fn over(name: &'static str, addresses: &[u64], count: usize, others: &[Argument]) -> Self {
        let mut arguments: Vec<Argument> = addresses.iter().copied().map(Address).collect();
        arguments.push(Long(count as i64));
        arguments.extend_from_slice(others);
        Self { name, blocks: count.div_ceil(THREADS), threads: THREADS, arguments }
    }
}
