use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use stage::ContentHash;

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

/// A part of the metrics, from their beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// How long it is.
    pub size_bytes: u64,
    /// Hash of its bytes.
    pub blake3: ContentHash,
}

impl Written {
    /// Reads the part that this is out of the file `path`.
    ///
    /// # Errors
    /// If the file is shorter or holds something else.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, VitError> {
        let mut bytes = if path.exists() { fs_err::read(path)? } else { Vec::new() };
        let found = bytes.len();
        bytes.truncate(self.size_bytes as usize);
        if ContentHash::of(&bytes) == self.blake3 {
            return Ok(bytes);
        }
        let reason = format!("of its {found} bytes the first {} are not those that were written", self.size_bytes);
        Err(VitError::Damaged { path: path.to_owned(), reason })
    }
}

/// The open metrics file of a run.
#[derive(Debug)]
pub(crate) struct Metrics {
    writer: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Metrics {
    /// Opens the file `path` with what is `kept` of it and nothing else: what came later is run again.
    ///
    /// # Errors
    /// If what is to be kept is not there.
    pub(crate) fn open(path: &Path, kept: Option<&Written>) -> Result<Self, VitError> {
        let kept = kept.map_or_else(|| Ok(Vec::new()), |kept| kept.read(path))?;
        stage::write_atomically(path, &kept)?;
        let file = fs_err::OpenOptions::new().append(true).open(path)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&kept);
        Ok(Self { writer: BufWriter::new(file.into()), hasher })
    }

    /// Appends a line.
    pub(crate) fn write(&mut self, record: &Record<'_>) -> Result<(), VitError> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.hasher.update(&line);
        Ok(self.writer.write_all(&line)?)
    }

    /// Lets readers see what has been written.
    pub(crate) fn flush(&mut self) -> Result<(), VitError> {
        Ok(self.writer.flush()?)
    }

    /// Lets readers see what has been written, and says what that is; the file is for who brings it to the disk.
    pub(crate) fn written(&mut self) -> Result<(Written, File), VitError> {
        self.flush()?;
        let written = Written { size_bytes: self.hasher.count(), blake3: ContentHash::from_hasher(&self.hasher) };
        Ok((written, self.writer.get_ref().try_clone()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reopening_keeps_what_a_checkpoint_promises_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(METRICS_FILE);
        let mut metrics = Metrics::open(&path, None).unwrap();
        let write = |metrics: &mut Metrics, step| {
            let record = StepRecord { step, loss: 1.5, accuracy: 0.5, lr: 0.005, grad_norm: 1.0, seconds: 0.1 };
            metrics.write(&Record::Step(&record)).unwrap();
        };
        (1..=2).for_each(|step| write(&mut metrics, step));
        let (written, _) = metrics.written().unwrap();
        write(&mut metrics, 3);
        metrics.writer.write_all(b"{\"kind\":\"step\",\"step\":1").unwrap();
        drop(metrics);

        let mut metrics = Metrics::open(&path, Some(&written)).unwrap();
        assert_eq!(metrics.written().unwrap().0, written);
        drop(metrics);
        let text = fs_err::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        let first = r#"{"kind":"step","step":1,"loss":1.5,"accuracy":0.5,"lr":0.005,"grad_norm":1.0,"seconds":0.1}"#;
        assert_eq!(text.lines().next(), Some(first));

        for damaged in [text.replacen("1.5", "1.4", 1), text[..text.len() - 1].to_owned()] {
            fs_err::write(&path, damaged).unwrap();
            assert!(matches!(Metrics::open(&path, Some(&written)), Err(VitError::Damaged { .. })));
        }
    }
}
