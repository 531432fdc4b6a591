//! Decode, compute and write, each in its own place and at the same time, joined by bounded queues: memory
//! stays the same however many images there are.

use std::{
    collections::HashMap,
    sync::{
        atomic::AtomicUsize,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{self, Scope, ScopedJoinHandle},
    time::Instant,
};

use anyhow::{Error, Result, anyhow};
use backbone::{Backbone, FeatureSink, preprocess};
use dataset::{Dataset, DatasetError, Pixels};
use half::f16;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::Serialize;
use shards::{Dtype, EncodedMap, PlannedImage, ShardWriter};
use sources::Source;
use stage::HashMemo;

use crate::{
    Context,
    extraction::Extraction,
    passes::{Passes, Passing},
};

/// Batches that wait for the network. One is worked on at either end besides.
const QUEUE_BATCHES: usize = 2;

/// Threads that write each source, every other shard one of them: while one hashes, or waits for the disk to say that a shard is
/// there, the other writes. FM1 has more than half of all bytes: alone, its thread takes longer than a fast disk does for all.
const WRITERS_OF_A_SOURCE: usize = 2;

/// Batches that wait for each of them. One is written besides.
const BATCHES_TO_WRITE: usize = 1;

/// What has been done.
#[derive(Default)]
pub(crate) struct Pass {
    pub(crate) images: usize,
    pub(crate) shards: usize,
    pub(crate) waited: Waited,
}

/// How long a pass stood still, in seconds, for the step that it waited for: the slowest has nearly all of it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Waited {
    /// Images that were read, decoded and resized.
    pub images_s: f64,
    /// The network.
    pub network_s: f64,
    /// Shards that were hashed and written.
    pub disk_s: f64,
}

impl Waited {
    /// This and more.
    pub(crate) fn and(self, more: Self) -> Self {
        Self {
            images_s: self.images_s + more.images_s,
            network_s: self.network_s + more.network_s,
            disk_s: self.disk_s + more.disk_s,
        }
    }
}

/// Does `work` and adds what it took to `seconds`.
fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    *seconds += begun.elapsed().as_secs_f64();
    done
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

/// Maps of one source on their way to its shard, one for each image of a batch.
struct Computed {
    shard: usize,
    maps: Vec<Encoded>,
}

/// A map is rounded to what is stored on the thread that computed it, while it is in that thread's cache.
struct Encoded(EncodedMap);

impl FeatureSink for Encoded {
    fn take<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        self.0.encode(rows);
    }

    fn keeps_halves(&self) -> bool {
        self.0.dtype() == Dtype::F16
    }

    fn take_halves<'a>(&mut self, rows: impl Iterator<Item = &'a [f16]>) {
        self.0.encode_halves(rows);
    }
}

/// The threads that write: a single one hashes and writes less than a fast disk takes.
struct Writers<'scope> {
    all: Vec<Writer<'scope>>,
    /// Memory that has been written comes back.
    written: Receiver<(Source, Vec<Encoded>)>,
    spare: Vec<(Source, Vec<Encoded>)>,
    turns: Turns,
}

/// Whose turn it is among the threads of a source: that of the shard before until the next shard begins.
#[derive(Default)]
struct Turns {
    /// The shard whose maps came last, and whose turn that was.
    last: Option<(usize, usize)>,
}

impl Turns {
    /// Who writes the maps of `shard` that come now.
    const fn of(&mut self, shard: usize) -> usize {
        let turn = match self.last {
            Some((last, turn)) if last == shard => turn,
            Some((_, turn)) => (turn + 1) % WRITERS_OF_A_SOURCE,
            None => 0,
        };
        self.last = Some((shard, turn));
        turn
    }
}

/// A thread that writes shards of one source when it is its turn.
struct Writer<'scope> {
    source: Source,
    turn: usize,
    to_write: SyncSender<Computed>,
    thread: ScopedJoinHandle<'scope, Result<usize>>,
}

impl<'scope> Writers<'scope> {
    fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        extraction: &'env Extraction,
        dtype: Dtype,
        memo: &'env HashMemo,
    ) -> Result<Self> {
        let (give_back, written) = channel();
        let start = |(source, turn)| {
            let (to_write, computed) = sync_channel(BATCHES_TO_WRITE);
            let give_back = give_back.clone();
            let write = move || write(extraction, source, dtype, memo, &computed, &give_back);
            Ok(Writer { source, turn, to_write, thread: thread::Builder::new().spawn_scoped(scope, write)? })
        };
        let sources = extraction.features.iter().copied();
        let turns = sources.flat_map(|source| (0..WRITERS_OF_A_SOURCE).map(move |turn| (source, turn)));
        Ok(Self { all: turns.map(start).collect::<Result<_>>()?, written, spare: Vec::new(), turns: Turns::default() })
    }

    /// Room for the maps that `images` images have of each of `sources`.
    fn room(&mut self, sources: &[Source], images: usize, dtype: Dtype) -> Vec<(Source, Vec<Encoded>)> {
        self.spare.extend(self.written.try_iter());
        let room = |source: &Source| {
            let spare = self.spare.iter().position(|(of, _)| of == source);
            let mut maps = spare.map_or_else(Vec::new, |at| self.spare.swap_remove(at).1);
            maps.resize_with(images, || Encoded(EncodedMap::new(*source, dtype)));
            (*source, maps)
        };
        sources.iter().map(room).collect()
    }

    /// Hands the maps of a batch over; false if a thread has stopped, also one whose turn it is not.
    fn send(&mut self, shard: usize, maps: Vec<(Source, Vec<Encoded>)>) -> bool {
        if self.all.iter().any(|writer| writer.thread.is_finished()) {
            return false;
        }
        let turn = self.turns.of(shard);
        maps.into_iter().all(|(source, maps)| {
            let writer = self.all.iter().find(|writer| writer.source == source && writer.turn == turn);
            writer.is_some_and(|writer| writer.to_write.send(Computed { shard, maps }).is_ok())
        })
    }

    /// Waits until all is written, and adds the finished shards to `pass`, also where others failed.
    fn finish(self, pass: &mut Pass) -> Result<()> {
        let (queues, threads): (Vec<_>, Vec<_>) =
            self.all.into_iter().map(|writer| (writer.to_write, writer.thread)).unzip();
        drop(queues);
        let mut all = Ok(());
        for thread in threads {
            match thread.join().map_err(|_| anyhow!("a writing thread panicked")).flatten() {
                Ok(shards) => pass.shards += shards,
                Err(error) => all = all.and(Err(error)),
            }
        }
        all
    }
}

