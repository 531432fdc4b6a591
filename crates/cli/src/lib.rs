//! What the binaries have in common: arguments, messages, results as text or JSON.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done or nothing to do, 1 failure, 2 wrong
//! arguments or configuration.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use pipeline::Context;
use serde::Serialize;
use study::{Study, StudyError};
use tracing_subscriber::EnvFilter;

/// Where the configuration is looked for.
const DEFAULT_CONFIG: &str = "study.toml";

/// Recipes that hints recommend.
const RECIPES: [&str; 6] = ["extract", "train", "eval", "study", "report", "verify"];

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
        let mut words = vec!["just".to_owned(), recipe.to_owned()];
        words.extend(self.overrides.iter().cloned());
        if self.config != Path::new(DEFAULT_CONFIG) {
            words.extend(["--config".to_owned(), self.config.display().to_string()]);
        }
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }

    /// `text` with the commands that it recommends as they are to be typed with this configuration.
    fn with_config(&self, text: String) -> String {
        if self.config == Path::new(DEFAULT_CONFIG) {
            return text;
        }
        let config = quoted(&self.config.to_string_lossy());
        let typed = |text: String, recipe: &&str| {
            let with = format!("`just {recipe} --config {config}");
            let text = text.replace(&format!("`just {recipe} "), &format!("{with} "));
            text.replace(&format!("`just {recipe}`"), &format!("{with}`"))
        };
        RECIPES.iter().fold(text, typed)
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

    fn start_messages(&self) {
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
            .with_writer(std::io::stderr)
            .with_target(false)
            .without_time()
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .init();
    }
}

/// Runs a binary's work on a study and turns its result into the exit code; errors go to stderr with their causes and hints.
pub fn run(arguments: &Arguments, work: impl FnOnce(&Arguments) -> Result<()>) -> ExitCode {
    arguments.output.start_messages();
    exit_code(work(arguments), |text| arguments.with_config(text))
}

/// The same of work that knows no study.
pub fn run_without_study(output: &Output, work: impl FnOnce(&Output) -> Result<()>) -> ExitCode {
    output.start_messages();
    exit_code(work(output), |text| text)
}

fn exit_code(result: Result<()>, as_typed: impl FnOnce(String) -> String) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = message(&error);
            if let Some(hint) = pipeline::memory_hint(&text) {
                text = format!("{text}\n\n{hint}");
            }
            eprintln!("error: {}", printable(&as_typed(text)));
            if error.is::<StudyError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_=+.,/:".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The error with its causes, outermost first; what another says as well is left out.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if cause.starts_with(&text) {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
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
    fn commands_are_what_a_shell_takes() {
        let mut arguments = Arguments {
            overrides: vec!["recipe.lr=0.01".to_owned(), "study.variants=classes=8 seed=1".to_owned()],
            config: DEFAULT_CONFIG.into(),
            output: Output { json: false, quiet: false, verbose: false },
        };
        assert_eq!(arguments.command("study"), "just study recipe.lr=0.01 'study.variants=classes=8 seed=1'");
        arguments.overrides = vec!["data.dir=it's".to_owned()];
        arguments.config = "other.toml".into();
        assert_eq!(arguments.command("study"), r"just study 'data.dir=it'\''s' --config other.toml");
        let hint = "hint: run `just extract`, which goes on".to_owned();
        assert_eq!(arguments.with_config(hint), "hint: run `just extract --config other.toml`, which goes on");
        let hint = "hint: run `just extract extract.features=fm1`".to_owned();
        assert_eq!(arguments.with_config(hint), "hint: run `just extract --config other.toml extract.features=fm1`");
    }

    #[test]
    fn nothing_is_said_twice() {
        let error = anyhow::anyhow!("`a` cannot be `b`, expected `c`").context("`a` cannot be `b`");
        assert_eq!(message(&error), "`a` cannot be `b`, expected `c`");
    }

    #[test]
    fn names_steer_no_terminal() {
        assert_eq!(printable("`a\u{1b}[31m.png`\n\nhint: é"), "`a\\u{1b}[31m.png`\n\nhint: é");
    }
}
