use anyhow::Result;

use crate::{message, runs::Run};

/// Runs with which a stage failed. They hold no others up: each is told at once, and all of them at the end.
pub(crate) struct Failed {
    /// What the stage does.
    verb: &'static str,
    runs: Vec<(String, anyhow::Error)>,
}

impl Failed {
    /// None yet; the stage does `verb` with runs.
    pub(crate) const fn to(verb: &'static str) -> Self {
        Self { verb, runs: Vec::new() }
    }

    pub(crate) fn add(&mut self, run: &Run, error: anyhow::Error) {
        tracing::error!("{} {}: {}", self.verb, run.name(), message(&error));
        self.runs.push((run.name(), error));
    }

    /// Fails if a run did, as the first of them.
    pub(crate) fn into_result(self) -> Result<()> {
        let count = self.runs.len();
        let Some((name, error)) = self.runs.into_iter().next() else { return Ok(()) };
        let failed = format!("{} {name}", self.verb);
        Err(error.context(if count == 1 { failed } else { format!("{count} runs failed; {failed}") }))
    }
}
