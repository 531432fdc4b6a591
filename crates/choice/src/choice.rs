use crate::nearest;

/// A word that is none of the values a key can take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` cannot be `{got}`, expected one of {valid}{hint}")]
pub struct ParseChoiceError {
    key: &'static str,
    got: String,
    valid: String,
    hint: String,
}

impl ParseChoiceError {
    /// For `got`, which is none of the `valid` words of `key`.
    pub fn new(key: &'static str, got: &str, valid: &[&'static str]) -> Self {
        let hint =
            nearest(got, valid.iter().copied()).map_or_else(String::new, |word| format!("; did you mean `{word}`?"));
        Self { key, got: got.to_owned(), valid: valid.join(", "), hint }
    }
}

/// Declares an enum whose values are words in the configuration, with `Display`, `FromStr` and serde.
#[macro_export]
macro_rules! choice {
    (
        $(#[$enum_doc:meta])*
        pub enum $name:ident for $key:literal {
            $($(#[$value_doc:meta])* $value:ident = $word:literal,)+
        }
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// All values, in the order in which messages list them.
            pub const ALL: &'static [Self] = &[$(Self::$value,)+];

            /// The word used in configurations and reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::ParseChoiceError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let word = text.trim();
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.name().eq_ignore_ascii_case(word))
                    .ok_or_else(|| $crate::ParseChoiceError::new($key, word, &[$($word),+]))
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::ParseChoiceError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.name().to_owned()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    crate::choice! {
        /// For the tests.
        pub enum Schedule for "recipe.schedule" {
            /// One.
            Constant = "constant",
            /// Another.
            Cosine = "cosine",
        }
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_valid_ones_and_the_nearest() {
        let error = "cosin".parse::<Schedule>().unwrap_err().to_string();
        let expected = "`recipe.schedule` cannot be `cosin`, expected one of constant, cosine; did you mean `cosine`?";
        assert_eq!(error, expected);
        let error = serde_json::from_str::<Schedule>("\"linear\"").unwrap_err().to_string();
        assert_eq!(error, "`recipe.schedule` cannot be `linear`, expected one of constant, cosine");
    }

    #[test]
    fn every_word_round_trips() {
        for value in Schedule::ALL {
            assert_eq!(value.to_string().parse::<Schedule>().unwrap(), *value);
            let json = serde_json::to_string(value).unwrap();
            assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), *value);
        }
        assert_eq!(" Cosine".parse::<Schedule>().unwrap(), Schedule::Cosine);
    }
}
