//! `fmstudy`: does a whole study, reports it, and looks after it.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use pipeline::{Context, clean, evaluation, extraction, predict, status, summary, training, verify};
use serde::Serialize;

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
    #[command(after_help = study::help(study::Stage::Report))]
    Study(cli::Arguments),
    /// Write the report of what is evaluated
    #[command(after_help = study::help(study::Stage::Report))]
    Report(cli::Arguments),
    /// Draw images with their feature maps, as the paper's Figure 3 does
    #[command(after_help = study::help(study::Stage::Report))]
    Figure(cli::Arguments),
    /// Have a trained run answer about images
    #[command(after_help = study::help(study::Stage::Report))]
    Predict(cli::Arguments),
    /// Show what is fresh, stale (and why), partial or missing
    Status(cli::Arguments),
    /// Read everything again and compare it with its recorded hash
    Verify(cli::Arguments),
    /// Remove what no current configuration uses, after listing it
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
        common: cli::Arguments,
        /// Folder for them
        #[arg(long, default_value = "data/demo")]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Study(common) => cli::run(&common, whole_study),
        Command::Report(common) => {
            cli::run(&common, |arguments| write_report(arguments, &arguments.context()?, &arguments.variants()?))
        }
        Command::Figure(common) => {
            cli::run(&common, |arguments| arguments.print(&report::draw(&arguments.context()?)?, report::drawn))
        }
        Command::Predict(common) => {
            cli::run(&common, |arguments| arguments.print(&predict::run(&arguments.context()?)?, summary::predictions))
        }
        Command::Status(common) => {
            cli::run(&common, |arguments| arguments.print(&status::status(&arguments.context()?)?, summary::status))
        }
        Command::Verify(common) => cli::run(&common, |arguments| {
            let verification = verify::run(&arguments.context()?)?;
            arguments.print(&verification, summary::verification)?;
            verify::require_sound(&verification)
        }),
        Command::CleanStale { common, yes } => cli::run(&common, |arguments| {
            let leftovers = clean::leftovers(&arguments.context()?)?;
            arguments.print(&leftovers, summary::leftovers)?;
            if leftovers.leftovers.is_empty() || !(yes || confirmed()?) { Ok(()) } else { clean::remove(&leftovers) }
        }),
        Command::DemoData { common, dir } => cli::run(&common, |arguments| {
            let was_there = demo::write_demo(&dir)? == [demo::Written::AlreadyThere; 2];
            arguments.print(&DemoData { dir, was_there }, |data| match data.was_there {
                true => format!("demo-data: `{}` is there; nothing to do", data.dir.display()),
                false => format!("demo-data: drew faces and made a backbone in `{}`", data.dir.display()),
            })
        }),
    }
}

/// Everything from images to the report. What fails in a run holds the others and the report up no more than it must: it is
/// told at the end.
fn whole_study(arguments: &cli::Arguments) -> Result<()> {
    let (mut context, mut variants) = (arguments.context()?, arguments.variants()?);
    let mut failed = run_stages(&mut context)?;
    for (name, context) in &mut variants {
        tracing::info!("variant {name}");
        failed = failed.or(run_stages(context)?);
    }
    write_report(arguments, &context, &variants)?;
    failed.map_or(Ok(()), Err)
}

/// Extraction, training and evaluation, as far as they are not fresh. Gives what kept runs from being trained.
fn run_stages(context: &mut Context) -> Result<Option<anyhow::Error>> {
    let extracted = extraction::run(context)?;
    tracing::info!("{}", summary::extraction(context, &extracted));
    let failed = match training::run(context) {
        Ok(trained) => {
            let fresh = trained.runs.iter().filter(|run| run.before.is_fresh()).count();
            tracing::info!("train: {} runs, {fresh} were fresh", trained.runs.len());
            None
        }
        Err(error) => Some(error),
    };
    match (evaluation::run(context), failed) {
        (Ok(evaluated), failed) => {
            let fresh = evaluated.runs.iter().filter(|run| run.was_fresh).count();
            tracing::info!("eval: {} runs, {fresh} were fresh", evaluated.runs.len());
            Ok(failed)
        }
        // Where nothing is trained, there is nothing to evaluate.
        (Err(_), Some(failed)) => Err(failed),
        (Err(error), None) => Err(error),
    }
}

fn write_report(arguments: &cli::Arguments, context: &Context, variants: &[(String, Context)]) -> Result<()> {
    let overrides = arguments.overrides.iter().map(|one| format!(" {one}")).collect::<String>();
    let written = report::write(context, variants, context.paths.report(), &format!("just study{overrides}"))?;
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
