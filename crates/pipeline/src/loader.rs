//! Batches of tokens, made ahead of the step that needs them.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel, sync_channel},
    },
    thread::Scope,
};

use anyhow::{Context as _, Result, anyhow, bail};
use backbone::preprocess;
use half::f16;
use kernels::Isa;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use shards::{Dtype, FeatureReader, Manifest, Moments, Place, ShardError};
use sources::{Combination, Source};
use stage::Lock;
use vit::{Batch, Batches, BoxError, Input, ModelConfig, Tokens};

use crate::{
    Context,
    examples::{Example, Examples},
    extraction::Extraction,
    feature_pass,
    tokens::TokenCutter,
};

/// Batches made ahead.
const QUEUE_BATCHES: usize = 3;

/// Images per batch where nothing is learned.
const INFERENCE_BATCH: usize = 64;

/// First stream of random numbers for the order of images; 0 and 1 are the model's.
const ORDER_STREAM: u64 = 1 << 32;

/// Stream of random numbers for classes drawn from votes.
const CLASS_STREAM: u64 = 2;

/// The extracted features of the current configuration, checked against the data set.
#[derive(Debug)]
pub(crate) struct Features {
    pub(crate) cache: PathBuf,
    pub(crate) manifest: Manifest,
    places: HashMap<String, Place>,
}

impl Features {
    /// Opens the feature cache and checks that it holds all `examples` as they are now.
    pub(crate) fn open(context: &Context, examples: &Examples) -> Result<Self> {
        let extraction = Extraction::plan(context)?;
        let manifest = Manifest::read(&extraction.cache.folder)?.ok_or_else(|| {
            anyhow!("no features at `{}` yet\n\nhint: run `just extract`", extraction.cache.folder.display())
        })?;
        let stored: HashMap<&str, (Place, stage::ContentHash)> = manifest
            .plan
            .shards()
            .iter()
            .enumerate()
            .flat_map(|(shard, images)| {
                let place = move |slot| Place { shard, slot };
                images.iter().enumerate().map(move |(slot, image)| (image.id.as_str(), (place(slot), image.hash)))
            })
            .collect();
        let (mut absent, mut changed) = (Vec::new(), Vec::new());
        for example in examples.iter() {
            let image = &context.dataset.images[example.index];
            match stored.get(image.id.as_str()) {
                None => absent.push(image.id.as_str()),
                Some((_, hash)) if *hash != image.hash => changed.push(image.id.as_str()),
                Some(_) => {}
            }
        }
        if let Some(first) = absent.first().or(changed.first()) {
            bail!(
                "the features at `{}` are stale: {} images are not in them, {} have changed (first `{first}`)\n\n\
                 hint: run `just extract`",
                extraction.cache.folder.display(),
                absent.len(),
                changed.len(),
            );
        }
        let places = stored.into_iter().map(|(id, (place, _))| (id.to_owned(), place)).collect();
        Ok(Self { cache: extraction.cache.folder, manifest, places })
    }

    /// Where the maps of the image `id` lie; none if they are not there.
    pub(crate) fn place(&self, id: &str) -> Option<Place> {
        self.places.get(id).copied()
    }

    /// Mean and standard deviation of `source` over the training images.
    pub(crate) fn moments(&self, source: Source) -> Result<&Moments> {
        match source {
            Source::Orig => Ok(&self.manifest.orig),
            map => Ok(&self.manifest.feature(&self.cache, map)?.moments),
        }
    }

    /// Checks the shards of `combination` against the manifest's hashes, remembered or computed. As long as the lock
    /// lives no extraction changes them: a shard written meanwhile would hold other images in the same places.
    #[must_use = "dropping the lock lets an extraction write"]
    pub(crate) fn verify(&self, context: &Context, combination: Combination) -> Result<Lock> {
        let lock = Lock::shared(&self.cache)?;
        if Manifest::read(&self.cache)?.as_ref() != Some(&self.manifest) {
            bail!("the features at `{}` have just changed\n\nhint: run the command again", self.cache.display());
        }
        for map in combination.feature_maps() {
            self.manifest.verify(&self.cache, map, |path| context.memo.hash_file(path))?;
        }
        context.memo.save()?;
        Ok(lock)
    }
}

/// What a read may wait for.
#[derive(Clone, Copy)]
enum Wait {
    /// Nothing: what does not lie in memory is not read.
    Never,
    /// The disk.
    ForDisk,
}

