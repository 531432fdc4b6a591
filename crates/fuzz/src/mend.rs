//! Lengths and checksums that fit whatever they cover, so that what lies behind them is reached.

use serde::de::IgnoredAny;
use serde_json::{Deserializer, Value};

const PNG_BEGINNING: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Types of chunks, by which a PNG's chunks are found again.
const PNG_TYPES: [&[u8; 4]; 12] =
    [b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"gAMA", b"acTL", b"fcTL", b"fdAT"];

/// A PNG of the same chunks (length, type, data, checksum), wherever their types stand.
pub(crate) fn png(bytes: &[u8]) -> Vec<u8> {
    let is_type = |at: &usize| bytes[*at..].first_chunk().is_some_and(|four| PNG_TYPES.contains(&four));
    let starts: Vec<usize> = (0..bytes.len()).filter(is_type).collect();
    let mut mended = PNG_BEGINNING.to_vec();
    for (index, start) in starts.iter().enumerate() {
        // Before the next type come this one's checksum and its own length.
        let next = starts.get(index + 1).map_or(bytes.len().saturating_sub(4), |next| next - 8.min(*next));
        let chunk = &bytes[*start..next.max(start + 4)];
        mended.extend_from_slice(&(chunk.len() as u32 - 4).to_be_bytes());
        mended.extend_from_slice(chunk);
        mended.extend_from_slice(&crc32fast::hash(chunk).to_be_bytes());
    }
    mended
}

/// A safetensors file with the length of its header, and as many values as the header says, if these are few.
pub(crate) fn safetensors(bytes: &[u8]) -> Vec<u8> {
    const MOST_VALUE_BYTES: u64 = 1 << 16;
    let Some((_, rest)) = bytes.split_at_checked(8) else { return bytes.to_vec() };
    let mut values = Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
    let Some(Ok(_)) = values.next() else { return bytes.to_vec() };
    let (header, values) = rest.split_at(values.byte_offset());
    let parsed: Value = serde_json::from_slice(header).unwrap_or_default();
    let ends = parsed.as_object().into_iter().flatten().filter_map(|(_, tensor)| tensor["data_offsets"][1].as_u64());
    let mut values = values.to_vec();
    if let Some(end) = ends.max().filter(|end| *end <= MOST_VALUE_BYTES) {
        values.resize(end as usize, 0);
    }
    [&(header.len() as u64).to_le_bytes(), header, &values].concat()
}

/// The same of a file of tensors of `vit`, with its checksum.
pub(crate) fn tensor_file(bytes: &[u8]) -> Vec<u8> {
    vit::fuzzing::resealed(&safetensors(bytes))
}
