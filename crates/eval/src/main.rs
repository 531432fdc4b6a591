//! `eval`: evaluates every trained run that has no fresh evaluation.

use std::process::ExitCode;

use clap::Parser;
use pipeline::{evaluation, summary, transfer};

/// Evaluate every trained run that has no fresh evaluation, beside the paper's numbers
#[derive(Debug, Parser)]
#[command(version, after_help = study::help(study::Stage::Eval))]
struct Arguments {
    #[command(flatten)]
    common: cli::Arguments,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse().common;
    for argument in &mut arguments.overrides {
        // Another data set for an evaluation is one to judge the runs on; elsewhere it is the one to learn from.
        if argument.starts_with("data=") {
            argument.insert_str(0, "eval.");
        }
    }
    cli::run(&arguments, |arguments| {
        let context = arguments.context()?;
        if let Some(data) = &context.study.eval.data {
            return arguments.print(&transfer::run(&context, data)?, summary::transfer);
        }
        let evaluated = evaluation::run(&context)?;
        arguments.print(&evaluated, summary::evaluation)
    })
}
