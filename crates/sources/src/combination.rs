use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ParseSourceError, Source};

/// A non-empty set of sources, always in canonical order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Combination {
    /// Bit `i` is set when `Source::ALL[i]` takes part; never zero.
    members: u8,
}

impl Combination {
    /// All four feature maps, without the original image.
    pub const FEATURE_MAPS: Self =
        Self { members: bit(Source::Fm1) | bit(Source::Fm2) | bit(Source::Fm3) | bit(Source::Fm4) };

    /// The paper's 31 combinations in the order of its tables: fewer sources first, without the original
    /// image before with it.
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> = (1..1 << Source::ALL.len()).map(|members| Self { members }).collect();
        all.sort_by_key(|combination| {
            let maps: Vec<Source> = combination.iter().filter(|source| *source != Source::Orig).collect();
            let with_orig = combination.contains(Source::Orig);
            (maps.len() > 1 || (with_orig && !maps.is_empty()), with_orig && !maps.is_empty(), maps.len(), maps)
        });
        all
    }

    /// The set of the given sources; none when there are none.
    pub fn new(sources: impl IntoIterator<Item = Source>) -> Option<Self> {
        let members = sources.into_iter().fold(0, |members, source| members | bit(source));
        (members != 0).then_some(Self { members })
    }

    /// Whether `source` takes part.
    pub const fn contains(self, source: Source) -> bool {
        self.members & bit(source) != 0
    }

    /// The sources in canonical order.
    pub fn iter(self) -> impl Iterator<Item = Source> {
        Source::ALL.into_iter().filter(move |source| self.contains(*source))
    }

    /// The feature maps among the sources: what the backbone has to provide.
    pub fn feature_maps(self) -> impl Iterator<Item = Source> {
        self.iter().filter(|source| source.stage().is_some())
    }

    /// How many sources take part, 1 to 5.
    #[allow(clippy::len_without_is_empty, reason = "a combination is never empty")]
    pub const fn len(self) -> usize {
        self.members.count_ones() as usize
    }
}

const fn bit(source: Source) -> u8 {
    1 << source as u8
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Source::name).collect();
        f.pad(&names.join("+"))
    }
}

/// Why a text is no combination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseCombinationError {
    /// One of the parts is no source.
    #[error("combination `{text}`: {source}")]
    Source {
        /// The whole text.
        text: String,
        /// What is wrong with the part.
        source: ParseSourceError,
    },
    /// A source is named twice.
    #[error("combination `{text}` names {twice} twice")]
    Twice {
        /// The whole text.
        text: String,
        /// The repeated source.
        twice: Source,
    },
    /// The text is blank.
    #[error("a combination needs at least one source, for example `fm1+fm2`")]
    Empty,
}

impl FromStr for Combination {
    type Err = ParseCombinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Err(ParseCombinationError::Empty);
        }
        let mut members = 0;
        for part in text.split('+') {
            let source: Source =
                part.parse().map_err(|source| ParseCombinationError::Source { text: text.to_owned(), source })?;
            if members & bit(source) != 0 {
                return Err(ParseCombinationError::Twice { text: text.to_owned(), twice: source });
            }
            members |= bit(source);
        }
        Ok(Self { members })
    }
}

impl TryFrom<String> for Combination {
    type Error = ParseCombinationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Combination> for String {
    fn from(combination: Combination) -> Self {
        combination.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_lists_the_papers_rows_in_their_order() {
        let names: Vec<String> = Combination::all().iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), 31);
        assert_eq!(names[..6], ["orig", "fm1", "fm2", "fm3", "fm4", "fm1+fm2"]);
        assert_eq!(names[15..18], ["fm1+fm2+fm3+fm4", "orig+fm1", "orig+fm2"]);
        assert_eq!(names[30], "orig+fm1+fm2+fm3+fm4");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        assert_eq!("".parse::<Combination>(), Err(ParseCombinationError::Empty));
        let twice = "fm1+FM1".parse::<Combination>().unwrap_err();
        assert_eq!(twice.to_string(), "combination `fm1+FM1` names fm1 twice");
        let unknown = "fm1+orgi".parse::<Combination>().unwrap_err();
        assert!(unknown.to_string().contains("did you mean `orig`?"), "{unknown}");
    }

    proptest! {
        #[test]
        fn text_round_trips_in_any_order(members in 1u8..32, rotate in 0usize..5) {
            let combination = Combination { members };
            let mut names: Vec<&str> = combination.iter().map(Source::name).collect();
            let middle = rotate % names.len();
            names.rotate_left(middle);
            prop_assert_eq!(names.join("+").parse::<Combination>().unwrap(), combination);
        }
    }
}
