//! Decode, compute and write, each in its own place and at the same time, joined by bounded queues: memory
//! stays the same however many images there are.

use std::{
    collections::HashMap,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
};

use anyhow::{Error, Result, anyhow};
use backbone::{Backbone, FeatureBatch, preprocess};
use dataset::{Dataset, DatasetError, Pixels};
use indicatif::ProgressBar;
use rayon::prelude::*;
use shards::{Dtype, ShardWriter};
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
    features: FeatureBatch,
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
    let (give_back, written) = channel::<FeatureBatch>();
    thread::scope(|scope| {
        let reader = scope.spawn(move || decode(context, extraction, &to_compute));
        let writer = scope.spawn(move || {
            let dtype = context.study.extract.dtype;
            write(extraction, dtype, &context.memo, &computed, &give_back)
        });
        let mut failed = None;
        for Decoded { shard, images: batch } in decoded {
            let count = batch.len();
            let mut features = written.try_recv().unwrap_or_default();
            if let Err(error) = backbone.feature_maps_into(&batch, &extraction.missing[&shard], &mut features) {
                failed = Some(Error::new(error));
                break;
            }
            if to_write.send(Computed { shard, features }).is_err() {
                // The writer has stopped, and says why when it is joined.
                break;
            }
            pass.images += count;
            bar.inc(count as u64);
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
        for batch in extraction.plan.shards()[*shard].chunks(context.study.extract.batch) {
            let images: Result<Vec<Vec<f32>>, PassError> = batch
                .par_iter()
                .map(|image| {
                    let index = by_id[image.id.as_str()];
                    resized(dataset, index)
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
    give_back: &Sender<FeatureBatch>,
) -> Result<usize> {
    let Extraction { cache, plan, missing, .. } = extraction;
    let mut written = 0;
    let mut writers: Vec<(Source, ShardWriter)> = Vec::new();
    for Computed { shard, features } in computed {
        if writers.is_empty() {
            for source in &missing[&shard] {
                writers.push((*source, ShardWriter::create(&cache.folder, plan, shard, *source, dtype)?));
            }
        }
        for ((source, writer), (_, values)) in writers.iter_mut().zip(&features.maps) {
            for image in values.chunks_exact(source.values_per_image()) {
                writer.push(image)?;
            }
        }
        // Nobody waits for it after the last batch.
        let _ = give_back.send(features);
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
    if pixels.channels == 3 { values.chunks_exact(3).map(luma).collect() } else { values }
}

/// Luma of a colour (Rec. 601, <https://www.itu.int/rec/R-REC-BT.601>).
pub(crate) fn luma(rgb: &[f32]) -> f32 {
    0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
}
