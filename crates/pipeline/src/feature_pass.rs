//! Decode, compute and write, each in its own place and at the same time, joined by bounded queues: memory
//! stays the same however many images there are.

use std::{
    collections::HashMap,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
};

use anyhow::{Error, Result, anyhow};
use backbone::{Backbone, FeatureSink, preprocess};
use dataset::{Dataset, DatasetError, Pixels};
use indicatif::ProgressBar;
use rayon::prelude::*;
use shards::{Dtype, EncodedMap, PlannedImage, ShardWriter};
use sources::Source;
use stage::HashMemo;

use crate::{Context, extraction::Extraction};

/// Batches that wait between two steps. One is worked on at either end besides.
const QUEUE_BATCHES: usize = 2;

/// What has been done.
#[derive(Default)]
pub(crate) struct Pass {
    pub(crate) images: usize,
    pub(crate) shards: usize,
}

/// Why a pass ended early. Finished shards are kept.
pub(crate) enum PassError {
    /// An image cannot be decoded.
    Image {
        /// Its index in the data set.
        index: usize,
        /// What is wrong with it.
        error: DatasetError,
    },
    /// Anything else.
    Other(Error),
}

impl<E: Into<Error>> From<E> for PassError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Images of one shard on their way through the network.
struct Decoded {
    shard: usize,
    /// (224, 224, 1 or 3) each
    images: Vec<Vec<f32>>,
}

struct Computed {
    shard: usize,
    maps: EncodedMaps,
}

/// Each feature's maps, one per image of a batch.
type EncodedMaps = Vec<(Source, Vec<Encoded>)>;

/// A map is rounded to what is stored on the thread that computed it, while it is in that thread's cache.
struct Encoded(EncodedMap);

impl FeatureSink for Encoded {
    fn take<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        self.0.encode(rows);
    }
}

/// Room for the maps of `sources` of `images` images, in the memory of `maps`.
fn make_room(maps: &mut EncodedMaps, sources: &[Source], images: usize, dtype: Dtype) {
    if !maps.iter().map(|(source, _)| source).eq(sources) {
        *maps = sources.iter().map(|source| (*source, Vec::new())).collect();
    }
    for (source, maps) in maps {
        maps.resize_with(images, || Encoded(EncodedMap::new(*source, dtype)));
    }
}

/// Fills the missing shards in their order, and adds to `pass` what it did, however it ends.
pub(crate) fn run(
    context: &Context,
    extraction: &Extraction,
    backbone: &Backbone,
    bar: &ProgressBar,
    pass: &mut Pass,
) -> Result<(), PassError> {
    let (to_compute, decoded) = sync_channel(QUEUE_BATCHES);
    let (to_write, computed) = sync_channel(QUEUE_BATCHES);
    // Memory that has been written comes back.
    let (give_back, written) = channel::<EncodedMaps>();
    let dtype = context.study.extract.dtype;
    thread::scope(|scope| {
        let reader = scope.spawn(move || decode(context, extraction, &to_compute));
        let writer = scope.spawn(move || write(extraction, dtype, &context.memo, &computed, &give_back));
        let mut failed = None;
        for Decoded { shard, images: batch } in decoded {
            let images = batch.len();
            let mut maps = written.try_recv().unwrap_or_default();
            make_room(&mut maps, &extraction.missing[&shard], images, dtype);
            if let Err(error) = backbone.run(&batch, &mut maps) {
                failed = Some(Error::new(error));
                break;
            }
            if to_write.send(Computed { shard, maps }).is_err() {
                // The writer has stopped, and says why when it is joined.
                break;
            }
            pass.images += images;
            bar.inc(images as u64);
        }
        drop(to_write);
        pass.shards += writer.join().map_err(|_| anyhow!("the writing thread panicked"))??;
        if let Some(error) = failed {
            return Err(PassError::Other(error));
        }
        reader.join().map_err(|_| anyhow!("the decoding thread panicked"))??;
        Ok(())
    })
}

fn decode(context: &Context, extraction: &Extraction, to_compute: &SyncSender<Decoded>) -> Result<(), PassError> {
    let dataset = &context.dataset;
    let by_id: HashMap<&str, usize> =
        dataset.images.iter().enumerate().map(|(index, image)| (image.id.as_str(), index)).collect();
    for shard in extraction.missing.keys() {
        let planned: Vec<PlannedImage<'_>> = extraction.plan.shards()[*shard].images().collect();
        for batch in planned.chunks(context.study.extract.batch) {
            let images: Result<Vec<Vec<f32>>, PassError> = batch
                .par_iter()
                .map(|image| {
                    let index = by_id[image.id];
                    Ok(extraction.cache.view.of(resized(dataset, index)?))
                })
                .collect();
            if to_compute.send(Decoded { shard: *shard, images: images? }).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

pub(crate) fn resized(dataset: &Dataset, index: usize) -> Result<Vec<f32>, PassError> {
    let pixels = dataset.decode(index).map_err(|error| PassError::Image { index, error })?;
    Ok(preprocess::resize(&pixels.data, pixels.width, pixels.height, pixels.channels)?)
}

fn write(
    extraction: &Extraction,
    dtype: Dtype,
    memo: &HashMemo,
    computed: &Receiver<Computed>,
    give_back: &Sender<EncodedMaps>,
) -> Result<usize> {
    let Extraction { cache, plan, missing, .. } = extraction;
    let mut written = 0;
    let mut writers: Vec<(Source, ShardWriter)> = Vec::new();
    for Computed { shard, maps } in computed {
        if writers.is_empty() {
            for source in &missing[&shard] {
                writers.push((*source, ShardWriter::create(&cache.folder, plan, shard, *source, dtype)?));
            }
        }
        for ((_, writer), (_, maps)) in writers.iter_mut().zip(&maps) {
            for Encoded(map) in maps {
                writer.push(map)?;
            }
        }
        // Nobody waits for it after the last batch.
        let _ = give_back.send(maps);
        if writers.iter().all(|(_, writer)| writer.is_complete()) {
            for (_, writer) in writers.drain(..) {
                writer.finish(memo)?;
                written += 1;
            }
        }
    }
    Ok(written)
}

/// Grey values in [0, 1]: as they are, or the luma of colours.
pub(crate) fn grey(pixels: &Pixels) -> Vec<f32> {
    let values: Vec<f32> = pixels.data.iter().map(|value| f32::from(*value) / 255.0).collect();
    grey_of(&values, pixels.channels)
}

/// Values of 1 or 3 channels as grey.
pub(crate) fn grey_of(values: &[f32], channels: usize) -> Vec<f32> {
    if channels == 3 { values.chunks_exact(3).map(luma).collect() } else { values.to_vec() }
}

/// Luma of a colour (Rec. 601, <https://www.itu.int/rec/R-REC-BT.601>).
fn luma(rgb: &[f32]) -> f32 {
    0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
}
