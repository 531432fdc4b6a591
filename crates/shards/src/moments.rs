use multiversion::multiversion;
use serde::{Deserialize, Serialize};

/// Values that are summed side by side.
const LANES: usize = 16;

/// Sums over pixels, from which [`Moments`] of the whole feature are made without
/// reading it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelSums {
    /// Pixels that were summed.
    pixels: u64,
    /// Per channel: sum and sum of squares.
    channels: Vec<[f64; 2]>,
    /// Of the map of channel means: sum and sum of squares.
    channel_mean: [f64; 2],
    /// Of the map of channel maxima: sum and sum of squares.
    channel_max: [f64; 2],
}

/// Mean and standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanStd {
    /// Mean.
    pub mean: f32,
    /// Standard deviation (of the population).
    pub std: f32,
}

/// Mean and standard deviation of a feature map over the training images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Per channel.
    pub channels: Vec<MeanStd>,
    /// Of the map that is left after averaging over the channels.
    pub channel_mean: MeanStd,
    /// Of the map that is left after taking the maximum over the channels.
    pub channel_max: MeanStd,
}

impl ChannelSums {
    /// Nothing summed yet, for `channels` channels.
    pub fn new(channels: usize) -> Self {
        Self { pixels: 0, channels: vec![[0.0; 2]; channels], channel_mean: [0.0; 2], channel_max: [0.0; 2] }
    }

    /// How many channels are summed.
    pub(crate) const fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Adds the pixels of one row, (pixels, channels), in f32 before they go into the sums in f64. `row_sums` is memory
    /// to work in.
    pub fn add_row(&mut self, row: &[f32], row_sums: &mut Vec<f32>) {
        let channels = self.channels.len();
        self.pixels += (row.len() / channels) as u64;
        row_sums.clear();
        row_sums.resize(2 * channels, 0.0);
        let (plain, squared) = row_sums.split_at_mut(channels);
        let [mean, max] = add_pixels(row, plain, squared);
        merge(&mut self.channel_mean, &mean);
        merge(&mut self.channel_max, &max);
        for (channel, (plain, squared)) in self.channels.iter_mut().zip(plain.iter().zip(squared.iter())) {
            channel[0] += f64::from(*plain);
            channel[1] += f64::from(*squared);
        }
    }

    /// Forgets what was summed.
    pub fn clear(&mut self) {
        self.pixels = 0;
        self.channels.fill([0.0; 2]);
        (self.channel_mean, self.channel_max) = ([0.0; 2], [0.0; 2]);
    }

    /// Adds the sums of other pixels.
    pub fn merge(&mut self, other: &Self) {
        self.pixels = self.pixels.saturating_add(other.pixels);
        self.channels.iter_mut().zip(&other.channels).for_each(|(into, from)| merge(into, from));
        merge(&mut self.channel_mean, &other.channel_mean);
        merge(&mut self.channel_max, &other.channel_max);
    }

    /// The moments of all that was summed; zero mean and unit deviation if that is nothing.
    pub fn moments(&self) -> Moments {
        let of = |sums: &[f64; 2]| {
            if self.pixels == 0 {
                return MeanStd { mean: 0.0, std: 1.0 };
            }
            let mean = sums[0] / self.pixels as f64;
            let variance = (sums[1] / self.pixels as f64 - mean * mean).max(0.0);
            MeanStd { mean: mean as f32, std: variance.sqrt() as f32 }
        };
        Moments {
            channels: self.channels.iter().map(of).collect(),
            channel_mean: of(&self.channel_mean),
            channel_max: of(&self.channel_max),
        }
    }
}

/// Adds pixels to their channels' sums and sums of squares. Gives the sum and sum of squares of the pixels' means over the
/// channels, and of their maxima.
///
/// Sixteen lanes, whatever the registers: every processor adds in the same order.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn add_pixels(pixels: &[f32], plain: &mut [f32], squared: &mut [f32]) -> [[f64; 2]; 2] {
    let channels = plain.len();
    let (mut means, mut maxima) = ([0.0; 2], [0.0; 2]);
    for pixel in pixels.chunks_exact(channels) {
        let (mut total, mut largest) = ([0.0f32; LANES], [f32::MIN; LANES]);
        let whole = channels / LANES * LANES;
        let sums = plain[..whole].chunks_exact_mut(LANES).zip(squared[..whole].chunks_exact_mut(LANES));
        for (values, (plain, squared)) in pixel[..whole].chunks_exact(LANES).zip(sums) {
            for i in 0..LANES {
                let value = values[i];
                plain[i] += value;
                squared[i] += value * value;
                total[i] += value;
                largest[i] = if value > largest[i] { value } else { largest[i] };
            }
        }
        for (i, value) in pixel[whole..].iter().enumerate() {
            plain[whole + i] += value;
            squared[whole + i] += value * value;
            total[i] += value;
            largest[i] = if *value > largest[i] { *value } else { largest[i] };
        }
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                total[i] += total[i + half];
                largest[i] = if largest[i + half] > largest[i] { largest[i + half] } else { largest[i] };
            }
            half /= 2;
        }
        let (mean, max) = (f64::from(total[0]) / channels as f64, f64::from(largest[0]));
        merge(&mut means, &[mean, mean * mean]);
        merge(&mut maxima, &[max, max * max]);
    }
    [means, maxima]
}

fn merge(into: &mut [f64; 2], from: &[f64; 2]) {
    into[0] += from[0];
    into[1] += from[1];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_agree_with_the_definition_however_the_images_are_shared_out() {
        let channels = 24;
        let images: Vec<Vec<f32>> =
            (0..3).map(|i| (0..49 * channels).map(|j| ((i * 997 + j * 31) % 113) as f32 * 0.1).collect()).collect();
        let mut whole = ChannelSums::new(channels);
        let mut merged = ChannelSums::new(channels);
        let mut row_sums = Vec::new();
        let mut one = ChannelSums::new(channels);
        for image in &images {
            one.clear();
            for row in image.chunks(7 * channels) {
                whole.add_row(row, &mut row_sums);
                one.add_row(row, &mut row_sums);
            }
            merged.merge(&one);
        }
        let moments = whole.moments();
        let column: Vec<f64> =
            images.iter().flatten().skip(5).step_by(channels).map(|value| f64::from(*value)).collect();
        let mean = column.iter().sum::<f64>() / column.len() as f64;
        let std = (column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / column.len() as f64).sqrt();
        assert!((f64::from(moments.channels[5].mean) - mean).abs() < 1e-5);
        assert!((f64::from(moments.channels[5].std) - std).abs() < 1e-5);
        let maxima: Vec<f32> = images
            .iter()
            .flat_map(|i| i.chunks(channels))
            .map(|p| p.iter().copied().fold(f32::MIN, f32::max))
            .collect();
        assert!((moments.channel_max.mean - maxima.iter().sum::<f32>() / maxima.len() as f32).abs() < 1e-4);
        for (one, other) in moments.channels.iter().zip(&merged.moments().channels) {
            assert!((one.mean - other.mean).abs() < 1e-6 && (one.std - other.std).abs() < 1e-5);
        }
    }
}
