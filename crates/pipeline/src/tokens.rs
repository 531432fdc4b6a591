//! From a stored feature map to the tokens that the Vision Transformer reads.

use std::sync::Arc;

use kernels::{Isa, Patches, Standardise};
use shards::{MeanStd, Moments};
use sources::Source;
use vit::{Collapse, ModelConfig};

/// Cuts one source's maps into tokens.
#[derive(Debug)]
pub(crate) struct TokenCutter {
    /// Channels of a map before it is collapsed.
    channels: usize,
    collapse: Collapse,
    standardise: Arc<Standardise>,
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
        let (side, patch_side) = (source.side(), source.patch_side(grid));
        let patches = Patches { side, grid, patch_side, channels: scales.len() };
        let norm = patch_norm && (collapse == Collapse::None || source == Source::Orig);
        let standardise = Arc::new(Standardise::new(&scales, patches, norm));
        Self { channels: source.channels(), collapse, standardise }
    }

    /// Numbers per token.
    pub(crate) fn token_width(&self) -> usize {
        self.standardise.patches().token_width()
    }

    /// Whether tokens are nothing but a map's values, standardised.
    pub(crate) fn keeps_channels(&self) -> bool {
        self.collapse == Collapse::None
    }

    /// How tokens are standardised.
    pub(crate) fn standardise(&self) -> &Arc<Standardise> {
        &self.standardise
    }

    /// Numbers of all tokens of an image.
    pub(crate) fn values_per_image(&self) -> usize {
        self.standardise.patches().tokens() * self.token_width()
    }

    /// Cuts one image's map into standardised `tokens`, (grid², token width) with a patch's values in the order row,
    /// column, channel.
    pub(crate) fn cut(&self, isa: Isa, map: &[f32], tokens: &mut [f32]) {
        let collapsed: Vec<f32>;
        let map = match self.collapse {
            Collapse::None => map,
            Collapse::Mean => {
                let channels = self.channels as f32;
                collapsed = map.chunks_exact(self.channels).map(|pixel| pixel.iter().sum::<f32>() / channels).collect();
                &collapsed[..]
            }
            Collapse::Max => {
                let max = |pixel: &[f32]| pixel.iter().copied().fold(f32::MIN, f32::max);
                collapsed = map.chunks_exact(self.channels).map(max).collect();
                &collapsed[..]
            }
        };
        let patches = self.standardise.patches();
        for (token, values) in tokens.chunks_exact_mut(self.token_width()).enumerate() {
            for (y, run) in values.chunks_exact_mut(patches.run()).enumerate() {
                run.copy_from_slice(&map[patches.start(token, y)..][..patches.run()]);
            }
            self.standardise.token(isa, values);
        }
    }
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

    fn tokens_of(cutter: &TokenCutter, map: &[f32]) -> Vec<f32> {
        let mut tokens = vec![f32::NAN; cutter.values_per_image()];
        cutter.cut(Isa::Portable, map, &mut tokens);
        tokens
    }

    #[test]
    fn a_normalised_token_has_mean_0_and_variance_1() {
        for source in [Source::Orig, Source::Fm4] {
            let map: Vec<f32> = (0..source.values_per_image()).map(|i| (i * i % 1013) as f32).collect();
            let cut =
                |model: &ModelConfig| tokens_of(&TokenCutter::new(source, model, &moments(source.channels())), &map);
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
        let tokens = tokens_of(&cutter, &map);
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
            let tokens = tokens_of(&cutter, &map);
            assert_eq!((cutter.token_width(), tokens), (1, vec![expected; 49]));
        }
    }

    #[test]
    fn a_grid_finer_than_the_map_repeats_pixels() {
        let map: Vec<f32> = (0..49).flat_map(|pixel| vec![pixel as f32; 512]).collect();
        let cutter = TokenCutter::new(Source::Fm4, &plain(14, Collapse::Max), &moments(512));
        let tokens = tokens_of(&cutter, &map);
        assert_eq!(tokens.len(), 196);
        assert_eq!(tokens[..4], [0.0, 0.0, 1.0, 1.0]);
        assert_eq!((tokens[14], tokens[28]), (0.0, 7.0));
    }
}
