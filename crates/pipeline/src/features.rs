//! The feature cache as training and evaluation read it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use backbone::View;
use dataset::ImageRecord;
use shards::{Manifest, Moments, Place, Plan};
use sources::{Combination, Source};
use stage::Lock;

use crate::{
    Context,
    examples::{Example, Examples},
    extraction::{Extraction, with_images},
    feature_cache::FeatureCache,
    inputs::Inputs,
};

/// The extracted features of the current configuration, checked against the data set.
#[derive(Debug)]
pub(crate) struct Features {
    pub(crate) cache: PathBuf,
    pub(crate) manifest: Manifest,
    /// Where the maps of the images lie, by their indices in the data set.
    places: Vec<Option<Place>>,
    /// Those of the mirror images, if they take part.
    pub(crate) flipped: Option<Box<Features>>,
}

impl Features {
    /// Opens the feature cache of each view and checks that it holds all `examples` as they are now.
    pub(crate) fn open(context: &Context, examples: &Examples) -> Result<Self> {
        // Meanwhile, what the runs' folders are named after.
        let (extractions, _) = rayon::join(|| Extraction::plan_all(context), || examples.digests(context));
        Self::of_extractions(context, examples, extractions?)
    }

    /// The same of what each view's extraction has found.
    pub(crate) fn of_extractions(context: &Context, examples: &Examples, extractions: Vec<Extraction>) -> Result<Self> {
        Inputs::warn_of_changes(context)?;
        let views = extractions.into_iter().map(|extraction| Self::of_extraction(context, examples, extraction));
        let mut views = views.collect::<Result<Vec<_>>>()?.into_iter();
        let plain = views.next().context("there is no view to read")?;
        Ok(Self { flipped: views.next().map(Box::new), ..plain })
    }

    fn of_extraction(context: &Context, examples: &Examples, extraction: Extraction) -> Result<Self> {
        let Extraction { cache: FeatureCache { folder, .. }, manifest, plan, plan_digest, .. } = extraction;
        let manifest = manifest.map_or_else(|| Manifest::read(&folder), |manifest| Ok(Some(manifest)))?;
        let manifest =
            manifest.ok_or_else(|| anyhow!("no features at `{}` yet\n\nhint: run `just extract`", folder.display()))?;
        let stored = if manifest.plan == plan_digest { Some((plan, plan_digest)) } else { Plan::read(&folder)? };
        let (plan, _) = stored.filter(|(_, digest)| *digest == manifest.plan).ok_or_else(|| {
            anyhow!(
                "the features at `{}` are not all there: an extraction of other images was interrupted\n\n\
                 hint: run `just extract`, which goes on",
                folder.display()
            )
        })?;
        let places = with_images(&context.dataset, |all| plan.places(all));
        let images = &context.dataset.images;
        let (mut absent, mut changed) = (Vec::new(), Vec::new());
        for Example { index, .. } in examples.iter() {
            let ImageRecord { id, hash, .. } = &images[*index];
            match places[*index] {
                None => absent.push(id.as_str()),
                Some(place) if plan.image(place).hash != *hash => changed.push(id.as_str()),
                Some(_) => {}
            }
        }
        if let Some(first) = absent.first().or(changed.first()) {
            bail!(
                "the features at `{}` are stale: {} images are not in them, {} have changed (first `{first}`)\n\n\
                 hint: run `just extract`",
                folder.display(),
                absent.len(),
                changed.len(),
            );
        }
        Ok(Self { cache: folder, manifest, places, flipped: None })
    }

    /// Whether the feature `map` is there in every view.
    pub(crate) fn has(&self, map: Source) -> bool {
        self.views().all(|features| features.manifest.features.contains_key(&map))
    }

    /// Those of each view.
    pub(crate) fn views(&self) -> impl Iterator<Item = &Self> {
        [self].into_iter().chain(self.flipped.as_deref())
    }

    /// Those of `view`.
    ///
    /// # Panics
    /// If the view takes no part.
    pub(crate) fn of(&self, view: View) -> &Self {
        match view {
            View::Plain => self,
            View::Flip => self.flipped.as_deref().expect("only configured views are asked for"),
        }
    }

    /// Where the maps of the image at `index` lie; none if they are not there.
    pub(crate) fn place(&self, index: usize) -> Option<Place> {
        self.places.get(index).copied().flatten()
    }

    /// Mean and standard deviation of `source` over the training images.
    pub(crate) fn moments(&self, source: Source) -> Result<&Moments> {
        match source {
            Source::Orig => Ok(&self.manifest.orig),
            map => Ok(&self.manifest.feature(&self.cache, map)?.moments),
        }
    }

    /// Checks the shards of `combination` against the manifests' hashes, remembered or computed. As long as the locks
    /// live no extraction changes them: a shard written meanwhile would hold other images in the same places.
    #[must_use = "dropping the locks lets an extraction write"]
    pub(crate) fn verify(&self, context: &Context, combination: Combination) -> Result<Vec<Lock>> {
        let mut locks = Vec::new();
        for Self { cache, manifest, .. } in self.views() {
            locks.push(Lock::shared(cache)?);
            if Manifest::read(cache)?.as_ref() != Some(manifest) {
                bail!("the features at `{}` have just changed\n\nhint: run the command again", cache.display());
            }
            for map in combination.feature_maps() {
                manifest.verify(cache, map, |path| context.memo.hash_file(path))?;
            }
        }
        context.save_memo();
        Ok(locks)
    }
}
