//! A short run of every target, and every file of every corpus.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{fmt::Write as _, time::Instant};

use fuzz::{Outcome, TARGETS, Target};

#[global_allocator]
static MEMORY: fuzz::Metered = fuzz::Metered;

/// So many that the whole takes some 15 s without optimisation.
fn cases(target: &Target) -> u64 {
    match target.name {
        "fer2013" | "study" | "checkpoint" => 3_000,
        "safetensors" | "npz" | "npy" | "pth" | "pickle" | "png" | "jpeg" | "bmp" => 5_000,
        _ => 20_000,
    }
}

fn report(into: &mut String, target: &Target, outcome: &Outcome) {
    for failure in &outcome.failures {
        writeln!(into, "{}: {failure:?}", target.name).unwrap();
    }
}

#[test]
fn no_input_makes_a_parser_panic_or_take_all_memory_or_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut failed = String::new();
    for target in TARGETS {
        let start = Instant::now();
        let outcome = fuzz::run(target, cases(target), 0, folder.path()).unwrap();
        let per_case = start.elapsed().as_secs_f64() / outcome.cases as f64;
        println!("{:13} {:6} cases, {:7.1} µs each", target.name, outcome.cases, per_case * 1e6);
        report(&mut failed, target, &outcome);
    }
    if !failed.is_empty() {
        panic!("{failed}inputs are kept in `{}`", folder.keep().display());
    }
}

#[test]
fn every_file_of_the_corpus_is_read_or_refused() {
    let mut failed = String::new();
    for target in TARGETS {
        let outcome = fuzz::replay(target).unwrap();
        assert!(outcome.cases > 0, "{}", target.name);
        report(&mut failed, target, &outcome);
    }
    assert!(failed.is_empty(), "{failed}");
    assert!(!std::path::Path::new("/tmp/fuzz-was-executed").exists(), "a pickle was executed");
}

#[test]
fn a_case_is_the_same_every_time() {
    for target in TARGETS {
        let inputs = |seed| (0..20).map(|number| fuzz::input(target, seed, number).unwrap()).collect::<Vec<_>>();
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8), "{}", target.name);
    }
}
