//! A look at single images: their pixels, their cached feature maps, and where a model looks.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use candle_core::Device;
use shards::FeatureReader;
use sources::{Combination, Source};
use stage::Lock;
use vit::{Batch, MODEL_FILE, Model};

use crate::{Context, examples::Examples, features::Features, loader::TokenReader};

/// One image's output of one stage of the backbone.
#[derive(Clone, Debug)]
pub struct FeatureMap {
    /// Which one.
    pub source: Source,
    /// (side, side, channels).
    pub values: Vec<f32>,
}

/// Looks at images of the data set, in the feature cache.
#[derive(Debug)]
pub struct Inspector<'a> {
    context: &'a Context,
    features: Features,
    examples: Examples,
    readers: BTreeMap<Source, FeatureReader>,
    /// As long as it lives no extraction changes the shards.
    _locks: Option<Vec<Lock>>,
}

impl<'a> Inspector<'a> {
    /// Opens the feature cache, and checks that its shards are what was written.
    pub fn open(context: &'a Context) -> Result<Self> {
        let examples = Examples::new(context);
        let features = Features::open(context, &examples)?;
        let maps: Vec<Source> = features.manifest.features.keys().copied().filter(|map| features.has(*map)).collect();
        let locks = Combination::new(maps.iter().copied()).map(|maps| features.verify(context, maps)).transpose()?;
        let reader =
            |source: &Source| Ok((*source, FeatureReader::open(&features.cache, &features.manifest, *source)?));
        let readers = maps.iter().map(reader).collect::<Result<_>>()?;
        Ok(Self { context, features, examples, readers, _locks: locks })
    }

    /// The feature maps that are cached.
    pub fn cached(&self) -> impl Iterator<Item = Source> {
        self.readers.keys().copied()
    }

    /// The map of the image at `index` of the data set.
    pub fn map(&self, source: Source, index: usize) -> Result<FeatureMap> {
        let missing = || format!("{source} of `{}` is not in the feature cache", self.context.dataset.images[index].id);
        let (reader, place) = self.readers.get(&source).zip(self.features.place(index)).with_context(missing)?;
        let mut values = vec![0.0; source.values_per_image()];
        reader.read(place, &mut Vec::new(), &mut values)?;
        Ok(FeatureMap { source, values })
    }

    /// Where the run in `folder` looks in each of the images at `indices`: the shares (grid²) of the places of the token grid,
    /// by attention roll-out ([`Model::attention_rollout`]).
    pub fn attention(&self, folder: &Path, combination: Combination, indices: &[usize]) -> Result<Vec<Vec<f32>>> {
        let model = Model::load(&folder.join(MODEL_FILE), &Device::Cpu)?;
        let reader = TokenReader::new(self.context, &self.features, combination.iter(), &model.about().model)?;
        let wanted = indices.iter().map(|index| {
            let found = self.examples.iter().find(|example| example.index == *index).cloned();
            found.with_context(|| format!("image {index} has no label"))
        });
        let examples = wanted.collect::<Result<Vec<_>>>()?;
        let mut shares = Vec::with_capacity(indices.len());
        reader.for_each_batch(&examples, |batch: &Batch| {
            shares.extend(model.attention_rollout(batch)?);
            Ok(())
        })?;
        Ok(shares)
    }
}
