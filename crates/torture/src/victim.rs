//! The study to which things are done, and what it should come to.

use std::{path::Path, process::Output};

use anyhow::{Result, bail, ensure};
use harness::{Results, Study, files_below};

/// The stages in their order, as binaries.
pub const STAGES: [&str; 3] = ["extract", "train", "eval"];

/// More steps and checkpoints than the tests' study has, two runs, and features that not all of them read: enough to be
/// interrupted in.
pub const OVERRIDES: [&str; 5] = [
    "extract.features=fm3+fm4",
    "combo=fm3,orig+fm4",
    "recipe.steps=16",
    "model.dropout=0.1",
    "train.checkpoint_every=2",
];

/// A study, and what it comes to when nothing is done to it.
pub struct Victim {
    /// The study.
    pub study: Study,
    /// What an uninterrupted one comes to.
    pub whole: Results,
}

impl Victim {
    /// A study that has not begun, and the results of another that was not disturbed.
    pub fn new() -> Result<Self> {
        let undisturbed = Study::new();
        for stage in STAGES {
            undisturbed.run(stage, &OVERRIDES);
        }
        Ok(Self { study: Study::new(), whole: undisturbed.results() })
    }

    /// Runs `stage` to its end, undisturbed.
    pub fn output(&self, stage: &str) -> Output {
        self.output_with(stage, &[])
    }

    /// The same with `more` overrides.
    pub fn output_with(&self, stage: &str, more: &[&str]) -> Output {
        self.study.output(stage, &[&OVERRIDES[..], more].concat())
    }

    /// Runs a command of `fmstudy` that looks at the study.
    pub fn look(&self, command: &[&str]) -> Output {
        self.study.output("fmstudy", &[command, &OVERRIDES[..]].concat())
    }

    /// Runs what is left to do; all must succeed, and nothing may be different from the undisturbed study.
    pub fn finish(&self) -> Result<()> {
        for stage in STAGES {
            require_success(stage, &self.output(stage))?;
        }
        self.require_same()
    }

    /// What is there must be what the undisturbed study came to.
    pub fn require_same(&self) -> Result<()> {
        // What a killed process left unfinished is no result; `clean-stale` removes it.
        require_success("clean-stale", &self.look(&["clean-stale", "--yes"]))?;
        let found = self.study.results();
        for (name, expected) in &self.whole {
            match found.get(name) {
                None => bail!("`{}` is missing in the end", name.display()),
                Some(found) => ensure!(
                    found == expected,
                    "`{}` is different in the end: {}",
                    name.display(),
                    difference(found, expected)
                ),
            }
        }
        let more: Vec<_> = found.keys().filter(|name| !self.whole.contains_key(*name)).collect();
        ensure!(more.is_empty(), "there is more in the end: {more:?}");
        Ok(())
    }

    /// Every file that stands under its final name must be whole.
    pub fn require_sound(&self) -> Result<()> {
        require_success("verify", &self.look(&["verify"]))
    }

    /// The next extraction must make the damaged `shard` anew, to the bytes that it had, and no other.
    pub fn require_made_anew(&self, shard: &Path, sound: &[u8]) -> Result<()> {
        let extracted = self.study.json("extract", &OVERRIDES);
        ensure!(extracted["shards_written"] == 1, "more than the damaged shard is made anew: {extracted}");
        ensure!(fs_err::read(shard)? == sound, "the shard is not what it was");
        Ok(())
    }

    /// Whether there is a file in the cache.
    pub fn has_written(&self) -> bool {
        let cache = self.study.path("cache");
        cache.is_dir() && !files_below(&cache).is_empty()
    }

    /// Begins anew.
    pub fn reset(&self) -> Result<()> {
        let cache = self.study.path("cache");
        if cache.exists() {
            fs_err::remove_dir_all(cache)?;
        }
        Ok(())
    }
}

/// Where two files part, in words.
fn difference(found: &[u8], expected: &[u8]) -> String {
    let (found, expected) = (String::from_utf8_lossy(found), String::from_utf8_lossy(expected));
    let lines = found.lines().zip(expected.lines()).enumerate();
    match lines.into_iter().find(|(_, (found, expected))| found != expected) {
        Some((line, (found, expected))) => {
            let cut = |text: &str| text.chars().take(200).collect::<String>();
            format!("line {} is `{}`, expected `{}`", line + 1, cut(found), cut(expected))
        }
        None => format!("{} lines, expected {}", found.lines().count(), expected.lines().count()),
    }
}

/// The command must have done its work.
pub fn require_success(command: &str, output: &Output) -> Result<()> {
    ensure!(
        output.status.success(),
        "{command} ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The command must have failed with a message that a person can use: code 1, an error that says something of `words`, no
/// panic.
pub fn require_clear_failure(command: &str, output: &Output, words: &[&str]) -> Result<()> {
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{command} ended with {}: {told}", output.status);
    ensure!(!told.contains("panicked"), "{command} panicked: {told}");
    let error = told.rsplit("error: ").next().unwrap_or_default();
    ensure!(words.iter().any(|word| error.contains(word)), "{command} does not say {}: {told}", words.join(" or "));
    Ok(())
}
