//! What the binaries have in common: arguments, messages, results as text or JSON.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done or nothing to do, 1 failure, 2 wrong
//! arguments or configuration.

mod invocation;

use std::{
    io::{self, IsTerminal, Stderr, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use pipeline::Context;
use serde::Serialize;
use study::{Study, StudyError};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use self::invocation::Invocation;

/// Where the configuration is looked for.
pub(crate) const DEFAULT_CONFIG: &str = "study.toml";

/// Arguments of every binary.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Arguments {
    /// Overrides of the configuration
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,

    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG, global = true)]
    pub config: PathBuf,

    /// What is printed
    #[command(flatten)]
    pub output: Output,
}

/// What a binary prints.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Output {
    /// Print the result as one JSON object on stdout
    #[arg(long, global = true)]
    pub json: bool,

    /// No progress bars, warnings and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,

    /// More messages
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

impl Arguments {
    /// Reads the configuration.
    pub fn study(&self) -> Result<Study, StudyError> {
        Study::load(&self.config, &self.overrides)
    }

    /// Reads the configuration and opens the data set.
    pub fn context(&self) -> Result<Context> {
        self.open(self.study()?)
    }

    /// The same for the variant of the configuration that `words` describe.
    pub fn variant(&self, words: &str) -> Result<Context> {
        let words = words.split_whitespace().map(str::to_owned);
        let overrides: Vec<String> = self.overrides.iter().cloned().chain(words).collect();
        self.open(Study::load(&self.config, &overrides)?)
    }

    /// All variants of the configuration by their words.
    pub fn variants(&self) -> Result<Vec<(String, Context)>> {
        let words = self.study()?.study.variants;
        words.into_iter().map(|words| Ok((words.clone(), self.variant(&words)?))).collect()
    }

    /// What to type for `recipe` of the justfile with this configuration.
    pub fn command(&self, recipe: &str) -> String {
        self.invocation().command(recipe)
    }

    fn invocation(&self) -> Invocation {
        Invocation { overrides: self.overrides.clone(), config: self.config.clone() }
    }

    fn open(&self, study: Study) -> Result<Context> {
        let show_progress = !self.output.quiet && !self.output.json && std::io::stderr().is_terminal();
        Context::open(study, show_progress)
    }

    /// Prints a result: as JSON if that is wanted, else what `text` makes of it.
    pub fn print<T: Serialize>(&self, result: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        self.output.print(result, text)
    }
}

impl Output {
    /// Prints a result: as JSON if that is wanted, else what `text` makes of it.
    pub fn print<T: Serialize>(&self, result: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut stdout, result)?;
            writeln!(stdout)?;
        } else {
            let text = text(result);
            writeln!(stdout, "{}", text.trim_end())?;
        }
        Ok(())
    }

    /// `invocation` makes commands that messages recommend what is to be typed.
    fn start_messages(&self, invocation: Option<Invocation>) {
        let level = match (self.quiet, self.verbose) {
            (true, _) => "warn",
            (_, true) => "debug",
            _ => "info",
        };
        // Other crates' chatter is of no use; FMSTUDY_LOG can turn it on.
        let ours =
            ["cli", "pipeline", "study", "backbone", "dataset", "shards", "vit", "stage", "demo", "report", "fmstudy"];
        let default = ours.map(|name| format!("{name}={level}")).join(",");
        let filter =
            EnvFilter::try_from_env("FMSTUDY_LOG").unwrap_or_else(|_| EnvFilter::new(format!("warn,{default}")));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(Messages(invocation))
            .with_target(false)
            .without_time()
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .init();
    }
}

/// Where messages go.
struct Messages(Option<Invocation>);

/// Writes one message.
struct MessageWriter<'a> {
    invocation: Option<&'a Invocation>,
    stderr: Stderr,
}

impl<'a> MakeWriter<'a> for Messages {
    type Writer = MessageWriter<'a>;

    fn make_writer(&'a self) -> MessageWriter<'a> {
        MessageWriter { invocation: self.0.as_ref(), stderr: io::stderr() }
    }
}

impl Write for MessageWriter<'_> {
    /// A message comes whole.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        match (self.invocation, std::str::from_utf8(message)) {
            (Some(invocation), Ok(text)) => self.stderr.write_all(invocation.as_typed(text).as_bytes())?,
            _ => self.stderr.write_all(message)?,
        }
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stderr.flush()
    }
}

/// Runs a binary's work on a study and turns its result into the exit code; errors go to stderr with their causes and hints.
pub fn run(arguments: &Arguments, work: impl FnOnce(&Arguments) -> Result<()>) -> ExitCode {
    let invocation = arguments.invocation();
    arguments.output.start_messages(Some(invocation.clone()));
    exit_code(work(arguments), |text| invocation.as_typed(&text))
}

/// The same of work that knows no study.
pub fn run_without_study(output: &Output, work: impl FnOnce(&Output) -> Result<()>) -> ExitCode {
    output.start_messages(None);
    exit_code(work(output), |text| text)
}

fn exit_code(result: Result<()>, as_typed: impl FnOnce(String) -> String) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = pipeline::message(&error);
            if let Some(hint) = pipeline::memory_hint(&text) {
                text = format!("{text}\n\n{hint}");
            }
            eprintln!("error: {}", printable(&as_typed(text)));
            if error.is::<StudyError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Without characters that would steer a terminal: names and fields come from files of strangers.
fn printable(text: &str) -> String {
    let escaped = |character: char| match character {
        '\n' => vec![character],
        character if character.is_control() => character.escape_default().collect(),
        character => vec![character],
    };
    text.chars().flat_map(escaped).collect()
}

/// `… | head` closes our stdout, which is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kind = match (error.downcast_ref::<std::io::Error>(), error.downcast_ref::<serde_json::Error>()) {
        (Some(error), _) => Some(error.kind()),
        (_, Some(error)) => error.io_error_kind(),
        _ => None,
    };
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_steer_no_terminal() {
        assert_eq!(printable("`a\u{1b}[31m.png`\n\nhint: é"), "`a\\u{1b}[31m.png`\n\nhint: é");
    }
}
