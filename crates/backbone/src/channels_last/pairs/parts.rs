//! How floats are taken apart.

/// In which order a value's parts lie beside each other, of which 0 is the high one and 1 the low one: each is multiplied by the other
/// factor's in its place.
pub(super) type Order = [usize; PARTS];

/// Parts of a value in memory.
pub(super) const PARTS: usize = 3;

pub(super) const OF_ACTIVATIONS: Order = [0, 1, 0];
pub(super) const OF_FILTERS: Order = [0, 0, 1];

/// Bits of a float that a number of TF32 lacks.
const MISSING_BITS: u32 = 13;

/// The number of TF32 that is nearest; of two the even one. What is no number stays.
fn tf32(value: f32) -> f32 {
    let (bits, half) = (value.to_bits(), (1 << (MISSING_BITS - 1)) - 1);
    let is_odd = bits >> MISSING_BITS & 1;
    if value.is_finite() { f32::from_bits((bits + half + is_odd) >> MISSING_BITS << MISSING_BITS) } else { value }
}

/// Values of so many channels, taken apart: all channels' first parts, then the second, the third, and zeros up to `stored` channels.
pub(super) fn taken_apart(values: &[f32], channels: usize, stored: usize, order: Order) -> Vec<f32> {
    let of_pixel = |pixel: &[f32]| {
        let high: Vec<f32> = pixel.iter().map(|value| tf32(*value)).collect();
        let low: Vec<f32> = pixel.iter().zip(&high).map(|(value, high)| tf32(value - high)).collect();
        let mut parts = order.map(|part| [&high, &low][part].as_slice()).concat();
        parts.resize(stored, 0.0);
        parts
    };
    values.chunks_exact(channels).flat_map(of_pixel).collect()
}

/// The values of so many channels that activations were before they were taken apart.
pub(super) fn joined(pairs: &[f32], channels: usize) -> Vec<f32> {
    let of_pixel = |pixel: &[f32]| -> Vec<f32> {
        pixel[..channels].iter().zip(&pixel[channels..]).map(|(high, low)| high + low).collect()
    };
    pairs.chunks_exact(PARTS * channels).flat_map(of_pixel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_leave_out_a_rounding_of_the_value() {
        let values: Vec<f32> = (0..10_000).map(|number| ((number as f32) * 0.37).sin() * 3.0).collect();
        let apart = taken_apart(&values, 1, PARTS, OF_ACTIVATIONS);
        for (value, parts) in values.iter().zip(apart.chunks_exact(PARTS)) {
            assert!(parts[..2].iter().all(|part| part.to_bits().trailing_zeros() >= MISSING_BITS || *part == 0.0));
            assert_eq!(parts[0], parts[2]);
            assert!(
                (f64::from(parts[0]) + f64::from(parts[1]) - f64::from(*value)).abs()
                    <= f64::from(value.abs()) / 2_f64.powi(23)
            );
        }
        // A product is what it would be but for the two low parts' one.
        let filters = taken_apart(&values, 1, PARTS, OF_FILTERS);
        for ((value, parts), filter) in values.iter().zip(apart.chunks_exact(PARTS)).zip(filters.chunks_exact(PARTS)) {
            let product: f64 = parts.iter().zip(filter).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum();
            assert!((product - f64::from(*value).powi(2)).abs() <= f64::from(*value).powi(2) / 2_f64.powi(21));
        }
    }

    #[test]
    fn what_is_no_number_stays_and_zeros_fill_up() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!joined(&taken_apart(&[value], 1, PARTS, OF_ACTIVATIONS), 1)[0].is_finite());
        }
        assert_eq!(taken_apart(&[1.0, 2.0], 2, 8, OF_FILTERS), [1.0, 2.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
