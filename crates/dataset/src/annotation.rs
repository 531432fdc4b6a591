use crate::classes::Emotion;

/// How many annotators chose what: the eight emotions in FERPlus's column order, then "unknown" and
/// "not a face" (NF).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Votes(pub [u8; Votes::COLUMNS]);

impl Votes {
    /// Eight emotions and two ways of not seeing one.
    pub const COLUMNS: usize = 10;

    /// The votes without outliers: a count of one says nothing (Barsoum et al. 2016, section 3).
    pub(crate) fn without_single_votes(&self) -> [u8; Self::COLUMNS] {
        self.0.map(|count| if count <= 1 { 0 } else { count })
    }
}

/// What is known about an image's expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Annotation {
    /// Annotators voted.
    Votes(Votes),
    /// The image lies in this class's folder.
    Class(Emotion),
    /// No label row names the image. Its features are cached all the same.
    None,
}

impl Annotation {
    /// Bytes that differ whenever the annotation does, for hashing.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Votes(votes) => [b"votes".as_slice(), votes.0.as_slice()].concat(),
            Self::Class(emotion) => [b"class", emotion.name().as_bytes()].concat(),
            Self::None => b"none".to_vec(),
        }
    }
}
