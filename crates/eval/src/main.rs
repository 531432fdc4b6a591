//! `eval`: evaluates every trained run that has no fresh evaluation.

use std::process::ExitCode;

use clap::Parser;
use pipeline::{evaluation, summary, transfer};
use study::Paths;

/// Evaluate every trained run that has no fresh evaluation, beside the paper's numbers
#[derive(Debug, Parser)]
#[command(version, after_help = study::help(&[study::Stage::Eval]))]
struct Arguments {
    #[command(flatten)]
    common: cli::Arguments,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse().common;
    if arguments.study().is_ok_and(|study| !Paths::new(&study).all_runs().is_dir()) {
        // A data set without runs of its own, given by `data=` alone, is one to judge the configured runs on.
        for argument in arguments.overrides.iter_mut().filter(|argument| argument.starts_with("data=")) {
            argument.insert_str(0, "eval.");
        }
    }
    cli::run(&arguments, |arguments| {
        let context = arguments.context()?;
        let evaluated = evaluation::run(&context)?;
        if let Some(data) = &context.study.eval.data {
            return arguments.print(&transfer::run(&context, data)?, summary::transfer);
        }
        arguments.print(&evaluated, summary::evaluation)
    })
}
