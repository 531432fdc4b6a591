//! Which images take part in training and evaluation, with what label.

use std::sync::OnceLock;

use dataset::{LabelRule, Split, Target, target};
use rayon::prelude::*;
use stage::ContentHash;

use crate::{Context, copies};

/// A labelled image.
#[derive(Clone, Debug)]
pub(crate) struct Example {
    /// Its index in the data set.
    pub(crate) index: usize,
    /// What it shows.
    pub(crate) target: Target,
}

/// The labelled images of all splits.
#[derive(Debug)]
pub(crate) struct Examples {
    pub(crate) train: Vec<Example>,
    pub(crate) valid: Vec<Example>,
    pub(crate) test: Vec<Example>,
    digests: OnceLock<Digests>,
    compared: OnceLock<ContentHash>,
}

/// Hashes of each split's contents and targets, in order.
#[derive(Debug)]
pub(crate) struct Digests {
    pub(crate) train: ContentHash,
    pub(crate) valid: ContentHash,
    pub(crate) test: ContentHash,
}

impl Examples {
    /// Applies the label rule to the selected images.
    pub(crate) fn new(context: &Context) -> Self {
        let data = &context.study.data;
        let of = |split: Split| {
            let labelled = context.selected.par_iter().filter_map(|index| {
                let image = &context.dataset.images[*index];
                let target = (image.split == split)
                    .then(|| target(&image.annotation, data.labels, data.classes, split))
                    .flatten()?;
                Some(Example { index: *index, target })
            });
            labelled.collect()
        };
        let (train, valid, test) = (of(Split::Train), of(Split::Valid), of(Split::Test));
        Self { train, valid, test, digests: OnceLock::new(), compared: OnceLock::new() }
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Example> {
        self.train.iter().chain(&self.valid).chain(&self.test)
    }

    /// Identifies the images among which copies are looked for; taken by who first asks.
    pub(crate) fn compared(&self, context: &Context) -> ContentHash {
        *self.compared.get_or_init(|| copies::digest(context))
    }

    /// The splits' hashes; taken by who first asks.
    pub(crate) fn digests(&self, context: &Context) -> &Digests {
        let of = |split: &[Example]| digest(context, split);
        self.digests.get_or_init(|| Digests { train: of(&self.train), valid: of(&self.valid), test: of(&self.test) })
    }
}

/// How much an image of each class counts in the loss; none if all count alike.
pub(crate) fn class_weights(context: &Context, train: &[Example]) -> Option<Vec<f32>> {
    let mut counts = vec![0.0; context.study.data.classes.len()];
    for example in train {
        let probabilities = example.target.probabilities().iter();
        counts.iter_mut().zip(probabilities).for_each(|(count, probability)| *count += f64::from(*probability));
    }
    context.study.loss.weights.of(&counts)
}

fn digest(context: &Context, examples: &[Example]) -> ContentHash {
    ContentHash::of_parts(examples.iter().flat_map(|Example { index, target }| {
        let content: &[u8] = context.dataset.images[*index].hash.as_bytes();
        [content, bytemuck::cast_slice(target.probabilities())]
    }))
}

/// Whether training draws one class from an image's votes each time, instead of learning all at once.
pub(crate) fn draws_classes(rule: LabelRule) -> bool {
    rule == LabelRule::Probability
}
