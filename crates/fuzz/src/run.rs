use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use crate::{
    Target,
    case::{Fault, fault},
    corpus::{Seed, corpus, corpus_folder},
};

/// Cases that a thread takes at a time.
const BLOCK: u64 = 256;

/// What a run found.
#[derive(Debug)]
pub struct Outcome {
    /// Inputs that were tried.
    pub cases: u64,
    /// How some of them failed, by place.
    pub failures: Vec<Failure>,
}

/// Cases that failed in one place.
#[derive(Debug)]
pub struct Failure {
    /// Where the panic was, or `memory`, `time` or `refusal`.
    pub place: String,
    /// What the first of them said.
    pub message: String,
    /// How many they are.
    pub cases: u64,
    /// The first one's input.
    pub input: PathBuf,
}

/// Tries `cases` inputs, the first numbers that `seed` has for `target`. The first input that fails in each place is written
/// to the folder `failures`, which is made if need be.
///
/// # Errors
/// If the corpus cannot be read or `failures` cannot be written to.
pub fn run(target: &Target, cases: u64, seed: u64, failures: &Path) -> io::Result<Outcome> {
    let seeds = seeds(target)?;
    fs_err::create_dir_all(failures)?;
    let blocks: Vec<u64> = (0..cases).step_by(BLOCK as usize).collect();
    let found = blocks
        .into_par_iter()
        .map(|start| block(target, &seeds, seed, start..cases.min(start + BLOCK), failures))
        .try_reduce(BTreeMap::new, |one, other| Ok(merged(one, other)))?;
    let written = found.into_iter().map(|(place, Found { message, cases, first })| {
        let input = failures.join(format!("{}-{seed}-{first}", target.name));
        fs_err::write(&input, target.input(&seeds, seed, first))?;
        Ok(Failure { place, message, cases, input })
    });
    Ok(Outcome { cases, failures: written.collect::<io::Result<_>>()? })
}

/// The input of case `number` of `target` under `seed`.
///
/// # Errors
/// If the corpus cannot be read.
pub fn input(target: &Target, seed: u64, number: u64) -> io::Result<Vec<u8>> {
    Ok(target.input(&seeds(target)?, seed, number))
}

/// What inputs are made of: the valid files, since much of what lies near the others is refused at once or takes long.
fn seeds(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    Ok(corpus(target.name)?.into_iter().filter(Seed::is_valid).map(|seed| seed.bytes).collect())
}

/// Tries every file of the corpus of `target`, as it is and with its checksums mended. The valid ones must be accepted: inputs made
/// of files that are refused at the first look would try nothing.
///
/// # Errors
/// If the corpus cannot be read.
pub fn replay(target: &Target) -> io::Result<Outcome> {
    let seeds = corpus(target.name)?;
    let mut outcome = Outcome { cases: 0, failures: Vec::new() };
    for seed in &seeds {
        let path = || corpus_folder(target.name).join(&seed.name);
        if seed.is_valid() && !target.parse(&seed.bytes) {
            let message = "a valid file is refused; make the corpus anew".to_owned();
            outcome.failures.push(Failure { place: "refusal".to_owned(), message, cases: 1, input: path() });
        }
        for input in [seed.bytes.clone(), target.mended(&seed.bytes)] {
            outcome.cases += 1;
            if let Some(Fault { place, message }) = fault(target, &input) {
                outcome.failures.push(Failure { place, message, cases: 1, input: path() });
            }
        }
    }
    Ok(outcome)
}

/// What failed in one place.
struct Found {
    message: String,
    cases: u64,
    /// Number of the first case.
    first: u64,
}

type ByPlace = BTreeMap<String, Found>;

fn block(target: &Target, seeds: &[Vec<u8>], seed: u64, numbers: Range<u64>, folder: &Path) -> io::Result<ByPlace> {
    let mut at_work = AtWork::begin(folder.join(format!("{}-{seed}-at-work-{}", target.name, numbers.start)))?;
    let mut found = ByPlace::new();
    for number in numbers {
        at_work.at(number)?;
        if let Some(Fault { place, message }) = fault(target, &target.input(seeds, seed, number)) {
            found.entry(place).or_insert(Found { message, cases: 0, first: number }).cases += 1;
        }
    }
    at_work.end()?;
    Ok(found)
}

fn merged(mut into: ByPlace, from: ByPlace) -> ByPlace {
    for (place, Found { message, cases, first }) in from {
        let found = into.entry(place).or_insert(Found { message: message.clone(), cases: 0, first });
        found.cases += cases;
        if first < found.first {
            (found.message, found.first) = (message, first);
        }
    }
    into
}

/// A file with the number of the case at work.
struct AtWork {
    path: PathBuf,
    file: fs_err::File,
}

impl AtWork {
    fn begin(path: PathBuf) -> io::Result<Self> {
        let file = fs_err::File::create(&path)?;
        Ok(Self { path, file })
    }

    fn at(&mut self, number: u64) -> io::Result<()> {
        use std::io::{Seek as _, Write as _};
        self.file.rewind()?;
        self.file.write_all(format!("{number:020}\n").as_bytes())
    }

    fn end(self) -> io::Result<()> {
        drop(self.file);
        fs_err::remove_file(self.path)
    }
}
