use choice::choice;
use half::{bf16, f16, slice::HalfFloatSliceExt};

choice! {
    /// How a feature value is stored.
    #[derive(Default)]
    pub enum Dtype for "extract.dtype" {
        /// IEEE half precision: 11 significant bits, up to 65,504.
        #[default]
        F16 = "f16",
        /// bfloat16: 8 significant bits, the range of f32.
        Bf16 = "bf16",
        /// Single precision.
        F32 = "f32",
    }
}

impl Dtype {
    /// Bytes per value.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    pub(crate) const fn safetensors(self) -> safetensors::Dtype {
        match self {
            Self::F16 => safetensors::Dtype::F16,
            Self::Bf16 => safetensors::Dtype::BF16,
            Self::F32 => safetensors::Dtype::F32,
        }
    }

    /// Rounds `values` to this dtype and appends their little-endian bytes to `bytes`.
    ///
    /// Fails with the first value that is not finite after rounding.
    pub fn encode(self, values: &[f32], bytes: &mut Vec<u8>) -> Result<(), f32> {
        const CHUNK: usize = 1024;
        let overflow = |chunk: &[f32], finite: &dyn Fn(f32) -> bool| {
            chunk.iter().copied().find(|value| !finite(*value)).unwrap_or(f32::NAN)
        };
        for chunk in values.chunks(CHUNK) {
            match self {
                Self::F16 => {
                    let mut rounded = [f16::ZERO; CHUNK];
                    let rounded = &mut rounded[..chunk.len()];
                    rounded.convert_from_f32_slice(chunk);
                    if !rounded.iter().fold(true, |all, value| all & ((value.to_bits() & 0x7C00) != 0x7C00)) {
                        return Err(overflow(chunk, &|value| f16::from_f32(value).is_finite()));
                    }
                    bytes.extend(rounded.iter().flat_map(|value| value.to_le_bytes()));
                }
                Self::Bf16 => {
                    let mut rounded = [bf16::ZERO; CHUNK];
                    let rounded = &mut rounded[..chunk.len()];
                    rounded.convert_from_f32_slice(chunk);
                    if !rounded.iter().all(|value| value.is_finite()) {
                        return Err(overflow(chunk, &|value| bf16::from_f32(value).is_finite()));
                    }
                    bytes.extend(rounded.iter().flat_map(|value| value.to_le_bytes()));
                }
                Self::F32 => {
                    if !chunk.iter().all(|value| value.is_finite()) {
                        return Err(overflow(chunk, &|value| value.is_finite()));
                    }
                    bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
                }
            }
        }
        Ok(())
    }

    /// Widens stored bytes to f32. `bytes` holds exactly `values.len()` values.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        debug_assert_eq!(bytes.len(), values.len() * self.size_bytes());
        const CHUNK: usize = 1024;
        let pairs = bytes.chunks(CHUNK * self.size_bytes()).zip(values.chunks_mut(CHUNK));
        for (bytes, values) in pairs {
            let halves = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            match self {
                Self::F16 => {
                    let mut stored = [f16::ZERO; CHUNK];
                    stored.iter_mut().zip(halves).for_each(|(to, bits)| *to = f16::from_bits(bits));
                    stored[..values.len()].convert_to_f32_slice(values);
                }
                Self::Bf16 => {
                    values.iter_mut().zip(halves).for_each(|(to, bits)| *to = bf16::from_bits(bits).to_f32());
                }
                Self::F32 => {
                    for (to, four) in values.iter_mut().zip(bytes.chunks_exact(4)) {
                        *to = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_within_half_a_unit_in_the_last_place() {
        let values: Vec<f32> = (0..3000).map(|i| (i as f32 - 1500.0) * 0.0137).collect();
        for (dtype, relative) in [(Dtype::F16, 4.9e-4), (Dtype::Bf16, 4e-3), (Dtype::F32, 0.0)] {
            let mut bytes = Vec::new();
            dtype.encode(&values, &mut bytes).unwrap();
            assert_eq!(bytes.len(), values.len() * dtype.size_bytes());
            let mut back = vec![0.0; values.len()];
            dtype.decode(&bytes, &mut back);
            for (value, back) in values.iter().zip(&back) {
                assert!((value - back).abs() <= relative * value.abs(), "{dtype}: {value} became {back}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut bytes = Vec::new();
        assert_eq!(Dtype::F16.encode(&[1.0, 70_000.0], &mut bytes), Err(70_000.0));
        assert!(Dtype::F32.encode(&[f32::NAN], &mut bytes).unwrap_err().is_nan());
        assert!(Dtype::Bf16.encode(&[70_000.0], &mut bytes).is_ok());
    }
}