/// One image's map on its way to tokens.
#[derive(Default)]
struct MapBuffer {
    bytes: Vec<u8>,
    floats: Vec<f32>,
}

/// What a model of `combination` has to expect.
pub(crate) fn inputs(features: &Features, combination: Combination, model: &ModelConfig) -> Result<Vec<Input>> {
    let input = |source| {
        let token_width = TokenCutter::new(source, model, features.moments(source)?).token_width();
        Ok(Input { source, token_width })
    };
    combination.iter().map(input).collect()
}

/// Makes the tokens of one combination.
#[derive(Debug)]
pub(crate) struct TokenReader<'a> {
    context: &'a Context,
    features: &'a Features,
    isa: Isa,
    sources: Vec<(Source, TokenCutter, Option<FeatureReader>)>,
}

impl<'a> TokenReader<'a> {
    pub(crate) fn new(
        context: &'a Context,
        features: &'a Features,
        combination: Combination,
        model: &ModelConfig,
    ) -> Result<Self> {
        let sources = combination
            .iter()
            .map(|source| {
                let cutter = TokenCutter::new(source, model, features.moments(source)?);
                let reader = match source {
                    Source::Orig => None,
                    map => Some(FeatureReader::open(&features.cache, &features.manifest, map)?),
                };
                Ok((source, cutter, reader))
            })
            .collect::<Result<_>>()?;
        Ok(Self { context, features, isa: Isa::choose()?, sources })
    }

    /// Reads the tokens of `examples` into `batch`, whose memory is used again.
    fn read(&self, examples: &[&Example], batch: &mut Batch) -> Result<()> {
        batch.images = examples.len();
        batch.targets.clear();
        for (source, cutter, reader) in &self.sources {
            let tokens = batch.tokens.entry(*source).or_insert_with(|| Tokens::Ready(Vec::new()));
            let is_stored =
                cutter.keeps_channels() && reader.as_ref().is_some_and(|reader| reader.dtype() == Dtype::F16);
            if is_stored != matches!(tokens, Tokens::Stored(..)) {
                let standardise = Arc::clone(cutter.standardise());
                *tokens = if is_stored { Tokens::Stored(Vec::new(), standardise) } else { Tokens::Ready(Vec::new()) };
            }
            match (reader, &mut *tokens) {
                (Some(reader), Tokens::Stored(maps, _)) => {
                    let values = source.values_per_image();
                    // What is there already is overwritten: filling it with zeros first would cost as much as reading.
                    maps.resize(examples.len() * values, f16::ZERO);
                    self.fill(reader, examples, maps.par_chunks_exact_mut(values), |wait, place, map, _| match wait {
                        Wait::Never => reader.read_f16_cached(place, map),
                        Wait::ForDisk => reader.read_f16(place, map).map(|()| true),
                    })?;
                }
                (None, Tokens::Stored(..)) => bail!("the original image is not stored"),
                (Some(reader), Tokens::Ready(values)) => {
                    values.resize(examples.len() * cutter.values_per_image(), 0.0);
                    let tokens = values.par_chunks_exact_mut(cutter.values_per_image());
                    self.fill(reader, examples, tokens, |wait, place, tokens, MapBuffer { bytes, floats }| {
                        floats.resize(source.values_per_image(), 0.0);
                        let is_read = match wait {
                            Wait::Never => reader.read_cached(place, bytes, floats)?,
                            Wait::ForDisk => reader.read(place, bytes, floats).map(|()| true)?,
                        };
                        if is_read {
                            cutter.cut(self.isa, floats, tokens);
                        }
                        Ok(is_read)
                    })?;
                }
                (None, Tokens::Ready(values)) => {
                    values.resize(examples.len() * cutter.values_per_image(), 0.0);
                    // The pool decodes: image files are small, and decoding takes far longer than reading.
                    let tokens = values.par_chunks_exact_mut(cutter.values_per_image()).zip(examples);
                    tokens.try_for_each(|(tokens, example)| {
                        cutter.cut(self.isa, &self.original(example.index)?, tokens);
                        Ok::<_, anyhow::Error>(())
                    })?;
                }
            }
        }
        batch.targets.extend(examples.iter().flat_map(|example| example.target.probabilities()));
        Ok(())
    }

