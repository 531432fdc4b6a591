//! The paper's Figure 3 for any images.

use std::path::PathBuf;

use anyhow::{Result, bail};
use backbone::View;
use pipeline::{
    Context,
    single::{self, SingleImage, SinglePass},
};
use serde::Serialize;
use sources::Source;

use crate::{
    PNG_SCALE, faces,
    figures::grid,
    pictures::{Picture, strongest_channels},
};

/// Most images of one figure.
const MOST_IMAGES: usize = 64;

/// The files that were written.
#[derive(Debug, Serialize)]
pub struct Drawn {
    /// As drawing.
    pub svg: PathBuf,
    /// As pixels.
    pub png: PathBuf,
    /// The images on it.
    pub images: Vec<PathBuf>,
}

/// Draws `figure.images`, or one test image of each class: the image, the mean over the channels of each configured feature
/// map, and its strongest channels.
///
/// # Errors
/// If an image cannot be read, the backbone fails, or files do.
pub fn draw(context: &Context) -> Result<Drawn> {
    // Those of `predict` are meant as well: the two keys differ in one letter.
    let named = &[&context.study.figure.images[..], &context.study.predict.image].concat();
    let paths =
        if named.is_empty() { faces::files_of_each_class(context) } else { single::image_files(context, named)? };
    if paths.is_empty() {
        bail!(
            "no image to draw: those of `{}` have no files of their own, or no label\n\n\
             hint: name some: `just figure images=face.png`",
            context.study.data.dir.display()
        );
    }
    if paths.len() > MOST_IMAGES {
        bail!("{} images to draw, expected at most {MOST_IMAGES}", paths.len());
    }
    let wanted: Vec<Source> = context.study.extract.features.feature_maps().collect();
    let images = SinglePass::new(context, &wanted)?.run(&paths, View::Plain)?;

    let channels = context.study.figure.channels;
    let mut columns = vec!["image".to_owned()];
    for source in &wanted {
        columns.push(format!("{source}, mean"));
        columns.extend((1..=channels.min(source.channels())).map(|rank| format!("{source}, no. {rank}")));
    }
    let rows = images.iter().map(|image| row(image, channels)).collect::<Result<Vec<_>>>()?;
    let rows: Vec<(String, Vec<&Picture>)> =
        rows.iter().map(|(words, pictures)| (words.clone(), pictures.iter().collect())).collect();
    let description = "Images, the mean over the channels of their feature maps, and the strongest channels".to_owned();
    let chart = grid("feature-maps", description, &columns, &rows);

    let file = |ending: &str| context.paths.report().join("figures").join(format!("{}.{ending}", chart.name));
    let drawn = Drawn { svg: file("svg"), png: file("png"), images: paths };
    stage::write_atomically(&drawn.svg, chart.svg().as_bytes())?;
    stage::write_atomically(&drawn.png, &chart.png(PNG_SCALE)?)?;
    Ok(drawn)
}

/// An image's pictures, and which channels they show.
fn row(image: &SingleImage, channels: usize) -> Result<(String, Vec<Picture>)> {
    let name = image.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (mut words, mut pictures) = (name, vec![Picture::pixels(&image.pixels)?]);
    for map in &image.maps {
        pictures.push(Picture::channel_mean(map)?);
        let strongest = strongest_channels(map, channels);
        for channel in &strongest {
            pictures.push(Picture::channel(map, *channel)?);
        }
        let numbers: Vec<String> = strongest.iter().map(ToString::to_string).collect();
        words = format!("{words} · {} channels {}", map.source, numbers.join(", "));
    }
    Ok((words, pictures))
}

/// What was drawn, for the terminal.
pub fn summary(drawn: &Drawn) -> String {
    format!("figure: `{}` and `{}` of {} images", drawn.svg.display(), drawn.png.display(), drawn.images.len())
}
