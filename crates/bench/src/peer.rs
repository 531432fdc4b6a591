//! PyTorch in a process of its own, which runs a pass when it is asked to.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// A running `peers/pytorch_extract.py`.
pub struct Peer {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `script` with `python`.
    ///
    /// # Errors
    /// If there is no such Python, or it lacks a module.
    pub fn start(python: &Path, script: &str, arguments: &[String]) -> Result<Self> {
        let mut process = Command::new(python)
            .args(["-c", script])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("no Python at `{}`", python.display()))?;
        let (Some(commands), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("the peer has no pipes");
        };
        Ok(Self { process, commands, answers: BufReader::new(answers) })
    }

    /// Sends one command and waits for its answer.
    pub fn ask<T: DeserializeOwned>(&mut self, command: &str) -> Result<T> {
        let mut answer = String::new();
        let asked = writeln!(self.commands, "{command}").and_then(|()| self.answers.read_line(&mut answer));
        if asked.is_err() || answer.is_empty() {
            bail!("PyTorch did not answer `{command}`: are torch and torchvision installed?");
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
