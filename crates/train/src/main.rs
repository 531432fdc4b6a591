//! `train`: trains a Vision Transformer from cached features, for every run that is not fresh.

use std::process::ExitCode;

use clap::Parser;
use pipeline::{summary, training};

/// Train a Vision Transformer from cached features, for every run that is not fresh
#[derive(Debug, Parser)]
#[command(version, after_help = study::help(&[study::Stage::Train]))]
struct Arguments {
    #[command(flatten)]
    common: cli::Arguments,
}

fn main() -> ExitCode {
    cli::run(&Arguments::parse().common, |arguments| {
        let context = arguments.context()?;
        let trained = training::run(&context)?;
        arguments.print(&trained, summary::training)
    })
}