    /// Has `read` fill the `parts` of a batch, one for each of `examples`. Maps that lie in memory are copied by the pool's threads,
    /// between their other work: a thread beside them would take the time of one, and all the others would wait for that
    /// one. Maps that lie on the disk are waited for here. Nobody in the pool may wait for this function: it waits for
    /// the pool.
    fn fill<'b, T: Send + 'b>(
        &self,
        reader: &FeatureReader,
        examples: &[&Example],
        parts: impl IndexedParallelIterator<Item = &'b mut [T]>,
        read: impl Fn(Wait, Place, &mut [T], &mut MapBuffer) -> Result<bool, ShardError> + Sync,
    ) -> Result<()> {
        let cached = parts.zip(examples).map_init(MapBuffer::default, |buffer, (part, example)| {
            let place = self.place(example);
            Ok((!read(Wait::Never, place, part, buffer)?).then_some((place, part)))
        });
        let on_disk: Vec<_> = cached.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        for (place, _) in &on_disk {
            reader.fetch(*place)?;
        }
        let mut buffer = MapBuffer::default();
        for (place, part) in on_disk {
            read(Wait::ForDisk, place, part, &mut buffer)?;
        }
        Ok(())
    }

    /// Where the feature maps of `example` lie.
    fn place(&self, example: &Example) -> Place {
        self.features.places[self.context.dataset.images[example.index].id.as_str()]
    }

    /// The image itself, grey, (224, 224, 1) in [0, 1].
    fn original(&self, index: usize) -> Result<Vec<f32>> {
        let pixels = self.context.dataset.decode(index)?;
        let resized = preprocess::resize(&pixels.data, pixels.width, pixels.height, pixels.channels)?;
        Ok(feature_pass::grey_of(&resized, pixels.channels))
    }

    /// Calls `consume` with every batch of `examples` in order, each made while the one before is consumed.
    pub(crate) fn for_each_batch(
        &self,
        examples: &[Example],
        mut consume: impl FnMut(&Batch) -> Result<()>,
    ) -> Result<()> {
        std::thread::scope(|scope| {
            let tasks = examples.chunks(INFERENCE_BATCH).map(|chunk| chunk.iter().collect::<Vec<_>>());
            let mut batches = Ahead::start(scope, tasks, move |chunk, batch| self.read(&chunk, batch));
            while let Some(batch) = batches.next()? {
                consume(batch)?;
            }
            Ok(())
        })
    }
}

/// What a thread makes ahead of those who need it, in memory that goes back and forth.
struct Ahead {
    ready: Receiver<Result<Batch>>,
    used: Sender<Batch>,
    current: Option<Batch>,
}

impl Ahead {
    /// Starts a thread that has `make` fill a batch for every task. It ends when nobody listens, or with an error.
    fn start<'scope, T: 'scope>(
        scope: &'scope Scope<'scope, '_>,
        tasks: impl Iterator<Item = T> + Send + 'scope,
        mut make: impl FnMut(T, &mut Batch) -> Result<()> + Send + 'scope,
    ) -> Self {
        let (to_consumer, ready) = sync_channel(QUEUE_BATCHES);
        let (used, back) = channel::<Batch>();
        scope.spawn(move || {
            for task in tasks {
                let mut batch = back.try_recv().unwrap_or_default();
                let made = make(task, &mut batch).map(|()| batch);
                let failed = made.is_err();
                if to_consumer.send(made).is_err() || failed {
                    return;
                }
            }
        });
        Self { ready, used, current: None }
    }

    /// The next batch; none behind the last. The one before goes back to the thread.
    fn next(&mut self) -> Result<Option<&Batch>> {
        if let Some(batch) = self.current.take() {
            // The thread may have ended: there is no further batch then.
            let _ = self.used.send(batch);
        }
        self.current = self.ready.recv().ok().transpose()?;
        Ok(self.current.as_ref())
    }
}

/// The batches of a training run: in every epoch one permutation of all images, made from the seed, so that
/// batch `index` is the same whenever it is asked for.
pub(crate) struct TrainingBatches<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    reader: &'env TokenReader<'env>,
    order: Order<'env>,
    /// What is read ahead, and the index of the next batch.
    running: Option<(Ahead, usize)>,
}

