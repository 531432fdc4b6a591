//! From a stored feature map to the tokens that the Vision Transformer reads.

use shards::{MeanStd, Moments};
use sources::Source;
use vit::{Collapse, ModelConfig};

/// Added to a token's variance, as in PyTorch's `LayerNorm`; it matters only where a patch is all of one tone.
const PATCH_NORM_EPSILON: f32 = 1e-5;

/// Cuts one source's maps into standardised tokens.
#[derive(Debug)]
pub(crate) struct TokenCutter {
    side: usize,
    channels: usize,
    grid: usize,
    patch_side: usize,
    collapse: Collapse,
    norm: bool,
    /// Mean and reciprocal standard deviation per channel, of what the tokens are cut from.
    scales: Vec<[f32; 2]>,
}

impl TokenCutter {
    /// For maps of `source`, (side, side, channels), as `model` wants its tokens.
    pub(crate) fn new(source: Source, model: &ModelConfig, moments: &Moments) -> Self {
        let &ModelConfig { grid, collapse, patch_norm, .. } = model;
        // A channel that never varies carries nothing; dividing by its deviation would carry noise.
        const SMALLEST_STD: f32 = 1e-6;
        let scale = |moment: &MeanStd| [moment.mean, 1.0 / moment.std.max(SMALLEST_STD)];
        let scales = match collapse {
            Collapse::None => moments.channels.iter().map(scale).collect(),
            Collapse::Mean => vec![scale(&moments.channel_mean)],
            Collapse::Max => vec![scale(&moments.channel_max)],
        };
        let (side, channels) = (source.side(), source.channels());
        let norm = patch_norm && (collapse == Collapse::None || source == Source::Orig);
        Self { side, channels, grid, patch_side: source.patch_side(grid), collapse, norm, scales }
    }

    /// Numbers per token.
    pub(crate) fn token_width(&self) -> usize {
        self.patch_side * self.patch_side * self.scales.len()
    }

    /// Appends one image's tokens, (grid², token width) with a patch's values in the order row, column,
    /// channel, to `tokens`.
    pub(crate) fn cut(&self, map: &[f32], tokens: &mut Vec<f32>) {
        let collapsed: Vec<f32>;
        let map = match self.collapse {
            Collapse::None => map,
            Collapse::Mean => {
                let channels = self.channels as f32;
                collapsed = map.chunks_exact(self.channels).map(|pixel| pixel.iter().sum::<f32>() / channels).collect();
                &collapsed
            }
            Collapse::Max => {
                let max = |pixel: &[f32]| pixel.iter().copied().fold(f32::MIN, f32::max);
                collapsed = map.chunks_exact(self.channels).map(max).collect();
                &collapsed
            }
        };
        let channels = self.scales.len();
        // Where a token begins in the map; several share a pixel if the grid is finer than the map.
        let at = |token: usize| token * self.side / self.grid;
        for gy in 0..self.grid {
            for gx in 0..self.grid {
                let begin = tokens.len();
                for y in at(gy)..at(gy) + self.patch_side {
                    let first = (y * self.side + at(gx)) * channels;
                    for pixel in map[first..first + self.patch_side * channels].chunks_exact(channels) {
                        tokens
                            .extend(pixel.iter().zip(&self.scales).map(|(value, [mean, rate])| (value - mean) * rate));
                    }
                }
                if self.norm {
                    normalise(&mut tokens[begin..]);
                }
            }
        }
    }
}

/// Brings `token` to mean 0 and variance 1.
fn normalise(token: &mut [f32]) {
    let count = token.len() as f32;
    let mean = sum(token, |value| value) / count;
    let variance = sum(token, |value| (value - mean) * (value - mean)) / count;
    let rate = 1.0 / (variance + PATCH_NORM_EPSILON).sqrt();
    token.iter_mut().for_each(|value| *value = (*value - mean) * rate);
}

