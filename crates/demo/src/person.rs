//! Who is drawn: proportions, tones and hair, which carry no information about the expression.

use rand::{Rng, RngExt};

/// How much hair there is, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hair {
    /// None.
    Bald,
    /// Above the hairline only.
    Short,
    /// Down both sides of the head as well.
    Long,
}

/// One person. Lengths are in face units: the head is about 2 wide; y grows downwards from its centre.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    /// Half the head's width.
    pub(crate) head_width: f32,
    /// Half the head's height.
    pub(crate) head_height: f32,
    /// From the middle line to an eye's centre.
    pub(crate) eye_spacing: f32,
    /// 1 is the common size.
    pub(crate) eye_size: f32,
    /// From an eye's centre up to its brow at rest.
    pub(crate) brow_height: f32,
    /// Half the brow's thickness at its inner end.
    pub(crate) brow_thickness: f32,
    /// How far the brow's middle stands above its ends.
    pub(crate) brow_arch: f32,
    /// From the eyes' line down to the nostrils.
    pub(crate) nose_length: f32,
    /// The mouth's height below the head's centre.
    pub(crate) mouth_y: f32,
    /// Half the mouth's width.
    pub(crate) mouth_width: f32,
    /// 1 is the common thickness.
    pub(crate) lip_fullness: f32,
    /// Resting droop (positive) or lift of the mouth's corners: resting faces differ too.
    pub(crate) mouth_droop: f32,
    /// Where the forehead ends, as a fraction of `head_height`.
    pub(crate) hairline: f32,
    /// The cut.
    pub(crate) hair: Hair,
    /// Grey of the skin, 0 black to 1 white.
    pub(crate) skin: f32,
    /// Grey of hair and brows, always darker than the skin.
    pub(crate) hair_tone: f32,
    /// How visible wrinkles are, 0 to 1.
    pub(crate) wrinkles: f32,
}

impl Person {
    /// Draws a person at random.
    pub(crate) fn sample(rng: &mut impl Rng) -> Self {
        let skin = rng.random_range(0.45..0.88);
        Self {
            head_width: rng.random_range(0.92..1.06),
            head_height: rng.random_range(1.18..1.34),
            eye_spacing: rng.random_range(0.40..0.46),
            eye_size: rng.random_range(0.9..1.12),
            brow_height: rng.random_range(0.27..0.34),
            brow_thickness: rng.random_range(0.03..0.06),
            brow_arch: rng.random_range(0.03..0.10),
            nose_length: rng.random_range(0.42..0.52),
            mouth_y: rng.random_range(0.58..0.68),
            mouth_width: rng.random_range(0.34..0.42),
            lip_fullness: rng.random_range(0.7..1.3),
            mouth_droop: rng.random_range(-0.02..0.03),
            hairline: rng.random_range(0.62..0.82),
            hair: match rng.random_range(0..10) {
                0..2 => Hair::Bald,
                2..6 => Hair::Short,
                _ => Hair::Long,
            },
            skin,
            hair_tone: skin * rng.random_range(0.12..0.55),
            wrinkles: rng.random_range(0.35..1.0),
        }
    }
}
