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
use study::{Key, Stage, Study, StudyError, key_of};
use tracing_subscriber::EnvFilter;

/// Where the configuration is looked for.
const DEFAULT_CONFIG: &str = "study.toml";

/// Recipes that hints recommend, and the stage whose keys they read if they do not read all of them.
const RECIPES: [(&str, Option<Stage>); 9] = [
    ("extract", Some(Stage::Extract)),
    ("train", Some(Stage::Train)),
    ("eval", Some(Stage::Eval)),
    ("study", None),
    ("report", None),
    ("figure", None),
    ("predict", None),
    ("verify", None),
    ("status", None),
];

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
        self.typed(recipe, &self.overrides.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn typed(&self, recipe: &str, overrides: &[&str]) -> String {
        let config = self.config.to_string_lossy();
        let config = if self.config == Path::new(DEFAULT_CONFIG) { vec![] } else { vec!["--config", &config] };
        let words = ["just", recipe].into_iter().chain(overrides.iter().copied()).chain(config);
        words.map(quoted).collect::<Vec<_>>().join(" ")
    }

    /// `text` with the commands that it recommends as they are to be typed to go on with this configuration.
    fn as_typed(&self, text: &str) -> String {
        // What stands between two backticks is every second part.
        let parts = text.split('`').enumerate().map(|(place, part)| {
            let command = (place % 2 == 1).then(|| self.recommended(part)).flatten();
            command.unwrap_or_else(|| part.to_owned())
        });
        parts.collect::<Vec<_>>().join("`")
    }

    /// `command`, if it is a recipe with overrides of its own, with ours before them, as far as the recipe reads them.
    fn recommended(&self, command: &str) -> Option<String> {
        let mut words = command.strip_prefix("just ")?.split_whitespace();
        let recipe = words.next()?;
        let (_, stage) = RECIPES.iter().find(|(name, _)| *name == recipe)?;
        let own: Vec<&str> = words.collect();
        let is_wanted = |key: &Key| {
            let is_read = stage.is_none_or(|stage| key.stages.contains(&stage));
            is_read && !own.iter().any(|own| key_of(own).is_some_and(|other| other.name == key.name))
        };
        let ours = self.overrides.iter().map(String::as_str).filter(|of| key_of(of).is_some_and(is_wanted));
        Some(self.typed(recipe, &ours.chain(own.iter().copied()).collect::<Vec<_>>()))
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
    exit_code(work(arguments), |text| arguments.as_typed(&text))
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
            let mut text = pipeline::message(&error);
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
    }

    #[test]
    fn hints_go_on_with_the_same_configuration() {
        let arguments = Arguments {
            overrides: ["data=my faces", "combo=fm2", "weights=other.pth", "lr=0.1"].map(str::to_owned).to_vec(),
            config: "other.toml".into(),
            output: Output { json: false, quiet: false, verbose: false },
        };
        assert_eq!(
            arguments.as_typed("`my faces`: no features\n\nhint: run `just extract`, which goes on"),
            "`my faces`: no features\n\nhint: run `just extract 'data=my faces' weights=other.pth --config other.toml`, which goes on"
        );
        assert_eq!(
            arguments.as_typed("run `just train combo=fm3`"),
            "run `just train 'data=my faces' weights=other.pth lr=0.1 combo=fm3 --config other.toml`"
        );
        assert_eq!(arguments.as_typed("run `just demo`, or `just"), "run `just demo`, or `just");
    }

    #[test]
    fn names_steer_no_terminal() {
        assert_eq!(printable("`a\u{1b}[31m.png`\n\nhint: é"), "`a\\u{1b}[31m.png`\n\nhint: é");
    }
}
