//! Tokens that stay in a GPU's memory while runs are trained.

use std::time::Instant;

use anyhow::{Result, bail};
use sources::{Combination, Source};
use vit::{Batch, Held, Holding, Model, Predictors, Trainer};

use super::{Common, sharing::Holds};
use crate::{
    examples::Example,
    loader::{BATCHES_IN_MEMORY, INFERENCE_BATCH, TokenReader},
    progress,
};

/// Room that is left to the libraries.
const SPARE_BYTES: u64 = 2 << 30;

/// Where tokens come from while runs are trained.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) training: Tokens,
    pub(super) validation: Tokens,
}

/// The tokens of some images.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Those that a GPU's memory holds.
    pub(super) held: Vec<Held>,
    /// The sources whose tokens are read for each batch.
    pub(super) streamed: Vec<Source>,
}

/// What can be held.
struct Candidate<'a> {
    source: Source,
    reader: TokenReader<'a>,
    /// One image's tokens.
    like: Batch,
    bytes_per_image: u64,
}

impl Resident {
    /// No GPU holds anything of `sources`.
    pub(super) fn nothing(sources: Combination) -> Self {
        Self { training: Tokens::streamed(sources), validation: Tokens::streamed(sources) }
    }
}

impl Tokens {
    fn streamed(sources: Combination) -> Self {
        Self { held: Vec::new(), streamed: sources.iter().collect() }
    }
}

/// Brings the tokens of all training images into the memory of the GPU on which `trainers` train `models`, of as many of `sources` as
/// it has room for, and then those of the validation images, if these are asked about more than once; unless `holds` is less. What a source takes is what it
/// spares the bus in every epoch, so the largest that fits comes first.
pub(super) fn hold(
    common: &Common<'_>,
    sources: Combination,
    models: &[&Model],
    trainers: &[Trainer],
    holds: Holds,
) -> Result<Resident> {
    let free_bytes = Trainer::free_bytes(&common.device).filter(|_| holds != Holds::Nothing);
    let Some(free_bytes) = free_bytes else { return Ok(Resident::nothing(sources)) };
    let (study, examples) = (&common.context.study, &common.examples);
    let of_runs = models.iter().map(|model| Trainer::bytes(model, study.recipe.batch, rayon::current_num_threads()));
    let of_validation: u64 = models.iter().map(|model| Predictors::bytes(model, INFERENCE_BATCH)).sum();
    let mut room = free_bytes.saturating_sub(of_runs.sum::<u64>() + of_validation + SPARE_BYTES);

    let mut candidates = Vec::new();
    for source in sources.iter() {
        let reader = TokenReader::new(common.context, common.features, [source], &study.model)?;
        let like = reader.read_one(&examples.train[0])?;
        let bytes_per_image = like.tokens.values().map(|tokens| tokens.size_bytes() as u64).sum();
        candidates.push(Candidate { source, reader, like, bytes_per_image });
    }
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.bytes_per_image));
    let per_image: u64 = candidates.iter().map(|candidate| candidate.bytes_per_image).sum();
    if per_image * (examples.train.len() * study.extract.views.each().len()) as u64 > room {
        // What comes with each batch is there several times.
        room = room.saturating_sub(per_image * (BATCHES_IN_MEMORY * study.recipe.batch) as u64);
    }
    let training = hold_images(common, "training", &candidates, (&examples.train, trainers), &mut room)?;
    training.held.iter().for_each(|held| held.lend_to(trainers));
    // 0 stands for the last step only.
    let is_asked_again = (1..study.recipe.steps).contains(&study.train.validate_every);
    let validation = match holds {
        Holds::All if is_asked_again => {
            hold_images(common, "validation", &candidates, (&examples.valid, trainers), &mut room)?
        }
        _ => Tokens::streamed(sources),
    };
    Ok(Resident { training, validation })
}

/// Brings the tokens of `examples` there, as long as they fit into `room`, which becomes less.
fn hold_images(
    common: &Common<'_>,
    what: &str,
    candidates: &[Candidate<'_>],
    (examples, trainers): (&[Example], &[Trainer]),
    room: &mut u64,
) -> Result<Tokens> {
    let (begun, images) = (Instant::now(), examples.len() * common.context.study.extract.views.each().len());
    let (mut held, mut streamed, mut sources, mut held_bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for candidate in candidates {
        let Candidate { source, like, .. } = candidate;
        let bytes = candidate.bytes_per_image * images as u64;
        let holding = if bytes <= *room { Holding::begin(trainers, *source, images, like)? } else { None };
        let Some(holding) = holding else {
            streamed.push(*source);
            continue;
        };
        held.push(read_all(common, candidate, examples, holding)?);
        *room -= bytes;
        held_bytes += bytes;
        sources.push(*source);
    }
    tracing::info!(
        "in the GPU's memory for {what}: {} ({:.1} GB, in {:.1} s); read for each batch: {}",
        names(&sources),
        held_bytes as f64 / 1e9,
        begun.elapsed().as_secs_f64(),
        names(&streamed)
    );
    Ok(Tokens { held, streamed })
}

/// One view of all `examples` after the other, in the order in which batches number them.
fn read_all(
    common: &Common<'_>,
    Candidate { source, reader, .. }: &Candidate<'_>,
    examples: &[Example],
    mut holding: Holding,
) -> Result<Held> {
    let context = common.context;
    let views = context.study.extract.views.each();
    let images = (views.len() * examples.len()) as u64;
    let bar = progress::bar(context.show_progress, images, &format!("load {source}"), "images");
    for view in views {
        let mut done = 0;
        reader.for_each_view(examples, &[*view], |_, batch| {
            // Nobody looks at them again.
            if let Some((source, image, value)) = batch.first_not_finite() {
                let name = &context.dataset.images[examples[done + image].index].id;
                bail!(
                    "{source} of image `{name}` holds {value}\n\n\
                     hint: run `just verify`, which names the damaged file, then `just extract` and this command again"
                );
            }
            holding.add(batch)?;
            done += batch.images;
            bar.inc(batch.images as u64);
            Ok(())
        })?;
    }
    bar.finish_and_clear();
    Ok(holding.finish()?)
}

fn names(sources: &[Source]) -> String {
    if sources.is_empty() {
        return "nothing".to_owned();
    }
    sources.iter().map(|source| source.name()).collect::<Vec<_>>().join("+")
}