/// Computes the missing shards in their order, and adds to `pass` what it did, however it ends. Of two in a row, the later may be
/// there first.
pub(crate) fn run(
    context: &Context,
    extraction: &Extraction,
    backbone: &Backbone,
    bar: &ProgressBar,
    pass: &mut Pass,
) -> Result<(), PassError> {
    let (to_compute, decoded) = sync_channel(QUEUE_BATCHES);
    let dtype = context.study.extract.dtype;
    let images_at_once = AtomicUsize::new(usize::MAX);
    thread::scope(|scope| {
        let mut writers = Writers::start(scope, extraction, dtype, &context.memo)?;
        let batch = batch(context, backbone);
        let decode = move || decode(context, extraction, batch, &to_compute);
        let reader = thread::Builder::new().spawn_scoped(scope, decode)?;
        let mut passes = Passes::start(scope, backbone, backbone.passes_at_once(), &images_at_once)?;
        let mut decoded = decoded.into_iter();
        let mut pass_all = || {
            loop {
                let next = timed(&mut pass.waited.images_s, || decoded.next());
                if next.is_none() || passes.are_full() {
                    match timed(&mut pass.waited.network_s, || passes.take())? {
                        Some(Passing { of: shard, images, maps }) => {
                            if !timed(&mut pass.waited.disk_s, || writers.send(shard, maps)) {
                                // It says why when it is joined.
                                return Ok(());
                            }
                            pass.images += images.len();
                            bar.inc(images.len() as u64);
                        }
                        None => return Ok(()),
                    }
                }
                if let Some(Decoded { shard, images }) = next {
                    let maps = writers.room(&extraction.missing[&shard], images.len(), dtype);
                    passes.send(Passing { of: shard, images, maps })?;
                }
            }
        };
        let passed = pass_all();
        // Whoever waits for them ends.
        drop((passes, decoded));
        let mut waited_s = 0.0;
        let finished = timed(&mut waited_s, || writers.finish(pass));
        pass.waited.disk_s += waited_s;
        finished?;
        passed.map_err(PassError::Other)?;
        reader.join().map_err(|_| anyhow!("the decoding thread panicked"))??;
        Ok(())
    })
}

/// Images of a batch of the pass.
pub(crate) fn batch(context: &Context, backbone: &Backbone) -> usize {
    match context.study.extract.batch {
        0 => backbone.batch(),
        batch => batch,
    }
}

fn decode(
    context: &Context,
    extraction: &Extraction,
    batch: usize,
    to_compute: &SyncSender<Decoded>,
) -> Result<(), PassError> {
    let dataset = &context.dataset;
    let by_id: HashMap<&str, usize> =
        dataset.images.iter().enumerate().map(|(index, image)| (image.id.as_str(), index)).collect();
    for shard in extraction.missing.keys() {
        let planned: Vec<PlannedImage<'_>> = extraction.plan.shards()[*shard].images().collect();
        for batch in planned.chunks(batch) {
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

/// Writes shards of one source, and gives how many.
fn write(
    extraction: &Extraction,
    source: Source,
    dtype: Dtype,
    memo: &HashMemo,
    computed: &Receiver<Computed>,
    give_back: &Sender<(Source, Vec<Encoded>)>,
) -> Result<usize> {
    let Extraction { cache, plan, .. } = extraction;
    let mut written = 0;
    let mut current: Option<ShardWriter<'_>> = None;
    for Computed { shard, maps } in computed {
        let mut writer = match current.take() {
            Some(writer) => writer,
            None => ShardWriter::create(&cache.folder, plan, shard, source, dtype)?,
        };
        for Encoded(map) in &maps {
            writer.push(map)?;
        }
        // Nobody waits for it after the last batch.
        let _ = give_back.send((source, maps));
        if writer.is_complete() {
            writer.finish(memo)?;
            written += 1;
        } else {
            current = Some(writer);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_has_one_writer_and_the_next_another() {
        let mut turns = Turns::default();
        // Shards that are there already are left out.
        let found = [3, 3, 3, 4, 7, 7, 8].map(|shard| turns.of(shard));
        assert_eq!(found, [0, 0, 0, 1, 0, 0, 1]);
    }
}
