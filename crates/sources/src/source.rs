use std::{fmt, str::FromStr};

use choice::nearest;
use serde::{Deserialize, Serialize};

/// One input of the Vision Transformer: the original image, or the output of one ResNet-18 stage.
///
/// Shapes at a 224-pixel input follow from He et al. (2016), Table 1: each stage halves the side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The image itself, 224×224 pixels.
    Orig,
    /// Output of stage 1 (`layer1`): 64 channels of 56×56.
    Fm1,
    /// Output of stage 2 (`layer2`): 128 channels of 28×28.
    Fm2,
    /// Output of stage 3 (`layer3`): 256 channels of 14×14.
    Fm3,
    /// Output of stage 4 (`layer4`): 512 channels of 7×7.
    Fm4,
}

impl Source {
    /// All sources, in canonical order.
    pub const ALL: [Self; 5] = [Self::Orig, Self::Fm1, Self::Fm2, Self::Fm3, Self::Fm4];

    /// The backbone's feature maps, shallow to deep.
    pub const FEATURE_MAPS: [Self; 4] = [Self::Fm1, Self::Fm2, Self::Fm3, Self::Fm4];

    /// The name used in configurations, paths and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orig => "orig",
            Self::Fm1 => "fm1",
            Self::Fm2 => "fm2",
            Self::Fm3 => "fm3",
            Self::Fm4 => "fm4",
        }
    }

    /// The backbone stage (1–4) after whose last ReLU this feature map is tapped; none for the image.
    pub const fn stage(self) -> Option<usize> {
        match self {
            Self::Orig => None,
            Self::Fm1 => Some(1),
            Self::Fm2 => Some(2),
            Self::Fm3 => Some(3),
            Self::Fm4 => Some(4),
        }
    }

    /// Number of channels. The image counts as one: FERPlus is grey.
    pub const fn channels(self) -> usize {
        match self {
            Self::Orig => 1,
            Self::Fm1 => 64,
            Self::Fm2 => 128,
            Self::Fm3 => 256,
            Self::Fm4 => 512,
        }
    }

    /// Height and width in pixels.
    pub const fn side(self) -> usize {
        match self {
            Self::Orig => 224,
            Self::Fm1 => 56,
            Self::Fm2 => 28,
            Self::Fm3 => 14,
            Self::Fm4 => 7,
        }
    }

    /// Values per image: channels × side × side.
    pub const fn values_per_image(self) -> usize {
        self.channels() * self.side() * self.side()
    }

    /// Side in pixels of the patch that becomes one token on a `grid`×`grid` grid. A map coarser than the grid
    /// (FM4 on 14×14) has patches of one pixel, each of which serves several tokens.
    pub const fn patch_side(self, grid: usize) -> usize {
        let side = self.side() / grid;
        if side == 0 { 1 } else { side }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown source `{got}`, expected one of orig, fm1, fm2, fm3, fm4{}", hint(.nearest))]
pub struct ParseSourceError {
    got: String,
    nearest: Option<&'static str>,
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |word| format!("; did you mean `{word}`?"))
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = text.trim();
        Self::ALL
            .into_iter()
            .find(|source| source.name().eq_ignore_ascii_case(word))
            .ok_or_else(|| ParseSourceError { got: word.to_owned(), nearest: nearest(word, Self::ALL.map(Self::name)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_of_both_grids() {
        let patches = Source::ALL.map(|source| source.patch_side(7));
        assert_eq!(patches, [32, 8, 4, 2, 1]);
        assert_eq!(Source::ALL.map(|source| source.patch_side(14)), [16, 4, 2, 1, 1]);
    }

    #[test]
    fn unknown_source_names_the_nearest() {
        let error = "fm22".parse::<Source>().unwrap_err().to_string();
        assert!(error.contains("did you mean `fm2`?") || error.contains("`fm"), "{error}");
        assert!(error.contains("orig, fm1, fm2, fm3, fm4"), "{error}");
    }
}
