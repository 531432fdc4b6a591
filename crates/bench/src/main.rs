//! `bench`: measures a stage beside PyTorch, in one run on the same cores.
//!
//! Ours and PyTorch's passes take turns, so that whatever else the machine does meets both; figures are medians.

mod extract;
mod layers;
mod pass;
mod peak;
mod peer;
mod probe;
mod train;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use study::DeviceChoice;

/// Measure a stage beside PyTorch, in one run on the same cores
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    stage: Stage,

    /// Print one JSON object on stdout
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Stage {
    /// The backbone pass
    Extract(ExtractArguments),
    /// The backbone pass alone on a device; with cuDNN nothing is copied to and from it
    Pass(PassArguments),
    /// The training step
    Train(TrainArguments),
    /// What each precision of the pass costs a linear probe in accuracy
    Probe(ProbeArguments),
}

/// On what a linear probe is trained.
#[derive(Debug, Args)]
pub struct ProbeArguments {
    /// The data set
    #[arg(long, default_value = "data/ferplus")]
    data: PathBuf,

    /// Weights of ResNet-18
    #[arg(long)]
    weights: PathBuf,

    /// Images, shared out over the splits; 0 for all
    #[arg(long, default_value_t = 0)]
    images: usize,
}

/// What is measured, and beside what.
#[derive(Debug, Args)]
pub struct ExtractArguments {
    /// Threads on both sides
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, Into::into))]
    threads: usize,

    /// Images per pass
    #[arg(long, default_value_t = 32)]
    batch: usize,

    /// Passes per variant
    #[arg(long, default_value_t = 7)]
    runs: usize,

    /// Python with torch and torchvision; without them only ours is measured
    #[arg(long, default_value = "python3")]
    python: PathBuf,

    /// Leave out PyTorch's compiled variants, which take a minute to compile
    #[arg(long)]
    no_compile: bool,

    /// Images of the measurement from files to shards; 0 leaves it out
    #[arg(long, default_value_t = 2048)]
    end_to_end_images: usize,

    /// Weights of ResNet-18; seeded random ones by default
    #[arg(long)]
    weights: Option<PathBuf>,

    /// Measure the layers one by one instead
    #[arg(long)]
    layers: bool,
}

/// Where the pass is measured.
#[derive(Debug, Args)]
pub struct PassArguments {
    /// Weights of ResNet-18
    #[arg(long)]
    weights: PathBuf,

    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,

    /// Images per pass
    #[arg(long, default_value_t = 256)]
    images: usize,

    /// Passes that count
    #[arg(long, default_value_t = 30)]
    passes: usize,
}

/// How the training step is measured, and beside what.
#[derive(Debug, Args)]
pub struct TrainArguments {
    /// Threads on both sides
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, Into::into))]
    threads: usize,

    /// Images per step
    #[arg(long, default_value_t = 64)]
    batch: usize,

    /// Turns of each side
    #[arg(long, default_value_t = 5)]
    runs: usize,

    /// Python with torch; without it only ours is measured
    #[arg(long, default_value = "python3")]
    python: PathBuf,

    /// Leave out PyTorch's compiled variants, which take a minute to compile
    #[arg(long)]
    no_compile: bool,

    /// Models to measure, the smallest first
    #[arg(long, default_value_t = 3)]
    models: usize,

    /// Drawn faces whose features the steps are fed with
    #[arg(long, default_value_t = 1024)]
    images: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.stage {
        Stage::Extract(stage) => extract(stage, arguments.json),
        Stage::Pass(stage) => pass::measure(stage).and_then(|measured| print(&measured, arguments.json, pass::table)),
        Stage::Train(stage) => train(stage, arguments.json),
        Stage::Probe(stage) => probe::measure(stage).and_then(|probed| print(&probed, arguments.json, probe::table)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn extract(arguments: &ExtractArguments, json: bool) -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global()?;
    if arguments.layers {
        let measured = layers::measure(arguments)?;
        return print(&measured, json, layers::table);
    }
    let measured = extract::measure(arguments)?;
    print(&measured, json, extract::table)
}

fn train(arguments: &TrainArguments, json: bool) -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global()?;
    print(&train::measure(arguments)?, json, train::table)
}

fn print<T: Serialize>(measured: &T, json: bool, table: impl Fn(&T) -> String) -> Result<()> {
    println!("{}", if json { serde_json::to_string_pretty(measured)? } else { table(measured) });
    Ok(())
}

/// The middle one of `values`, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { 0.5 * (values[middle - 1] + values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), 3.0);
    }
}
