use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{Validation, VitError};

/// Name of the metrics in a run's folder: one JSON object per line.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// What happened in one training step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, counted from 1.
    pub step: usize,
    /// Mean cross-entropy of the batch in nats, against the smoothed targets.
    pub loss: f64,
    /// Share of the batch classified correctly, before the update and with dropout.
    pub accuracy: f64,
    /// Learning rate.
    pub lr: f64,
    /// L2 norm of the whole gradient, before clipping.
    pub grad_norm: f64,
    /// Wall-clock time of the step, waiting for the batch included.
    pub seconds: f64,
}

/// What a validation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationRecord {
    /// The step after which it ran.
    pub step: usize,
    /// Its result.
    #[serde(flatten)]
    pub validation: Validation,
    /// Wall-clock time that it took.
    pub seconds: f64,
}

/// One line of the metrics.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Record<'a> {
    Step(&'a StepRecord),
    Validation(&'a ValidationRecord),
}

/// The open metrics file of a run.
#[derive(Debug)]
pub(crate) struct Metrics {
    writer: BufWriter<File>,
}

impl Metrics {
    /// Opens the file `path` and drops what it holds of steps after `last_step`: those are run again. A line
    /// that a killed process left unfinished goes as well.
    pub(crate) fn open(path: &Path, last_step: usize) -> Result<Self, VitError> {
        let old = if path.exists() { fs_err::read(path)? } else { Vec::new() };
        let kept: Vec<u8> = old
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| is_until(line, last_step))
            .flatten()
            .copied()
            .collect();
        stage::write_atomically(path, &kept)?;
        let file = fs_err::OpenOptions::new().append(true).open(path)?;
        Ok(Self { writer: BufWriter::new(file.into()) })
    }

    /// Appends a line.
    pub(crate) fn write(&mut self, record: &Record<'_>) -> Result<(), VitError> {
        serde_json::to_writer(&mut self.writer, record)?;
        Ok(self.writer.write_all(b"\n")?)
    }

    /// Lets readers see what has been written.
    pub(crate) fn flush(&mut self) -> Result<(), VitError> {
        Ok(self.writer.flush()?)
    }

    /// Brings everything to the disk.
    pub(crate) fn sync(&mut self) -> Result<(), VitError> {
        self.flush()?;
        Ok(self.writer.get_ref().sync_data()?)
    }
}

fn is_until(line: &[u8], last_step: usize) -> bool {
    #[derive(Deserialize)]
    struct Step {
        step: usize,
    }
    line.ends_with(b"\n") && serde_json::from_slice::<Step>(line).is_ok_and(|record| record.step <= last_step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reopening_drops_later_steps_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(METRICS_FILE);
        let mut metrics = Metrics::open(&path, 0).unwrap();
        for step in 1..=4 {
            let record = StepRecord { step, loss: 1.5, accuracy: 0.5, lr: 0.005, grad_norm: 1.0, seconds: 0.1 };
            metrics.write(&Record::Step(&record)).unwrap();
        }
        metrics.writer.write_all(b"{\"kind\":\"step\",\"step\":1").unwrap();
        metrics.sync().unwrap();
        drop(metrics);
        drop(Metrics::open(&path, 2).unwrap());
        let text = fs_err::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        let first = r#"{"kind":"step","step":1,"loss":1.5,"accuracy":0.5,"lr":0.005,"grad_norm":1.0,"seconds":0.1}"#;
        assert_eq!(text.lines().next(), Some(first));
    }
}
