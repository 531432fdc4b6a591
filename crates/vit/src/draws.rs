use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Everything random of a run, from one seed.
///
/// candle's CPU generator cannot be seeded, and its GPU generators differ from it. These numbers are drawn
/// on the CPU whatever the device, so that a seed means the same weights and the same masks everywhere. The
/// state is the seed and how far the stream has been read, which a checkpoint stores.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Position", into = "Position")]
pub struct Draws {
    seed: u64,
    generator: ChaCha8Rng,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    seed: u64,
    stream: u64,
    words: u64,
}

impl From<Position> for Draws {
    fn from(position: Position) -> Self {
        let mut draws = Self::new(position.seed, position.stream);
        draws.generator.set_word_pos(position.words.into());
        draws
    }
}

impl From<Draws> for Position {
    fn from(draws: Draws) -> Self {
        let stream = draws.generator.get_stream();
        // 2^64 words are 64 EiB of random numbers; no run gets there.
        Self { seed: draws.seed, stream, words: draws.generator.get_word_pos() as u64 }
    }
}

impl Draws {
    /// The start of `stream` under `seed`. Streams of one seed are independent of each other.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self { seed, generator }
    }

    /// A uniform number in (0, 1].
    fn uniform(&mut self) -> f64 {
        // The upper 53 bits are what a double holds; 1 is added so that the logarithm below exists.
        ((self.generator.next_u64() >> 11) + 1) as f64 * (-53f64).exp2()
    }

    /// A standard normal number (Box & Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }

    /// `shape` filled from a normal distribution of standard deviation `std`, drawn again beyond two
    /// deviations.
    pub(crate) fn truncated_normal(
        &mut self,
        shape: &[usize],
        std: f64,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let draw = || loop {
            let value = self.normal();
            if value.abs() <= 2.0 {
                break value * std;
            }
        };
        let values: Vec<f64> = std::iter::repeat_with(draw).take(shape.iter().product()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
    }

    /// Fills `mask` with 0 at probability `drop` and 1 / (1 − drop) otherwise, so that its mean is 1.
    pub(crate) fn mask(&mut self, mask: &mut [f32], drop: f64) {
        let threshold = (drop * 2f64.powi(32)) as u64;
        let kept = (1.0 / (1.0 - drop)) as f32;
        mask.fill_with(|| if u64::from(self.generator.next_u32()) < threshold { 0.0 } else { kept });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_continues_where_it_was() {
        let mut draws = Draws::new(7, 1);
        for _ in 0..5 {
            draws.normal();
        }
        draws.generator.next_u32();
        let json = serde_json::to_string(&draws).unwrap();
        let mut restored: Draws = serde_json::from_str(&json).unwrap();
        for _ in 0..100 {
            assert_eq!(draws.generator.next_u32(), restored.generator.next_u32());
        }
        assert_ne!(Draws::new(7, 0).generator.next_u64(), Draws::new(7, 1).generator.next_u64());
    }

    #[test]
    fn numbers_have_the_promised_distribution() {
        let mut draws = Draws::new(0, 0);
        let normal =
            draws.truncated_normal(&[20_000], 0.02, DType::F64, &Device::Cpu).unwrap().to_vec1::<f64>().unwrap();
        let variance = normal.iter().map(|value| value * value).sum::<f64>() / 20_000.0;
        // A standard normal cut at ±2 has variance 1 − 4 φ(2) / (2 Φ(2) − 1) = 0.7737.
        assert!((variance / (0.02 * 0.02) - 0.7737).abs() < 0.02, "{variance}");
        assert!(normal.iter().all(|value| value.abs() <= 0.04));
        let mut mask = vec![0.0; 20_000];
        draws.mask(&mut mask, 0.25);
        let mean = mask.iter().sum::<f32>() / 20_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }
}