/// How a run's batches are drawn.
#[derive(Clone, Debug)]
pub(crate) struct Draws {
    /// Images of a batch.
    pub(crate) batch: usize,
    pub(crate) seed: u64,
    /// Whether one class is drawn from an image's votes each time.
    pub(crate) draws_classes: bool,
    /// How much an image of each class counts; none if all count alike.
    pub(crate) class_weights: Option<Vec<f32>>,
}

/// Which images a batch holds.
#[derive(Clone, Debug)]
struct Order<'a> {
    examples: &'a [Example],
    batch: usize,
    seed: u64,
    draws_classes: bool,
    /// How much an image of each class counts; none if all count alike.
    class_weights: Option<Vec<f32>>,
    /// The permutation of this epoch, kept until another one is needed.
    epoch: Option<(usize, Vec<usize>)>,
}

impl<'scope, 'env> TrainingBatches<'scope, 'env> {
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        reader: &'env TokenReader<'env>,
        examples: &'env [Example],
        draws: Draws,
    ) -> Self {
        let Draws { batch, seed, draws_classes, class_weights } = draws;
        let order = Order { examples, batch, seed, draws_classes, class_weights, epoch: None };
        Self { scope, reader, order, running: None }
    }

    /// Starts reading ahead from batch `first` on.
    fn read_from(&self, first: usize) -> Ahead {
        let (reader, mut order) = (self.reader, self.order.clone());
        Ahead::start(self.scope, first.., move |index, batch| order.read(index, reader, batch))
    }
}

impl Batches for TrainingBatches<'_, '_> {
    fn batch(&mut self, index: usize) -> Result<&Batch, BoxError> {
        let ahead = match self.running.take() {
            Some((ahead, next)) if next == index => ahead,
            _ => self.read_from(index),
        };
        let (ahead, _) = self.running.insert((ahead, index + 1));
        Ok(ahead.next()?.context("the reading thread has stopped")?)
    }
}

impl<'a> Order<'a> {
    fn read(&mut self, index: usize, reader: &TokenReader, batch: &mut Batch) -> Result<()> {
        let positions = index * self.batch..(index + 1) * self.batch;
        let examples: Vec<&Example> = positions.clone().map(|position| self.at(position)).collect();
        reader.read(&examples, batch)?;
        if self.draws_classes {
            let classes = batch.targets.len() / examples.len();
            for (position, target) in positions.zip(batch.targets.chunks_exact_mut(classes)) {
                draw_class(self.seed, position, target);
            }
        }
        batch.weights.clear();
        if let Some(weights) = &self.class_weights {
            let classes = weights.len();
            let weight =
                |target: &[f32]| target.iter().zip(weights).map(|(target, weight)| target * weight).sum::<f32>();
            batch.weights.extend(batch.targets.chunks_exact(classes).map(weight));
        }
        Ok(())
    }

    /// The image at `position`, counted over all epochs.
    fn at(&mut self, position: usize) -> &'a Example {
        let (epoch, at) = (position / self.examples.len(), position % self.examples.len());
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let mut permutation: Vec<usize> = (0..self.examples.len()).collect();
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(ORDER_STREAM + epoch as u64);
            permutation.shuffle(&mut random);
            self.epoch = Some((epoch, permutation));
        }
        let permutation = self.epoch.as_ref().map_or(&[][..], |(_, permutation)| permutation);
        &self.examples[permutation[at]]
    }
}

/// Replaces probabilities by one class drawn from them (FERPlus's `probability` mode).
fn draw_class(seed: u64, position: usize, target: &mut [f32]) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(CLASS_STREAM);
    random.set_word_pos(2 * position as u128);
    // 24 bits are what an f32 holds.
    let mut left = (random.next_u32() >> 8) as f32 * (-24f32).exp2() * target.iter().sum::<f32>();
    let drawn = target.iter().position(|probability| {
        left -= probability;
        left < 0.0
    });
    let last = target.iter().rposition(|probability| *probability > 0.0);
    let drawn = drawn.or(last);
    target.iter_mut().enumerate().for_each(|(class, value)| *value = f32::from(u8::from(Some(class) == drawn)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_classes_follow_the_votes() {
        let mut counts = [0; 3];
        for position in 0..4000 {
            let mut target = [0.25, 0.0, 0.75];
            draw_class(7, position, &mut target);
            assert_eq!(target.iter().sum::<f32>(), 1.0);
            counts[target.iter().position(|value| *value == 1.0).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((900..1100).contains(&counts[0]), "{counts:?}");
    }
}