/// The sum of `term` over `values`, in as many parts as a vector register has lanes.
fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut parts = [0.0; LANES];
    let whole = values.chunks_exact(LANES);
    let rest: f32 = whole.remainder().iter().map(|value| term(*value)).sum();
    for chunk in whole {
        parts.iter_mut().zip(chunk).for_each(|(part, value)| *part += term(*value));
    }
    rest + parts.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(channels: usize) -> Moments {
        let plain = MeanStd { mean: 0.0, std: 1.0 };
        let channel = |c| MeanStd { mean: c as f32, std: 2.0 };
        Moments { channels: (0..channels).map(channel).collect(), channel_mean: plain, channel_max: plain }
    }

    fn plain(grid: usize, collapse: Collapse) -> ModelConfig {
        ModelConfig { grid, collapse, patch_norm: false, ..ModelConfig::default() }
    }

    #[test]
    fn a_normalised_token_has_mean_0_and_variance_1() {
        for source in [Source::Orig, Source::Fm4] {
            let map: Vec<f32> = (0..source.values_per_image()).map(|i| (i * i % 1013) as f32).collect();
            let cut = |model: &ModelConfig| {
                let mut tokens = Vec::new();
                TokenCutter::new(source, model, &moments(source.channels())).cut(&map, &mut tokens);
                tokens
            };
            let tokens = cut(&ModelConfig::default());
            for token in tokens.chunks_exact(tokens.len() / 49) {
                let mean = token.iter().sum::<f32>() / token.len() as f32;
                let variance = token.iter().map(|value| value * value).sum::<f32>() / token.len() as f32;
                assert!(mean.abs() < 1e-4 && (variance - 1.0).abs() < 1e-3, "{source}: {mean}, {variance}");
            }
            // A collapsed map's token of FM4 is one number, whose variance says nothing.
            let collapsed = ModelConfig { collapse: Collapse::Mean, ..ModelConfig::default() };
            let unchanged = cut(&collapsed) == cut(&plain(7, Collapse::Mean));
            assert_eq!(unchanged, source == Source::Fm4);
        }
    }

    #[test]
    fn a_token_is_its_patch_standardised() {
        let source = Source::Fm3;
        let (side, channels) = (source.side(), source.channels());
        let map: Vec<f32> = (0..source.values_per_image()).map(|i| (i % 1013) as f32).collect();
        let cutter = TokenCutter::new(source, &plain(7, Collapse::None), &moments(channels));
        let mut tokens = Vec::new();
        cutter.cut(&map, &mut tokens);
        assert_eq!(tokens.len(), 49 * cutter.token_width());
        // Token (2, 5), pixel (1, 0) of its patch, channel 17.
        let got = tokens[(2 * 7 + 5) * cutter.token_width() + 2 * channels + 17];
        assert_eq!(got, (map[((2 * 2 + 1) * side + 5 * 2) * channels + 17] - 17.0) / 2.0);
    }

    #[test]
    fn collapsing_leaves_one_channel() {
        let source = Source::Fm4;
        let map: Vec<f32> = (0..source.values_per_image()).map(|i| (i % 512) as f32).collect();
        for (collapse, expected) in [(Collapse::Mean, 255.5), (Collapse::Max, 511.0)] {
            let cutter = TokenCutter::new(source, &plain(7, collapse), &moments(512));
            let mut tokens = Vec::new();
            cutter.cut(&map, &mut tokens);
            assert_eq!((cutter.token_width(), tokens), (1, vec![expected; 49]));
        }
    }

    #[test]
    fn a_grid_finer_than_the_map_repeats_pixels() {
        let map: Vec<f32> = (0..49).flat_map(|pixel| vec![pixel as f32; 512]).collect();
        let cutter = TokenCutter::new(Source::Fm4, &plain(14, Collapse::Max), &moments(512));
        let mut tokens = Vec::new();
        cutter.cut(&map, &mut tokens);
        assert_eq!(tokens.len(), 196);
        assert_eq!(tokens[..4], [0.0, 0.0, 1.0, 1.0]);
        assert_eq!((tokens[14], tokens[28]), (0.0, 7.0));
    }
}
