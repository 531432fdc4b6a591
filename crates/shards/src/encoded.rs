use half::{f16, slice::HalfFloatSliceExt as _};
use sources::Source;

use crate::{ChannelSums, Dtype};

/// One image's feature map as a shard stores it, and its sums: made where the map is computed, written elsewhere.
#[derive(Clone, Debug)]
pub struct EncodedMap {
    dtype: Dtype,
    pub(crate) bytes: Vec<u8>,
    pub(crate) sums: ChannelSums,
    /// The first value that is not finite in `dtype`.
    pub(crate) not_finite: Option<f32>,
    row_sums: Vec<f32>,
    row: Vec<f32>,
}

impl EncodedMap {
    /// Nothing yet, for maps of `source`.
    pub fn new(source: Source, dtype: Dtype) -> Self {
        let bytes = Vec::with_capacity(source.values_per_image() * dtype.size_bytes());
        Self {
            dtype,
            bytes,
            sums: ChannelSums::new(source.channels()),
            not_finite: None,
            row_sums: Vec::new(),
            row: Vec::new(),
        }
    }

    /// How it is stored.
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Encodes a map's rows, (side, channels) each, which have been rounded to half precision, in place of what was there.
    pub fn encode_halves<'a>(&mut self, rows: impl Iterator<Item = &'a [f16]>) {
        let mut floats = std::mem::take(&mut self.row);
        self.begin();
        for row in rows {
            floats.resize(row.len(), 0.0);
            row.convert_to_f32_slice(&mut floats);
            if !self.add(&floats) {
                break;
            }
        }
        self.row = floats;
    }

    /// Encodes a map's rows, (side, channels) each, in place of what was there.
    pub fn encode<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        self.begin();
        for row in rows {
            if !self.add(row) {
                return;
            }
        }
    }

    fn begin(&mut self) {
        self.bytes.clear();
        self.sums.clear();
        self.not_finite = None;
    }

    /// Whether the row can be encoded.
    fn add(&mut self, row: &[f32]) -> bool {
        self.not_finite = self.dtype.encode(row, &mut self.bytes).err();
        if self.not_finite.is_none() {
            self.sums.add_row(row, &mut self.row_sums);
        }
        self.not_finite.is_none()
    }
}
