use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::ContentHash;

/// Everything that a stage's result depends on, as sorted key → value pairs.
///
/// Keys are those of the configuration (`recipe.lr`) or name an input (`features.fm2`); values are the
/// configured value or a content hash. Order of insertion does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// Adds one dependency.
    pub fn set(&mut self, key: impl Into<String>, value: impl ToString) {
        self.0.insert(key.into(), value.to_string());
    }

    /// The value of `key`, if it is part of the fingerprint.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// One hash of all of it.
    pub fn digest(&self) -> ContentHash {
        ContentHash::of_parts(self.0.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]))
    }

    /// What differs between the stored fingerprint `self` and the `current` one.
    pub fn changes_to(&self, current: &Self) -> Vec<Change> {
        let keys: std::collections::BTreeSet<&String> = self.0.keys().chain(current.0.keys()).collect();
        keys.into_iter()
            .filter(|key| self.0.get(*key) != current.0.get(*key))
            .map(|key| Change { key: key.clone(), old: self.0.get(key).cloned(), new: current.0.get(key).cloned() })
            .collect()
    }
}

/// One dependency that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which one.
    pub key: String,
    /// Its value when the stage ran; none if it was no dependency then.
    pub old: Option<String>,
    /// Its value now; none if it is no dependency any more.
    pub new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<String>| match value {
            // Hashes are too long to read; eight digits tell two of them apart.
            Some(value) => value.parse::<ContentHash>().map_or_else(|_| value.clone(), |hash| hash.short()),
            None => "none".to_owned(),
        };
        write!(f, "{} {} → {}", self.key, show(&self.old), show(&self.new))
    }
}

/// How a stage's stored result stands to the current configuration and inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Freshness {
    /// Nothing to do.
    Fresh,
    /// There is a result, of other inputs.
    Stale {
        /// What changed since.
        changes: Vec<Change>,
    },
    /// Begun and resumable.
    Partial {
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// What the units are: `shards`, `steps`.
        unit: String,
    },
    /// Nothing there yet.
    Missing,
}

impl Freshness {
    /// Whether there is nothing to do.
    pub const fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh)
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("fresh"),
            Self::Stale { changes } => {
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                write!(f, "stale ({})", changes.join(", "))
            }
            Self::Partial { done, total, unit } => write!(f, "partial ({done} of {total} {unit})"),
            Self::Missing => f.write_str("missing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_irrelevant_and_changes_are_named() {
        let mut one = Fingerprint::default();
        one.set("recipe.lr", 0.005);
        one.set("seed", 0);
        let mut other = Fingerprint::default();
        other.set("seed", 0);
        other.set("recipe.lr", 0.005);
        assert_eq!(one.digest(), other.digest());
        other.set("recipe.lr", 0.001);
        assert_ne!(one.digest(), other.digest());
        let stale = Freshness::Stale { changes: one.changes_to(&other) };
        assert_eq!(stale.to_string(), "stale (recipe.lr 0.005 → 0.001)");
    }
}
