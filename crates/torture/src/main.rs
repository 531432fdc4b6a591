//! `torture`: kills, power cuts, full disks, flipped bits, and whatever else machines do, done to a small study on purpose.
//!
//! Every item says how often it did what it does, and what went wrong: nothing, if all is well. What the machine does not
//! allow is skipped and said.

mod faults;
mod flips;
mod fuzz;
mod item;
mod kill;
mod limits;
mod load;
mod locks;
mod poison;
mod power;
mod strace;
mod victim;

use std::{process::ExitCode, time::Instant};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use item::{Item, Outcome, Scale};

// So that a parser that asks for all memory is seen.
#[global_allocator]
static MEMORY: ::fuzz::Metered = ::fuzz::Metered;

/// Do to a small study what machines do, and see whether anything is lost or silently wrong
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Which items; all of them if none is named
    #[arg(value_enum)]
    items: Vec<Item>,

    /// As often as docs/reliability.md reports, which takes hours, instead of minutes
    #[arg(long)]
    full: bool,

    /// What the random moments and places are drawn from
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Print one JSON array on stdout
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode> {
    let Arguments { items, full, seed, json } = Arguments::parse();
    let items = if items.is_empty() { Item::value_variants().to_vec() } else { items };
    let scale = if full { Scale::Full } else { Scale::Short };
    let mut outcomes = Vec::new();
    for item in items {
        let begun = Instant::now();
        // What one item cannot do keeps no other from being done.
        let outcome = item.run(scale, seed).unwrap_or_else(|error| {
            let mut outcome = Outcome::new(item);
            outcome.failures.push(format!("it could not go on: {error:#}"));
            outcome
        });
        let outcome = Outcome { wall_s: begun.elapsed().as_secs_f64(), ..outcome };
        if !json {
            println!("{outcome}");
        }
        outcomes.push(outcome);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&outcomes)?);
    }
    let is_sound = outcomes.iter().all(|outcome| outcome.failures.is_empty());
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
