use std::ops::Range;

use rand::{Rng, RngExt, seq::IndexedRandom as _};

/// No input grows beyond this.
const MOST_BYTES: usize = 1 << 16;

/// Bytes at which parsers take turns.
const BYTES: &[u8] =
    &[0, 1, 0x1b, 0x20, 0x7f, 0x80, 0xbf, 0xc0, 0xfe, 0xff, b'0', b'9', b'-', b'\n', b'\r', b'"', b'\\'];

/// Numbers at which sizes overflow.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    1 << 48,
    1 << 60,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 7,
    u64::MAX,
];

/// The same and others as text.
const DIGITS: &[&str] = &[
    "0",
    "1",
    "-1",
    "00",
    "255",
    "256",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e9",
    "1e400",
    "-0.0",
    "0x10",
    "NaN",
    "inf",
    "1_000",
    "+7",
];

/// Changes valid inputs into such as nobody foresaw.
pub(crate) struct Mutator<'a> {
    /// What inputs are made of; at least one.
    pub(crate) seeds: &'a [Vec<u8>],
    /// Words of the format.
    pub(crate) dictionary: &'a [&'a [u8]],
}

impl Mutator<'_> {
    /// A seed with one change, in every other case another, in half of these a third, and so on: few, since a parser stops
    /// at the first fault that it finds.
    pub(crate) fn input(&self, random: &mut impl Rng) -> Vec<u8> {
        let mut bytes = self.seed(random).to_vec();
        loop {
            self.change(&mut bytes, random);
            bytes.truncate(MOST_BYTES);
            if random.random() {
                return bytes;
            }
        }
    }

    fn change(&self, bytes: &mut Vec<u8>, random: &mut impl Rng) {
        let piece = range(bytes, 64, random);
        match random.random_range(0..12) {
            0 => flip_bit(bytes, random),
            1 => bytes[piece].fill_with(|| chosen(BYTES, random)),
            2 => bytes[piece].iter_mut().for_each(|byte| *byte = like(*byte, random)),
            3 => overwrite_number(bytes, random),
            4 => replace_digits(bytes, random),
            5 => drop(bytes.drain(piece)),
            6 => {
                let length = random.random_range(0..16);
                let beside = bytes.get(piece.start).copied().unwrap_or_default();
                let inserted: Vec<u8> = std::iter::repeat_with(|| like(beside, random)).take(length).collect();
                bytes.splice(piece.start..piece.start, inserted);
            }
            7 => {
                // Some nesting is endless, some counting quadratic.
                let times = 1 << random.random_range(0..14);
                let repeated = bytes[piece.clone()].repeat(times);
                bytes.splice(piece.start..piece.start, repeated.into_iter().take(MOST_BYTES));
            }
            8 => {
                let copied = bytes[range(bytes, 256, random)].to_vec();
                bytes.splice(piece, copied);
            }
            9 => {
                let other = self.seed(random);
                let spliced = other[range(other, other.len(), random)].to_vec();
                let replaced = range(bytes, bytes.len(), random);
                bytes.splice(replaced, spliced);
            }
            10 => bytes.truncate(piece.start),
            _ => {
                let word = self.dictionary.choose(random).copied().unwrap_or_default();
                let replaced = if random.random() { piece.start..piece.start } else { piece };
                bytes.splice(replaced, word.iter().copied());
            }
        }
    }

    fn seed(&self, random: &mut impl Rng) -> &[u8] {
        self.seeds.choose(random).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A byte for the place of `byte`: in a text, mostly one of a text.
fn like(byte: u8, random: &mut impl Rng) -> u8 {
    let is_text = byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    if is_text && random.random_range(0..32) > 0 { random.random_range(b' '..0x7f) } else { random.random() }
}

fn chosen<T: Copy + Default>(values: &[T], random: &mut impl Rng) -> T {
    values.choose(random).copied().unwrap_or_default()
}

/// A part of `bytes` that is mostly short and at most `longest`.
fn range(bytes: &[u8], longest: usize, random: &mut impl Rng) -> Range<usize> {
    let start = random.random_range(0..=bytes.len());
    let longest = longest.min(bytes.len() - start);
    let most = if random.random() { longest.min(4) } else { longest };
    start..start + random.random_range(0..=most)
}

fn flip_bit(bytes: &mut [u8], random: &mut impl Rng) {
    if !bytes.is_empty() {
        let at = random.random_range(0..bytes.len());
        // The highest bit would make a text one that is no UTF-8: seldom.
        let bits = if random.random() { 7 } else { 8 };
        bytes[at] ^= 1 << random.random_range(0..bits);
    }
}

/// Writes a number over 1 to 8 bytes, in either order.
fn overwrite_number(bytes: &mut [u8], random: &mut impl Rng) {
    let start = random.random_range(0..=bytes.len());
    let width = (1 << random.random_range(0..4)).min(bytes.len() - start);
    let mut number = chosen(NUMBERS, random).wrapping_add(random.random_range(0..3)).wrapping_sub(1).to_le_bytes();
    let number = &mut number[..width];
    if random.random() {
        number.reverse();
    }
    bytes[start..start + width].copy_from_slice(number);
}

/// Puts another number in the place of one that is written in digits.
fn replace_digits(bytes: &mut Vec<u8>, random: &mut impl Rng) {
    let from = random.random_range(0..=bytes.len());
    let Some(start) = (from..bytes.len()).find(|at| bytes[*at].is_ascii_digit()) else { return };
    let end = (start..bytes.len()).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(bytes.len());
    bytes.splice(start..end, DIGITS.choose(random).copied().unwrap_or_default().bytes());
}
