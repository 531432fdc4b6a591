//! Batches of tokens, made ahead of the step that needs them.

use std::{
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel, sync_channel},
    },
    thread::Scope,
};

use anyhow::{Context as _, Result};
use backbone::{View, preprocess};
use half::f16;
use kernels::Isa;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use shards::{Dtype, FeatureReader, Place, ShardError};
use sources::{Combination, Source};
use vit::{Batch, Batches, BoxError, Courier, Input, ModelConfig, Predictors, Tokens};

use crate::{Context, examples::Example, feature_pass, features::Features, tokens::TokenCutter};

/// Batches made ahead.
const QUEUE_BATCHES: usize = 3;

/// Batches in memory: besides those that are ready, one that is made and one that is learned from.
pub(crate) const BATCHES_IN_MEMORY: usize = QUEUE_BATCHES + 2;

/// Images per batch where nothing is learned.
pub(crate) const INFERENCE_BATCH: usize = 64;

/// First stream of random numbers for the order of images; 0 and 1 are the model's.
const ORDER_STREAM: u64 = 1 << 32;

/// Stream of random numbers for classes drawn from votes.
const CLASS_STREAM: u64 = 2;

/// Stream of random numbers for the views in which training shows images.
const VIEW_STREAM: u64 = 3;

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

/// Makes the tokens of some sources.
#[derive(Debug)]
pub(crate) struct TokenReader<'a> {
    context: &'a Context,
    features: &'a Features,
    isa: Isa,
    sources: Vec<SourceReader>,
}

/// Reads one source.
#[derive(Debug)]
struct SourceReader {
    source: Source,
    cutter: TokenCutter,
    /// One for each view; none for the images themselves.
    maps: Vec<FeatureReader>,
}

/// An image in one view.
type Seen<'a> = (&'a Example, View);

/// The mean of the logits that a model gives the views of some images.
#[derive(Clone, Debug, Default)]
pub(crate) struct MeanLogits {
    sums: Vec<Vec<f32>>,
    views: usize,
}

impl MeanLogits {
    /// Adds the logits (K) of each image in another view.
    pub(crate) fn add(&mut self, logits: Vec<Vec<f32>>) {
        self.views += 1;
        if self.views == 1 {
            self.sums = logits;
            return;
        }
        for (sum, logits) in self.sums.iter_mut().flatten().zip(logits.iter().flatten()) {
            *sum += logits;
        }
    }

    /// The mean; a single view's logits stay what they are.
    pub(crate) fn finish(mut self) -> Vec<Vec<f32>> {
        if self.views > 1 {
            self.sums.iter_mut().flatten().for_each(|sum| *sum /= self.views as f32);
        }
        self.sums
    }
}

impl<'a> TokenReader<'a> {
    pub(crate) fn new(
        context: &'a Context,
        features: &'a Features,
        sources: impl IntoIterator<Item = Source>,
        model: &ModelConfig,
    ) -> Result<Self> {
        let sources = sources
            .into_iter()
            .map(|source| {
                // The mirror images are standardised like the others.
                let cutter = TokenCutter::new(source, model, features.moments(source)?);
                let maps = match source {
                    Source::Orig => Vec::new(),
                    map => {
                        let open = |of: &Features| Ok(FeatureReader::open(&of.cache, &of.manifest, map)?);
                        features.views().map(open).collect::<Result<_>>()?
                    }
                };
                Ok(SourceReader { source, cutter, maps })
            })
            .collect::<Result<_>>()?;
        Ok(Self { context, features, isa: Isa::choose()?, sources })
    }

    /// The tokens of a single image.
    pub(crate) fn read_one(&self, example: &Example) -> Result<Batch> {
        let mut batch = Batch::default();
        self.read(&[(example, View::Plain)], &mut batch)?;
        Ok(batch)
    }

