//! Images of the validation and test splits that show what a training image shows, byte for byte or nearly: a model that has learned
//! that one by heart knows the answer.

mod outline;
mod search;

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use dataset::Split;
use serde::{Deserialize, Serialize};
use stage::{ContentHash, read_sound_json, write_sealed_json};

use self::search::Nearest;
use crate::{Context, progress};

/// Version of everything between the images and what counts as a copy.
const VERSION: u32 = 2;

/// Likeness from which on two images may count as copies of one photograph. On FERPlus, 40 of the 48 pairs from 0.60 to 0.63 are, by eye,
/// and 47 of the 52 from 0.65 to 0.68.
const LEAST_LIKENESS: f32 = 0.6;

/// Likeness from which on they always do: no two photographs of FERPlus are as like, and no two faces of the demo.
const CERTAIN_LIKENESS: f32 = 0.95;

/// What share of the near copies may be so by chance, as estimated from mirror images: those are like a training image as often as the
/// images themselves are by chance. In data sets whose images are more alike than FERPlus's a copy has to be more like its original.
const MOST_BY_CHANCE: f64 = 0.05;

/// An image that a training image shows as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopiedImage {
    /// The image.
    pub image: String,
    /// Its split: validation or test.
    pub split: Split,
    /// The training image that is most like it.
    pub of: String,
    /// Whether both have the same bytes.
    pub identical: bool,
    /// Correlation of the two images' outlines, at most 1.
    pub likeness: f32,
}

/// `copies.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Copies {
    /// What was compared.
    images: ContentHash,
    /// Likeness from which on images counted as copies.
    #[serde(default)]
    least_likeness: f32,
    /// In the order of the data set.
    copies: Vec<CopiedImage>,
}

/// How many copies there are in a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CopyCounts {
    /// Validation or test.
    pub split: Split,
    /// Images with the same bytes as one for training.
    pub identical: usize,
    /// Other images that show nearly the same as one.
    pub near: usize,
}

impl Copies {
    /// The copies among the selected images, if they have been looked for.
    pub(crate) fn known(context: &Context) -> Option<Self> {
        Self::known_of(context, digest(context))
    }

    fn known_of(context: &Context, images: ContentHash) -> Option<Self> {
        let known: Option<Self> = read_sound_json(&context.paths.copies(), "copies are looked for again");
        known.filter(|known| known.images == images)
    }

    /// Looks for them, once: what was found is kept.
    pub(crate) fn find(context: &Context) -> Result<Self> {
        let images = digest(context);
        if let Some(known) = Self::known_of(context, images) {
            return Ok(known);
        }
        let (least_likeness, copies) = search(context)?;
        let found = Self { images, least_likeness, copies };
        write_sealed_json(&context.paths.copies(), &found)?;
        Ok(found)
    }

    /// The images of `split` that are copies, as indices in the data set.
    pub(crate) fn indices(&self, context: &Context, split: Split) -> HashSet<usize> {
        let copies: HashSet<&str> =
            self.copies.iter().filter(|copy| copy.split == split).map(|copy| copy.image.as_str()).collect();
        let is_copy = |index: &usize| copies.contains(context.dataset.images[*index].id.as_str());
        context.selected.iter().copied().filter(is_copy).collect()
    }

    /// Likeness from which on images counted as copies, if it is more than [`LEAST_LIKENESS`]: images of this data set are too alike, or
    /// near copies too few, to tell these from chance below.
    pub(crate) fn raised_likeness(&self) -> Option<f32> {
        (self.least_likeness > LEAST_LIKENESS).then_some(self.least_likeness)
    }

    /// How many there are.
    pub(crate) fn counts(&self) -> [CopyCounts; 2] {
        [Split::Valid, Split::Test].map(|split| {
            let of_split = || self.copies.iter().filter(move |copy| copy.split == split);
            let identical = of_split().filter(|copy| copy.identical).count();
            CopyCounts { split, identical, near: of_split().count() - identical }
        })
    }
}

/// Identifies what is compared, and how.
pub(crate) fn digest(context: &Context) -> ContentHash {
    let how = format!("{VERSION} {LEAST_LIKENESS} {CERTAIN_LIKENESS} {MOST_BY_CHANCE}");
    let images = context.selected.iter().flat_map(|index| {
        let image = &context.dataset.images[*index];
        [image.split.name().as_bytes(), image.id.as_bytes(), image.hash.as_bytes()]
    });
    ContentHash::of_parts(std::iter::once(how.as_bytes()).chain(images))
}

/// The least likeness of a copy, and all copies.
fn search(context: &Context) -> Result<(f32, Vec<CopiedImage>)> {
    let images = &context.dataset.images;
    let of = |wanted: fn(Split) -> bool| -> Vec<usize> {
        context.selected.iter().copied().filter(|index| wanted(images[*index].split)).collect()
    };
    let (train, others) = (of(|split| split == Split::Train), of(|split| split != Split::Train));
    let bar = progress::bar(context.show_progress, (train.len() + others.len()) as u64, "copies", "images");
    let nearest = search::nearest(context, &train, &others, &bar)?;
    bar.finish_and_clear();
    let identical = identical(context);
    let near = others.iter().zip(&nearest).filter(|(index, _)| !identical.contains_key(index));
    let least = least_likeness(&near.map(|(_, nearest)| *nearest).collect::<Vec<_>>());
    let copies = others.iter().zip(nearest).filter_map(|(index, near)| {
        let identical = identical.get(index);
        let (of, likeness) = match identical {
            Some(of) => (*of, 1.0),
            None if near.is_copy(least) => (near.plain.index, near.plain.likeness),
            None => return None,
        };
        let image = &images[*index];
        let (of, identical) = (images[of].id.clone(), identical.is_some());
        Some(CopiedImage { image: image.id.clone(), split: image.split, of, identical, likeness })
    });
    Ok((least, copies.collect()))
}

