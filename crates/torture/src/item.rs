use std::{collections::BTreeMap, fmt};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::{faults, flips, fuzz, kill, limits, load, locks, poison, power, strace};

/// What can be done to a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Item {
    /// Processes killed at random moments, half of them while they write
    Kill,
    /// Power cuts: what was not synced is lost, torn or out of order
    Power,
    /// System calls that fail: no space, quota, input/output errors, no permission, no file descriptors
    Faults,
    /// A disk that is full, a folder that may not be written, few file descriptors, a shard cut while it is read
    Limits,
    /// Single bytes flipped in any file
    Flips,
    /// Two processes on one cache
    Locks,
    /// Values that are not finite
    Poison,
    /// Damaged and hostile bytes for every parser
    Fuzz,
    /// A million images
    Load,
}

/// How often things are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// For every day: minutes.
    Short,
    /// For the record: hours.
    Full,
}

impl Scale {
    /// The number for this scale.
    pub const fn pick(self, short: usize, full: usize) -> usize {
        match self {
            Self::Short => short,
            Self::Full => full,
        }
    }
}

/// What came of an item.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Which.
    pub item: Item,
    /// How often it was done.
    pub cases: usize,
    /// What went wrong.
    pub failures: Vec<String>,
    /// What this machine did not allow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// What else was counted.
    pub counts: BTreeMap<&'static str, u64>,
    /// How long it took.
    pub wall_s: f64,
}

impl Outcome {
    /// Nothing has been done yet.
    pub fn new(item: Item) -> Self {
        Self { item, cases: 0, failures: Vec::new(), skipped: Vec::new(), counts: BTreeMap::new(), wall_s: 0.0 }
    }

    /// One more of `what`.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// One more case, which failed if `result` did.
    pub fn case(&mut self, name: impl fmt::Display, result: Result<()>) {
        self.cases += 1;
        if let Err(error) = result {
            self.failures.push(format!("{name}: {error:#}"));
        }
    }

    /// The same of one that says whether it met at all what it is about.
    pub fn met_case(&mut self, name: impl fmt::Display, result: Result<bool>) {
        if matches!(result, Ok(false)) {
            self.count("not met");
        }
        self.case(name, result.map(|_| ()));
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.item.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        write!(f, "{name:8} {:6} cases  {:3} failures  {:6.1} s", self.cases, self.failures.len(), self.wall_s)?;
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        write!(f, "  {}", counts.join(", "))?;
        for skipped in &self.skipped {
            write!(f, "\n  skipped: {skipped}")?;
        }
        for failure in &self.failures {
            write!(f, "\n  FAILED {}", failure.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

impl Item {
    /// Does it.
    pub fn run(self, scale: Scale, seed: u64) -> Result<Outcome> {
        match self {
            Self::Power | Self::Faults if !strace::is_there() => {
                let skipped = vec!["no strace, or it may not trace; install strace".to_owned()];
                Ok(Outcome { skipped, ..Outcome::new(self) })
            }
            Self::Kill => kill::run(scale, seed),
            Self::Power => power::run(scale, seed),
            Self::Faults => faults::run(scale, seed),
            Self::Limits => limits::run(),
            Self::Flips => flips::run(scale, seed),
            Self::Locks => locks::run(scale),
            Self::Poison => poison::run(),
            Self::Fuzz => fuzz::run(scale, seed),
            Self::Load => load::run(scale),
        }
    }
}
