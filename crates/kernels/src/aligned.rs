use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// Floats in a cache line.
const LINE: usize = 16;

/// A cache line of 64 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Floats that begin at a cache line. Where channels come in sixteens, no register is then ever loaded from or stored
/// to two lines at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct AlignedFloats {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedFloats {
    pub(crate) fn zeros(len: usize) -> Self {
        Self { lines: vec![Line::zeroed(); len.div_ceil(LINE)], len }
    }

    /// Makes it at least `len` long; what is new is zero.
    pub(crate) fn grow_to(&mut self, len: usize) {
        if len > self.len {
            self.lines.resize(len.div_ceil(LINE), Line::zeroed());
            self.len = len;
        }
    }
}

impl From<&[f32]> for AlignedFloats {
    fn from(values: &[f32]) -> Self {
        let mut floats = Self::zeros(values.len());
        floats.copy_from_slice(values);
        floats
    }
}

impl Deref for AlignedFloats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for AlignedFloats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}
