//! Tokens that stay in a GPU's memory while runs are trained.

use std::time::Instant;

use anyhow::{Result, bail};
use sources::{Combination, Source};
use vit::{Holding, Model, Predictors, Trainer};

use super::Common;
use crate::{
    loader::{BATCHES_IN_MEMORY, INFERENCE_BATCH, TokenReader},
    progress,
};

/// Room that is left to the libraries.
const SPARE_BYTES: u64 = 2 << 30;

/// Brings the tokens of all training images into the memory of the GPU on which `trainers` train `models`, of as many of
/// `sources` as it has room for, and gives the others. What a source takes is what it spares the bus in every epoch, so the
/// largest that fits comes first.
pub(super) fn hold(
    common: &Common<'_>,
    sources: Combination,
    models: &[&Model],
    trainers: &[Trainer],
) -> Result<Vec<Source>> {
    let begun = Instant::now();
    let Some(free_bytes) = Trainer::free_bytes(&common.device) else { return Ok(sources.iter().collect()) };
    let study = &common.context.study;
    let images = common.examples.train.len() * study.extract.views.each().len();
    let of_runs = models.iter().map(|model| Trainer::bytes(model, study.recipe.batch, rayon::current_num_threads()));
    let validation: u64 = models.iter().map(|model| Predictors::bytes(model, INFERENCE_BATCH)).sum();
    let mut room = free_bytes.saturating_sub(of_runs.sum::<u64>() + validation + SPARE_BYTES);

    let mut candidates = Vec::new();
    for source in sources.iter() {
        let reader = TokenReader::new(common.context, common.features, [source], &study.model)?;
        let first = reader.read_one(&common.examples.train[0])?;
        let bytes: usize = first.tokens.values().map(|tokens| images * tokens.size_bytes()).sum();
        candidates.push((bytes as u64, source, reader, first));
    }
    let all: u64 = candidates.iter().map(|(bytes, ..)| *bytes).sum();
    if all > room {
        // What comes with each batch is there several times.
        let batches = BATCHES_IN_MEMORY as u64 * study.recipe.batch as u64;
        room = room.saturating_sub(all / images as u64 * batches);
    }
    candidates.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
    let (mut held, mut streamed, mut held_bytes) = (Vec::new(), Vec::new(), 0);
    for (bytes, source, reader, first) in candidates {
        let holding = if bytes <= room { Holding::begin(trainers, source, images, &first)? } else { None };
        let Some(holding) = holding else {
            streamed.push(source);
            continue;
        };
        read_all(common, source, &reader, holding, trainers)?;
        room -= bytes;
        held_bytes += bytes;
        held.push(source);
    }
    tracing::info!(
        "in the GPU's memory: {} ({:.1} GB, in {:.1} s); read for each batch: {}",
        names(&held),
        held_bytes as f64 / 1e9,
        begun.elapsed().as_secs_f64(),
        names(&streamed)
    );
    Ok(streamed)
}

/// One view of all training images after the other, in the order in which batches number them.
fn read_all(
    common: &Common<'_>,
    source: Source,
    reader: &TokenReader<'_>,
    mut holding: Holding,
    trainers: &[Trainer],
) -> Result<()> {
    let (context, train) = (common.context, &common.examples.train);
    let views = context.study.extract.views.each();
    let bar =
        progress::bar(context.show_progress, (views.len() * train.len()) as u64, &format!("load {source}"), "images");
    for view in views {
        let mut done = 0;
        reader.for_each_view(train, &[*view], |_, batch| {
            // Nobody looks at them again.
            if let Some((source, image, value)) = batch.first_not_finite() {
                let name = &context.dataset.images[train[done + image].index].id;
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
    Ok(holding.finish(trainers)?)
}

fn names(sources: &[Source]) -> String {
    if sources.is_empty() {
        return "nothing".to_owned();
    }
    sources.iter().map(|source| source.name()).collect::<Vec<_>>().join("+")
}
