//! The backbone pass over single images, which need not be part of any data set.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use backbone::{Backbone, View, preprocess};
use dataset::{DatasetError, IMAGE_ENDINGS, Pixels, has_image_ending};
use rayon::prelude::*;
use shards::{Dtype, ShardError};
use sources::Source;

use crate::{Context, feature_cache::FeatureCache, feature_pass, inspect::FeatureMap};

/// Images that are decoded at once where no pass needs any.
const IMAGES_AT_ONCE: usize = 32;

/// An image and what the backbone makes of it.
#[derive(Clone, Debug)]
pub struct SingleImage {
    /// Its file.
    pub path: PathBuf,
    /// Its pixels.
    pub pixels: Pixels,
    /// Grey, (224, 224) in [0, 1].
    pub original: Vec<f32>,
    /// The maps asked for, in canonical order, rounded as the feature cache rounds them.
    pub maps: Vec<FeatureMap>,
}

/// The image files that `names` mean: files, ids of the data set's image files, and the images in folders, sorted.
///
/// # Errors
/// If there is no such file, or no image in a folder.
pub fn image_files(context: &Context, names: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for name in names {
        let of_data_set = context.study.data.dir.join(name);
        let path = if name.exists() { name } else { &of_data_set };
        if path.is_file() {
            files.push(path.clone());
        } else if path.is_dir() {
            let before = files.len();
            let entries = fs_err::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            files.extend(entries.into_iter().filter(|path| has_image_ending(path)));
            if files.len() == before {
                bail!("no image in `{}`, expected files ending in {}", path.display(), IMAGE_ENDINGS.join(", "));
            }
            files[before..].sort();
        } else {
            bail!("no image `{}`, neither there nor in `{}`", name.display(), context.study.data.dir.display());
        }
    }
    Ok(files)
}

/// The configured backbone, and which of its maps are wanted.
#[derive(Debug)]
pub struct SinglePass<'a> {
    context: &'a Context,
    wanted: Vec<Source>,
    /// None where no map is wanted.
    backbone: Option<Backbone>,
}

impl<'a> SinglePass<'a> {
    /// For the maps `wanted`.
    ///
    /// # Errors
    /// If the weights cannot be had.
    pub fn new(context: &'a Context, wanted: &[Source]) -> Result<Self> {
        let wanted: Vec<Source> = Source::FEATURE_MAPS.into_iter().filter(|source| wanted.contains(source)).collect();
        let backbone = if wanted.is_empty() {
            None
        } else {
            let weights = context.weights()?;
            let cache = FeatureCache::find(&context.study, &context.paths, &weights, View::Plain)?;
            Some(cache.backbone_here(context, &weights)?)
        };
        Ok(Self { context, wanted, backbone })
    }

    /// Images of a batch of the pass.
    pub fn batch(&self) -> usize {
        self.backbone.as_ref().map_or(IMAGES_AT_ONCE, |backbone| feature_pass::batch(self.context, backbone))
    }

    /// Runs over the image files `paths` in one view.
    ///
    /// # Errors
    /// If an image cannot be read or decoded, or the backbone fails.
    pub fn run(&self, paths: &[PathBuf], view: View) -> Result<Vec<SingleImage>> {
        let dtype = self.context.study.extract.dtype;
        let mut images = Vec::with_capacity(paths.len());
        for paths in paths.chunks(self.batch()) {
            let read = paths.par_iter().map(|path| read(path, view)).collect::<Result<Vec<_>>>()?;
            let (resized, mut batch): (Vec<Vec<f32>>, Vec<SingleImage>) = read.into_iter().unzip();
            if let Some(backbone) = &self.backbone {
                for (source, values) in backbone.feature_maps(&resized, &self.wanted)?.maps {
                    for (image, values) in batch.iter_mut().zip(values.chunks_exact(source.values_per_image())) {
                        let stored = as_stored(values, dtype).map_err(|value| ShardError::NotFinite {
                            feature: source.to_string(),
                            image: image.path.display().to_string(),
                            value,
                            dtype: dtype.to_string(),
                        });
                        image.maps.push(FeatureMap { source, values: stored? });
                    }
                }
            }
            images.append(&mut batch);
        }
        Ok(images)
    }
}

/// The image file `path`, and as the backbone wants it.
fn read(path: &Path, view: View) -> Result<(Vec<f32>, SingleImage)> {
    let pixels = Pixels::read(path).map_err(|error| match error {
        // An image that is asked for by name is not to be left out.
        DatasetError::Bad(bad) => anyhow!("{bad}\n\nhint: name another image"),
        other => other.into(),
    })?;
    let resized = preprocess::resize(&pixels.data, pixels.width, pixels.height, pixels.channels)
        .with_context(|| format!("cannot resize `{}`", path.display()))?;
    let resized = view.of(resized);
    let original = feature_pass::grey_of(&resized, pixels.channels);
    Ok((resized, SingleImage { path: path.to_owned(), pixels, original, maps: Vec::new() }))
}

/// As they come back from a shard; else the first value that cannot be stored.
fn as_stored(values: &[f32], dtype: Dtype) -> Result<Vec<f32>, f32> {
    let (mut bytes, mut stored) = (Vec::with_capacity(values.len() * dtype.size_bytes()), vec![0.0; values.len()]);
    dtype.encode(values, &mut bytes)?;
    dtype.decode(&bytes, &mut stored);
    Ok(stored)
}
