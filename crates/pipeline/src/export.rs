//! Features for other programs.

use std::{
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use backbone::View;
use ndarray::Array4;
use ndarray_npy::write_zeroed_npy;
use shards::{FeatureReader, Manifest, Place};
use sources::Source;
use stage::{AtomicFile, Lock, write_atomically};

use crate::{
    Context,
    extraction::{Extraction, with_images},
};

/// Writes the configured features into `folder`: `fm2.npy` is (images, channels, height, width) in f32, as
/// PyTorch would have it; `ids.txt` names the images, one per line in the same order. Only the selected images
/// are written (`extract.limit`), as they are, whatever the views.
///
/// # Errors
/// If the features are not those of all these images, or not what was extracted, or cannot be written.
pub fn write_npy(context: &Context, folder: &Path) -> Result<()> {
    let extraction = Extraction::plan(context, View::Plain)?;
    let cache = &extraction.cache.folder;
    // Nobody writes there until all is read.
    let _lock = Lock::shared(cache)?;
    let manifest = Manifest::read(cache)?.filter(|manifest| manifest.plan == extraction.plan_digest);
    let manifest = manifest.with_context(|| {
        format!("the features in `{}` are not up to date\n\nhint: run `just extract`", cache.display())
    })?;
    let places = with_images(&context.dataset, |all| extraction.plan.places(all));
    let mut images: Vec<(&str, Place)> = Vec::with_capacity(context.selected.len());
    for index in &context.selected {
        let id = context.dataset.images[*index].id.as_str();
        match places[*index] {
            Some(place) => images.push((id, place)),
            None => {
                bail!("the features in `{}` have none of image `{id}`\n\nhint: run `just extract`", cache.display())
            }
        }
    }
    for source in &extraction.features {
        manifest.verify(cache, *source, |path| context.memo.hash_file(path))?;
        write_source(&FeatureReader::open(cache, &manifest, *source)?, *source, &images, folder)?;
    }
    let ids: String = images.iter().map(|(id, _)| format!("{id}\n")).collect();
    Ok(write_atomically(&folder.join("ids.txt"), ids.as_bytes())?)
}

fn write_source(reader: &FeatureReader, source: Source, images: &[(&str, Place)], folder: &Path) -> Result<()> {
    let (side, channels) = (source.side(), source.channels());
    let path = folder.join(format!("{source}.npy"));
    let mut file = AtomicFile::create(&path)?;
    // The header and the file's length first, then the values behind it, one image at a time.
    write_zeroed_npy::<f32, _>(file.as_file(), (images.len(), channels, side, side))?;
    let values_bytes = (images.len() * source.values_per_image() * size_of::<f32>()) as u64;
    file.seek(SeekFrom::End(-i64::try_from(values_bytes)?))?;
    let (mut buffer, mut values) = (Vec::new(), vec![0.0; source.values_per_image()]);
    for (_, place) in images {
        reader.read(*place, &mut buffer, &mut values)?;
        let map = Array4::from_shape_vec((1, side, side, channels), values.clone())?;
        for value in map.permuted_axes([0, 3, 1, 2]).iter() {
            file.write_all(&value.to_le_bytes())?;
        }
    }
    file.commit()?;
    tracing::info!("wrote `{}`: {} images", path.display(), images.len());
    Ok(())
}
