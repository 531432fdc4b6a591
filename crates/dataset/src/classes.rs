use std::fmt;

use serde::{Deserialize, Serialize};

use choice::choice;

/// Number of emotions that FERPlus distinguishes.
pub(crate) const EMOTIONS: usize = 8;

choice! {
    /// The expressions that FERPlus distinguishes, in its column order.
    #[derive(PartialOrd, Ord)]
    pub enum Emotion for "emotion" {
        /// No expression.
        Neutral = "neutral",
        /// Joy.
        Happiness = "happiness",
        /// Surprise.
        Surprise = "surprise",
        /// Sadness.
        Sadness = "sadness",
        /// Anger.
        Anger = "anger",
        /// Disgust.
        Disgust = "disgust",
        /// Fear.
        Fear = "fear",
        /// Contempt.
        Contempt = "contempt",
    }
}

const EIGHT: [Emotion; EMOTIONS] = [
    Emotion::Neutral,
    Emotion::Happiness,
    Emotion::Surprise,
    Emotion::Sadness,
    Emotion::Anger,
    Emotion::Disgust,
    Emotion::Fear,
    Emotion::Contempt,
];

const SIX: [Emotion; 6] =
    [Emotion::Neutral, Emotion::Happiness, Emotion::Surprise, Emotion::Sadness, Emotion::Anger, Emotion::Fear];

/// The emotions that a classifier tells apart: FERPlus's eight, or the six of Oh & Yoo (2023), who leave
/// out the rare disgust and contempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub enum ClassSet {
    /// Without disgust and contempt.
    #[default]
    Six,
    /// All of them.
    Eight,
}

impl ClassSet {
    /// The emotions in class order.
    pub const fn emotions(self) -> &'static [Emotion] {
        match self {
            Self::Six => &SIX,
            Self::Eight => &EIGHT,
        }
    }

    /// The classes' names in class order.
    pub fn names(self) -> Vec<&'static str> {
        self.emotions().iter().map(|emotion| emotion.name()).collect()
    }

    /// Number of classes.
    #[allow(clippy::len_without_is_empty, reason = "a class set is never empty")]
    pub const fn len(self) -> usize {
        self.emotions().len()
    }

    /// The class of an emotion; none if the set leaves it out.
    pub fn index_of(self, emotion: Emotion) -> Option<usize> {
        self.emotions().iter().position(|class| *class == emotion)
    }
}

impl fmt::Display for ClassSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.len().fmt(f)
    }
}

/// A number of classes that there is no set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`classes` cannot be {0}, expected 6 (without disgust and contempt) or 8")]
pub struct ClassSetError(usize);

impl TryFrom<usize> for ClassSet {
    type Error = ClassSetError;

    fn try_from(classes: usize) -> Result<Self, Self::Error> {
        match classes {
            6 => Ok(Self::Six),
            8 => Ok(Self::Eight),
            other => Err(ClassSetError(other)),
        }
    }
}

impl From<ClassSet> for usize {
    fn from(classes: ClassSet) -> Self {
        classes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_classes_close_the_gap_that_disgust_leaves() {
        assert_eq!(ClassSet::Six.names(), ["neutral", "happiness", "surprise", "sadness", "anger", "fear"]);
        assert_eq!(ClassSet::Six.index_of(Emotion::Fear), Some(5));
        assert_eq!(ClassSet::Six.index_of(Emotion::Contempt), None);
        assert_eq!(ClassSet::Eight.index_of(Emotion::Fear), Some(6));
        assert_eq!(ClassSet::Eight.emotions(), Emotion::ALL);
    }

    #[test]
    fn only_six_or_eight() {
        assert_eq!(ClassSet::try_from(8), Ok(ClassSet::Eight));
        assert!(ClassSet::try_from(7).unwrap_err().to_string().contains("expected 6"));
        assert!(serde_json::from_str::<ClassSet>("7").is_err());
    }
}
