//! Features for other programs.

use std::{
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::{Context as _, Result};
use backbone::View;
use ndarray::Array4;
use ndarray_npy::write_zeroed_npy;
use shards::{FeatureReader, Manifest};
use stage::write_atomically;

use crate::{
    Context,
    extraction::{Extraction, with_images},
};

/// Writes the configured features into `folder`: `fm2.npy` is (images, channels, height, width) in f32, as
/// PyTorch would have it; `ids.txt` names the images, one per line in the same order. Only the selected images
/// are written (`extract.limit`), as they are, whatever the views.
pub fn write_npy(context: &Context, folder: &Path) -> Result<()> {
    let extraction = Extraction::plan(context, View::Plain)?;
    let manifest =
        Manifest::read(&extraction.cache.folder)?.context("the features have no manifest; run `just extract`")?;
    let places = with_images(&context.dataset, |all| extraction.plan.places(all));
    let images: Vec<_> = context
        .selected
        .iter()
        .filter_map(|index| Some((context.dataset.images[*index].id.as_str(), places[*index]?)))
        .collect();
    fs_err::create_dir_all(folder)?;
    for source in &extraction.features {
        let reader = FeatureReader::open(&extraction.cache.folder, &manifest, *source)?;
        let (side, channels) = (source.side(), source.channels());
        let path = folder.join(format!("{source}.npy"));
        let unfinished = folder.join(format!("{}{source}.npy", stage::TEMPORARY_PREFIX));
        let file = fs_err::File::create(&unfinished)?.into_file();
        // The header and the file's length first, then the values behind it, one image at a time.
        write_zeroed_npy::<f32, _>(&file, (images.len(), channels, side, side))?;
        let values_bytes = (images.len() * source.values_per_image() * size_of::<f32>()) as u64;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        writer.seek(SeekFrom::End(-i64::try_from(values_bytes)?))?;
        let (mut buffer, mut values) = (Vec::new(), vec![0.0; source.values_per_image()]);
        for (_, place) in &images {
            reader.read(*place, &mut buffer, &mut values)?;
            let map = Array4::from_shape_vec((1, side, side, channels), values.clone())?;
            for value in map.permuted_axes([0, 3, 1, 2]).iter() {
                writer.write_all(&value.to_le_bytes())?;
            }
        }
        let file: File = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs_err::rename(&unfinished, &path)?;
        tracing::info!("wrote `{}`: {} images", path.display(), images.len());
    }
    let ids: String = images.iter().map(|(id, _)| format!("{id}\n")).collect();
    Ok(write_atomically(&folder.join("ids.txt"), ids.as_bytes())?)
}