/// The first training image with the same bytes, of each image that has one. Among them are those of a single colour, which have no
/// outlines and are like nothing but themselves.
fn identical(context: &Context) -> HashMap<usize, usize> {
    let (images, wants) = (&context.dataset.images, context.wants());
    let mut identical = HashMap::new();
    for group in context.dataset.duplicate_groups() {
        let selected = || group.iter().copied().filter(|index| wants(*index));
        if let Some(first) = selected().find(|index| images[*index].split == Split::Train) {
            identical.extend(selected().map(|index| (index, first)));
        }
    }
    identical
}

impl Nearest {
    /// Whether the training image and the image are copies of one photograph.
    fn is_copy(&self, least_likeness: f32) -> bool {
        let Self { plain, mirrored } = self;
        plain.likeness >= CERTAIN_LIKENESS || plain.likeness >= least_likeness.max(mirrored.likeness)
    }
}

/// The least likeness from [`LEAST_LIKENESS`] to [`CERTAIN_LIKENESS`] from which on no more are so by chance than [`MOST_BY_CHANCE`]. An
/// image counts for a copy, or against them, as it or its mirror image is more like a training image; one more is taken to be by chance
/// than were seen, as is usual for such estimates (<https://doi.org/10.1214/15-AOS1337>, knockoff+).
fn least_likeness(nearest: &[Nearest]) -> f32 {
    let winners = nearest.iter().map(|Nearest { plain, mirrored }| {
        let is_mirrored = mirrored.likeness > plain.likeness;
        (if is_mirrored { mirrored.likeness } else { plain.likeness }, is_mirrored)
    });
    let mut winners: Vec<(f32, bool)> = winners.filter(|(likeness, _)| *likeness >= LEAST_LIKENESS).collect();
    // Of equals the mirror images first.
    winners.sort_unstable_by(|one, other| other.0.total_cmp(&one.0).then(other.1.cmp(&one.1)));
    let (mut copies, mut by_chance, mut least) = (0.0, 1.0, CERTAIN_LIKENESS);
    for (likeness, is_mirrored) in winners {
        if is_mirrored {
            by_chance += 1.0;
            continue;
        }
        copies += 1.0;
        if by_chance <= MOST_BY_CHANCE * copies {
            least = likeness.min(least);
        }
    }
    if by_chance <= MOST_BY_CHANCE * copies { LEAST_LIKENESS } else { least }
}

#[cfg(test)]
mod tests {
    use study::Study;

    use super::{search::Like, *};

    #[test]
    fn what_mirror_images_are_by_chance_is_no_copy() {
        let like = |likeness| Like { likeness, index: 0 };
        let many =
            |count: usize, plain, mirrored| vec![Nearest { plain: like(plain), mirrored: like(mirrored) }; count];
        // A few may all be so by chance; what is certain is left.
        assert_eq!(least_likeness(&many(19, 0.8, 0.3)), CERTAIN_LIKENESS);
        assert_eq!(least_likeness(&many(20, 0.8, 0.3)), LEAST_LIKENESS);
        assert_eq!(least_likeness(&many(20, 0.5, 0.3)), CERTAIN_LIKENESS);
        let with = |more: Vec<Nearest>| least_likeness(&[many(30, 0.8, 0.3), more].concat());
        assert_eq!(with(many(1, 0.3, 0.7)), 0.8);
        assert_eq!(with([many(1, 0.3, 0.7), many(9, 0.65, 0.3)].concat()), 0.8);
        assert_eq!(with([many(1, 0.3, 0.7), many(10, 0.65, 0.3), many(1, 0.3, 0.62)].concat()), 0.65);
        assert_eq!(with([many(1, 0.3, 0.7), many(10, 0.65, 0.3)].concat()), LEAST_LIKENESS);
        assert_eq!(with(many(2, 0.3, 0.9)), CERTAIN_LIKENESS);
        // Of equals all mirror images count.
        let equals = [many(40, 0.8, 0.3), many(2, 0.3, 0.7), many(1, 0.7, 0.3)].concat();
        assert_eq!(least_likeness(&equals), 0.8);
        // Training images with their mirror images: both are as like.
        assert_eq!(least_likeness(&many(40, 0.8, 0.8)), LEAST_LIKENESS);
    }

    #[test]
    fn ferplus_has_more_near_copies_than_byte_identical_ones() {
        let Some(faces) = testdata::real_ferplus() else { return };
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("study.toml"), "").unwrap();
        let overrides = [("data.dir", faces.as_path()), ("cache.dir", folder.path())]
            .map(|(key, to)| format!("{key}={}", to.display()));
        let context =
            Context::open(Study::load(&folder.path().join("study.toml"), &overrides).unwrap(), false).unwrap();
        let found = Copies::find(&context).unwrap();
        let [valid, test] = found.counts();
        assert_eq!((valid.identical, test.identical), (279, 288));
        // So numpy finds; sums in another order may decide otherwise at the edge.
        assert!(valid.near.abs_diff(296) <= 2 && test.near.abs_diff(306) <= 2, "{valid:?} {test:?}");
        assert_eq!(found.raised_likeness(), None);

        assert_eq!(Copies::known(&context).map(|known| known.copies).as_ref(), Some(&found.copies));
        assert_eq!(found.indices(&context, Split::Test).len(), test.identical + test.near);
    }
}
