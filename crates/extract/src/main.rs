//! `extract`: runs the frozen backbone over every image that is not cached yet.

use std::process::ExitCode;

use clap::Parser;
use pipeline::{export, extraction, summary};

/// Run the frozen backbone over every image that is not cached yet
#[derive(Debug, Parser)]
#[command(version, after_help = study::help(&[study::Stage::Extract]))]
struct Arguments {
    #[command(flatten)]
    common: cli::Arguments,
}

fn main() -> ExitCode {
    cli::run(&Arguments::parse().common, |arguments| {
        let mut context = arguments.context()?;
        let extracted = extraction::run(&mut context)?;
        if let Some(folder) = &context.study.export.npy {
            export::write_npy(&context, folder)?;
        }
        arguments.print(&extracted, |extracted| summary::extraction(&context, extracted))
    })
}
