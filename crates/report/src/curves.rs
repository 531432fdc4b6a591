//! What a run recorded while it was trained.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use vit::{METRICS_FILE, StepRecord, ValidationRecord};

/// The metrics of a run.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    /// Every step.
    pub steps: Vec<StepRecord>,
    /// Every validation.
    pub validations: Vec<ValidationRecord>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Record {
    Step(StepRecord),
    Validation(ValidationRecord),
}

impl Curves {
    /// Reads the metrics of the run in `folder`.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(METRICS_FILE);
        let mut curves = Self::default();
        for line in fs_err::read_to_string(&path)?.lines() {
            match serde_json::from_str(line).with_context(|| format!("a line of `{}` is damaged", path.display()))? {
                Record::Step(step) => curves.steps.push(step),
                Record::Validation(validation) => curves.validations.push(validation),
            }
        }
        Ok(curves)
    }
}
