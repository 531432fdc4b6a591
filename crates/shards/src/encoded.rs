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
}

impl EncodedMap {
    /// Nothing yet, for maps of `source`.
    pub fn new(source: Source, dtype: Dtype) -> Self {
        let bytes = Vec::with_capacity(source.values_per_image() * dtype.size_bytes());
        Self { dtype, bytes, sums: ChannelSums::new(source.channels()), not_finite: None, row_sums: Vec::new() }
    }

    /// Encodes a map's rows, (side, channels) each, in place of what was there.
    pub fn encode<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        self.bytes.clear();
        self.sums.clear();
        self.not_finite = None;
        for row in rows {
            if let Err(value) = self.dtype.encode(row, &mut self.bytes) {
                self.not_finite = Some(value);
                return;
            }
            self.sums.add_row(row, &mut self.row_sums);
        }
    }
}
