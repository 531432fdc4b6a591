use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use bytemuck::{Pod, Zeroable};

/// Bytes in a cache line.
pub(crate) const LINE_BYTES: usize = 64;

/// From one row of `numbers` to the next: an odd number of cache lines. Rows that a power of two separates fall into the same
/// few places of the first-level cache, and a product that walks down a column would find none of them there.
pub(crate) const fn row_stride<T>(numbers: usize) -> usize {
    ((numbers * size_of::<T>()).div_ceil(LINE_BYTES) | 1) * LINE_BYTES / size_of::<T>()
}

/// A cache line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

/// Numbers that begin at a cache line. Where channels come in sixteens, no register is then ever loaded from or stored
/// to two lines at once.
#[derive(Clone, Debug)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    numbers: PhantomData<T>,
}

impl<T: Pod> Aligned<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line::zeroed(); Self::lines(len)], len, numbers: PhantomData }
    }

    /// Makes it at least `len` long; what is new is zero.
    pub(crate) fn grow_to(&mut self, len: usize) {
        if len > self.len {
            self.lines.resize(Self::lines(len), Line::zeroed());
            self.len = len;
        }
    }

    const fn lines(len: usize) -> usize {
        (len * size_of::<T>()).div_ceil(LINE_BYTES)
    }
}

impl<T: Pod> Default for Aligned<T> {
    fn default() -> Self {
        Self::zeros(0)
    }
}

impl<T: Pod> From<&[T]> for Aligned<T> {
    fn from(values: &[T]) -> Self {
        let mut aligned = Self::zeros(values.len());
        aligned.copy_from_slice(values);
        aligned
    }
}

impl<T: Pod> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}
