//! `eval`: evaluates every trained run that has no fresh evaluation.

use std::process::ExitCode;

use clap::Parser;
use pipeline::{evaluation, summary};

/// Evaluate every trained run that has no fresh evaluation, beside the paper's numbers
#[derive(Debug, Parser)]
#[command(version, after_help = study::help(study::Stage::Eval))]
struct Arguments {
    #[command(flatten)]
    common: cli::Arguments,
}

fn main() -> ExitCode {
    cli::run(&Arguments::parse().common, |arguments| {
        let context = arguments.context()?;
        let evaluated = evaluation::run(&context)?;
        arguments.print(&evaluated, summary::evaluation)
    })
}