    /// Reads the tokens of `seen` into `batch`, whose memory is used again.
    fn read(&self, seen: &[Seen<'_>], batch: &mut Batch) -> Result<()> {
        batch.images = seen.len();
        batch.targets.clear();
        batch.sent.expire();
        for SourceReader { source, cutter, maps } in &self.sources {
            let tokens = batch.tokens.entry(*source).or_insert_with(|| Tokens::Ready(Vec::new()));
            let is_stored = cutter.keeps_channels() && maps.first().is_some_and(|reader| reader.dtype() == Dtype::F16);
            if is_stored != matches!(tokens, Tokens::Stored(..)) {
                let standardise = Arc::clone(cutter.standardise());
                *tokens = if is_stored { Tokens::Stored(Vec::new(), standardise) } else { Tokens::Ready(Vec::new()) };
            }
            match tokens {
                Tokens::Stored(values, _) => {
                    let per_image = source.values_per_image();
                    // What is there already is overwritten: filling it with zeros first would cost as much as reading.
                    values.resize(seen.len() * per_image, f16::ZERO);
                    self.fill(maps, seen, values.par_chunks_exact_mut(per_image), |wait, reader, place, map, _| {
                        match wait {
                            Wait::Never => reader.read_f16_cached(place, map),
                            Wait::ForDisk => reader.read_f16(place, map).map(|()| true),
                        }
                    })?;
                }
                Tokens::Ready(values) if maps.is_empty() => {
                    values.resize(seen.len() * cutter.values_per_image(), 0.0);
                    // The pool decodes: image files are small, and decoding takes far longer than reading.
                    let tokens = values.par_chunks_exact_mut(cutter.values_per_image()).zip(seen);
                    tokens.try_for_each(|(tokens, (example, view))| {
                        cutter.cut(self.isa, &self.original(example.index, *view)?, tokens);
                        Ok::<_, anyhow::Error>(())
                    })?;
                }
                Tokens::Ready(values) => {
                    values.resize(seen.len() * cutter.values_per_image(), 0.0);
                    let tokens = values.par_chunks_exact_mut(cutter.values_per_image());
                    self.fill(maps, seen, tokens, |wait, reader, place, tokens, MapBuffer { bytes, floats }| {
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
            }
        }
        batch.targets.extend(seen.iter().flat_map(|(example, _)| example.target.probabilities()));
        Ok(())
    }

    /// Has `read` fill the `parts` of a batch, one for each image of `seen`, from the `maps` of its view. Maps that lie in
    /// memory are copied by the pool's threads, between their other work: a thread beside them would take the time of one, and
    /// all the others would wait for that one. Maps that lie on the disk are waited for here. Nobody in the pool may wait
    /// for this function: it waits for the pool.
    fn fill<'b, T: Send + 'b>(
        &self,
        maps: &[FeatureReader],
        seen: &[Seen<'_>],
        parts: impl IndexedParallelIterator<Item = &'b mut [T]>,
        read: impl Fn(Wait, &FeatureReader, Place, &mut [T], &mut MapBuffer) -> Result<bool, ShardError> + Sync,
    ) -> Result<()> {
        let cached = parts.zip(seen).map_init(MapBuffer::default, |buffer, (part, (example, view))| {
            let (reader, place) = (&maps[*view as usize], self.place(example, *view));
            Ok((!read(Wait::Never, reader, place, part, buffer)?).then_some((reader, place, part)))
        });
        let on_disk: Vec<_> = cached.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        for (reader, place, _) in &on_disk {
            reader.fetch(*place)?;
        }
        let mut buffer = MapBuffer::default();
        for (reader, place, part) in on_disk {
            read(Wait::ForDisk, reader, place, part, &mut buffer)?;
        }
        Ok(())
    }

    /// Where the feature maps of `example` in `view` lie.
    fn place(&self, example: &Example, view: View) -> Place {
        self.features.of(view).place(example.index).expect("`Features::open` has found all examples")
    }

    /// The image itself in `view`, grey, (224, 224, 1) in [0, 1].
    fn original(&self, index: usize, view: View) -> Result<Vec<f32>> {
        let pixels = self.context.dataset.decode(index)?;
        let resized = preprocess::resize(&pixels.data, pixels.width, pixels.height, pixels.channels)?;
        Ok(view.of(feature_pass::grey_of(&resized, pixels.channels)))
    }

    /// Calls `consume` with every batch of `examples` in order, as they are, each made while the one before is consumed.
    pub(crate) fn for_each_batch(
        &self,
        examples: &[Example],
        mut consume: impl FnMut(&Batch) -> Result<()>,
    ) -> Result<()> {
        self.for_each_view(examples, &[View::Plain], |_, batch| consume(batch))
    }

    /// Calls `consume` with the number of each of `predictors`, and for every batch of `examples` in order the logits (K) of its
    /// images, averaged over the configured views.
    pub(crate) fn ask(
        &self,
        examples: &[Example],
        predictors: &mut Predictors<'_>,
        mut consume: impl FnMut(usize, Vec<Vec<f32>>, &Batch) -> Result<()>,
    ) -> Result<()> {
        let views = self.context.study.extract.views.each();
        let mut means: Vec<MeanLogits> = Vec::new();
        self.for_each_view(examples, views, |view, batch| {
            let answers = predictors.logits(batch)?;
            means.resize_with(answers.len(), MeanLogits::default);
            for (index, (logits, mean)) in answers.into_iter().zip(&mut means).enumerate() {
                mean.add(logits);
                if view + 1 == views.len() {
                    consume(index, std::mem::take(mean).finish(), batch)?;
                }
            }
            Ok(())
        })
    }

    /// Calls `consume` with every batch of `examples` in each of `views`, one view after the other, and the view's number. Batches say
    /// which images of those they are, as [`held_image`] numbers them.
    pub(crate) fn for_each_view(
        &self,
        examples: &[Example],
        views: &[View],
        mut consume: impl FnMut(usize, &Batch) -> Result<()>,
    ) -> Result<()> {
        std::thread::scope(|scope| {
            let chunks = (0..).step_by(INFERENCE_BATCH).zip(examples.chunks(INFERENCE_BATCH));
            let tasks = chunks.flat_map(|of| views.iter().map(move |view| (of, *view)));
            let mut batches =
                Ahead::start(scope, tasks, move |((first, chunk), view): ((usize, &[Example]), View), batch| {
                    let seen: Vec<Seen<'_>> = chunk.iter().map(|example| (example, view)).collect();
                    self.read(&seen, batch)?;
                    batch.held.clear();
                    batch.held.extend((first..first + chunk.len()).map(|number| held_image(number, view, examples)));
                    Ok(())
                });
            let mut index = 0;
            while let Some(batch) = batches.next()? {
                consume(index % views.len(), batch)?;
                index += 1;
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
    /// Brings them to a GPU.
    courier: Option<&'env Courier>,
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
    draws: Draws,
    /// The permutation of this epoch, kept until another one is needed.
    epoch: Option<(usize, Vec<usize>)>,
}

impl<'scope, 'env> TrainingBatches<'scope, 'env> {
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        reader: &'env TokenReader<'env>,
        examples: &'env [Example],
        draws: Draws,
        courier: Option<&'env Courier>,
    ) -> Self {
        let order = Order { examples, draws, epoch: None };
        Self { scope, reader, courier, order, running: None }
    }

    /// Names the images of a batch by its index.
    pub(crate) fn names(&self) -> impl Fn(usize) -> Vec<&'env str> + use<'env> {
        let (images, order) = (&self.reader.context.dataset.images, self.order.clone());
        move |index| {
            let mut order = order.clone();
            order.positions(index).map(|position| images[order.at(position).index].id.as_str()).collect()
        }
    }

    /// Starts reading ahead from batch `first` on.
    fn read_from(&self, first: usize) -> Ahead {
        let (reader, courier, mut order) = (self.reader, self.courier, self.order.clone());
        Ahead::start(self.scope, first.., move |index, batch| {
            order.read(index, reader, batch)?;
            Ok(courier.map_or(Ok(()), |courier| courier.send(batch))?)
        })
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
        let positions = self.positions(index);
        let has_flips = reader.features.flipped.is_some();
        let view = |position| if has_flips { draw_view(self.draws.seed, position) } else { View::Plain };
        let views: Vec<View> = positions.clone().map(view).collect();
        let seen: Vec<Seen<'_>> =
            positions.clone().map(|position| self.at(position)).zip(views.iter().copied()).collect();
        reader.read(&seen, batch)?;
        batch.held.clear();
        let held =
            positions.clone().zip(views).map(|(position, view)| held_image(self.number(position), view, self.examples));
        batch.held.extend(held);
        if self.draws.draws_classes {
            let classes = batch.targets.len() / seen.len();
            for (position, target) in positions.zip(batch.targets.chunks_exact_mut(classes)) {
                draw_class(self.draws.seed, position, target);
            }
        }
        batch.weights.clear();
        if let Some(weights) = &self.draws.class_weights {
            let classes = weights.len();
            let weight =
                |target: &[f32]| target.iter().zip(weights).map(|(target, weight)| target * weight).sum::<f32>();
            batch.weights.extend(batch.targets.chunks_exact(classes).map(weight));
        }
        Ok(())
    }

    /// Where batch `index` lies, counted over all epochs.
    const fn positions(&self, index: usize) -> Range<usize> {
        index * self.draws.batch..(index + 1) * self.draws.batch
    }

    /// The image at `position`, counted over all epochs.
    fn at(&mut self, position: usize) -> &'a Example {
        &self.examples[self.number(position)]
    }

    /// Its number among all images.
    fn number(&mut self, position: usize) -> usize {
        let (epoch, at) = (position / self.examples.len(), position % self.examples.len());
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let mut permutation: Vec<usize> = (0..self.examples.len()).collect();
            let mut random = ChaCha8Rng::seed_from_u64(self.draws.seed);
            random.set_stream(ORDER_STREAM + epoch as u64);
            permutation.shuffle(&mut random);
            self.epoch = Some((epoch, permutation));
        }
        let permutation = self.epoch.as_ref().map_or(&[][..], |(_, permutation)| permutation);
        permutation[at]
    }
}

/// The number of an image in a view among all that a GPU holds: one view of all `examples` after the other.
const fn held_image(number: usize, view: View, examples: &[Example]) -> u32 {
    (view as usize * examples.len() + number) as u32
}

/// The view in which training shows the image at `position`, counted over all epochs: either is as likely.
fn draw_view(seed: u64, position: usize) -> View {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(VIEW_STREAM);
    random.set_word_pos(position as u128);
    if random.next_u32() & 1 == 0 { View::Plain } else { View::Flip }
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
