//! `fmstudy`: does a whole study, reports it, and looks after it.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use pipeline::{
    Context, clean, evaluation, extraction, message, predict,
    status::{self, StudyStatus, VariantStatus},
    summary::{self, counted},
    training, transfer, verify,
};
use serde::Serialize;
use study::Stage;

/// Do a whole study and report it; see what is fresh, whether it is sound, what can go; draw the demo's data
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Do all that the study asks for and is not fresh: extract, train, evaluate, report
    #[command(after_help = study::help(&Stage::ALL))]
    Study(cli::Arguments),
    /// Write the report of what is evaluated
    #[command(after_help = study::help(&[Stage::Report]))]
    Report(cli::Arguments),
    /// Draw images with their feature maps, as the paper's Figure 3 does
    #[command(after_help = study::help(&[Stage::Report]))]
    Figure(cli::Arguments),
    /// Have a trained run answer about images
    #[command(after_help = study::help(&[Stage::Report]))]
    Predict(cli::Arguments),
    /// Show what is fresh, stale (and why), partial or missing
    #[command(after_help = study::help(&Stage::ALL))]
    Status(cli::Arguments),
    /// Read everything again and compare it with its recorded hash
    #[command(after_help = study::help(&Stage::ALL))]
    Verify(cli::Arguments),
    /// Remove what no current configuration uses, after listing it
    #[command(after_help = study::help(&Stage::ALL))]
    CleanStale {
        #[command(flatten)]
        common: cli::Arguments,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Draw the demo's faces and make its backbone
    DemoData {
        #[command(flatten)]
        output: cli::Output,
        /// Folder for them
        #[arg(long, default_value = "data/demo")]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Study(common) => cli::run(&common, whole_study),
        Command::Report(common) => cli::run(&common, write_report),
        Command::Figure(common) => {
            cli::run(&common, |arguments| arguments.print(&report::draw(&arguments.context()?)?, report::drawn_summary))
        }
        Command::Predict(common) => {
            cli::run(&common, |arguments| arguments.print(&predict::run(&arguments.context()?)?, summary::predictions))
        }
        Command::Status(common) => {
            cli::run(&common, |arguments| arguments.print(&whole_status(arguments)?, summary::status))
        }
        Command::Verify(common) => cli::run(&common, |arguments| {
            let verification = verify::run(&arguments.context()?)?;
            arguments.print(&verification, summary::verification)?;
            verify::require_sound(&verification)
        }),
        Command::CleanStale { common, yes } => cli::run(&common, |arguments| {
            let variants = arguments.variants()?;
            let variants: Vec<&Context> = variants.iter().map(|(_, context)| context).collect();
            let leftovers = clean::leftovers(&arguments.context()?, &variants)?;
            arguments.print(&leftovers, summary::leftovers)?;
            if leftovers.leftovers.is_empty() || !(yes || confirmed()?) { Ok(()) } else { clean::remove(&leftovers) }
        }),
        Command::DemoData { output, dir } => cli::run_without_study(&output, |output| {
            let was_there = demo::write_demo(&dir)? == [demo::Written::AlreadyThere; 2];
            output.print(&DemoData { dir, was_there }, |data| match data.was_there {
                true => format!("demo-data: `{}` is there; nothing to do", data.dir.display()),
                false => format!("demo-data: drew faces and made a backbone in `{}`", data.dir.display()),
            })
        }),
    }
}

/// How the study and its variants stand.
fn whole_status(arguments: &cli::Arguments) -> Result<StudyStatus> {
    let mut status = status::status(&arguments.context()?)?;
    for (variant, context) in arguments.variants()? {
        status.variants.push(VariantStatus { variant, status: status::status(&context)? });
    }
    Ok(status)
}

/// Everything from images to the report. What fails holds nothing else up: it is told at once, and again at the end.
fn whole_study(arguments: &cli::Arguments) -> Result<()> {
    let mut failures = Failures::default();
    run_stages(&mut arguments.context()?, &mut failures);
    for words in arguments.study()?.study.variants {
        tracing::info!("variant {words}");
        failures.variant = Some(words.clone());
        // One after the other: each saves what it has learned of files' hashes for the next.
        if let Some(mut context) = failures.take(arguments.variant(&words)) {
            run_stages(&mut context, &mut failures);
        }
    }
    failures.variant = None;
    failures.take(write_report(arguments));
    failures.into_result()
}

/// What went wrong in a study.
#[derive(Default)]
struct Failures {
    errors: Vec<anyhow::Error>,
    /// The words of the variant that is at work.
    variant: Option<String>,
}

impl Failures {
    /// The result, if there is one; else tells and keeps what went wrong.
    fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                let error = match &self.variant {
                    Some(words) => error.context(format!("variant `{words}`, whose keys its commands need too")),
                    None => error,
                };
                tracing::error!("{}", message(&error));
                self.errors.push(error);
            })
            .ok()
    }

    fn into_result(self) -> Result<()> {
        let all: Vec<String> = self.errors.iter().map(message).collect();
        match self.errors.into_iter().next() {
            None => Ok(()),
            Some(only) if all.len() == 1 => Err(only),
            Some(_) => bail!("{} things failed:\n{}", all.len(), all.join("\n")),
        }
    }
}

/// Extraction, training and evaluation, also on another data set if one is configured, as far as they are not fresh.
fn run_stages(context: &mut Context, failures: &mut Failures) {
    // Nothing else can be done without features.
    let Some(extracted) = failures.take(extraction::run(context)) else { return };
    tracing::info!("{}", summary::extraction(context, &extracted));
    if let Some(trained) = failures.take(training::run(context)) {
        let fresh = trained.runs.iter().filter(|run| run.before.is_fresh()).count();
        tracing::info!("train: {}, {fresh} of them fresh", counted(trained.runs.len(), "run"));
    }
    if let Some(evaluated) = failures.take(evaluation::run(context)) {
        let fresh = evaluated.runs.iter().filter(|run| run.was_fresh).count();
        tracing::info!("eval: {}, {fresh} of them fresh", counted(evaluated.runs.len(), "run"));
    }
    if let Some(data) = context.study.eval.data.clone()
        && let Some(transferred) = failures.take(transfer::run(context, &data))
    {
        tracing::info!("eval on `{}`: {}", data.display(), counted(transferred.runs.len(), "run"));
    }
}

fn write_report(arguments: &cli::Arguments) -> Result<()> {
    let context = arguments.context()?;
    let variants: Vec<(String, Result<Context>)> =
        arguments.study()?.study.variants.into_iter().map(|words| (words.clone(), arguments.variant(&words))).collect();
    let written = report::write(&context, &variants, context.paths.report(), &arguments.command("study"))?;
    arguments.print(&written, report::summary)
}

/// What `demo-data` did.
#[derive(Debug, Serialize)]
struct DemoData {
    /// Where the data are.
    dir: PathBuf,
    /// Whether they were before.
    was_there: bool,
}

fn confirmed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nothing removed: cannot ask for confirmation here\n\nhint: add --yes");
    }
    eprint!("remove them? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
