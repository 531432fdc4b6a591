use anyhow::Result;
use backbone::View;
use indicatif::ProgressBar;
use kernels::{Begin, Isa, Matrix, MatrixMut, Panels, Precision, multiply};
use rayon::prelude::*;

use super::outline::{LENGTH, mean, outline, remove};
use crate::{Context, feature_pass::grey};

/// Training images that are compared at a time: their outlines, a megabyte, stay in a core's cache.
const TOGETHER: usize = 256;

/// Other images that each of these is compared with at a time.
const OTHERS_TOGETHER: usize = 64;

/// A training image that is like another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Like {
    /// Correlation of both outlines, to four digits.
    pub(super) likeness: f32,
    /// Its index in the data set.
    pub(super) index: usize,
}

/// Which training images are most like an image, as it is and mirrored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nearest {
    pub(super) plain: Like,
    pub(super) mirrored: Like,
}

impl Like {
    /// What is nearer than nothing.
    const NOTHING: Self = Self { likeness: f32::NEG_INFINITY, index: usize::MAX };

    /// The nearer of two; of equals the first in the data set.
    fn or_nearer(self, other: Self) -> Self {
        let is_nearer = other.likeness > self.likeness || other.likeness == self.likeness && other.index < self.index;
        if is_nearer { other } else { self }
    }
}

/// For each of `others` the nearest of `train`, all as indices in the data set. Images for training are decoded, compared with all others
/// and forgotten. Likenesses are rounded, so that equals stay equal whatever the order of the sums.
pub(super) fn nearest(context: &Context, train: &[usize], others: &[usize], bar: &ProgressBar) -> Result<Vec<Nearest>> {
    let isa = Isa::choose()?;
    let parts = others.par_chunks(TOGETHER).map(|others| outlines(context, others, [View::Plain, View::Flip]));
    let (plain, mirrored): (Vec<_>, Vec<_>) =
        parts.collect::<Result<Vec<_>>>()?.into_iter().map(|[plain, mirrored]| (plain, mirrored)).unzip();
    let (mut plain, mut mirrored) = (plain.concat(), mirrored.concat());
    bar.inc(others.len() as u64);
    let common = mean(&plain);
    remove(&common, &mut plain);
    let common_mirrored = mean(&mirrored);
    remove(&common_mirrored, &mut mirrored);
    let sought = [plain, mirrored].concat();

    let nearest_among = |train: &[usize]| -> Result<Vec<Like>> {
        let [mut outlines] = outlines(context, train, [View::Plain])?;
        remove(&common, &mut outlines);
        bar.inc(train.len() as u64);
        Ok(nearest_each(isa, &sought, &outlines, train))
    };
    let nothing = || Ok(vec![Like::NOTHING; 2 * others.len()]);
    let nearest: Vec<Like> = train.par_chunks(TOGETHER).map(nearest_among).reduce(nothing, |one, other| {
        Ok(one?.into_iter().zip(other?).map(|(one, other)| one.or_nearer(other)).collect())
    })?;
    let (plain, mirrored) = nearest.split_at(others.len());
    let both = plain.iter().zip(mirrored);
    Ok(both.map(|(plain, mirrored)| Nearest { plain: *plain, mirrored: *mirrored }).collect())
}

/// The outlines of the images with these `indices` in each of `views`, one image's behind the other's. What cannot be decoded and is to be
/// left out has none.
fn outlines<const VIEWS: usize>(
    context: &Context,
    indices: &[usize],
    views: [View; VIEWS],
) -> Result<[Vec<f32>; VIEWS]> {
    let mut outlines = views.map(|_| Vec::with_capacity(indices.len() * LENGTH));
    for index in indices {
        let pixels = match context.dataset.decode(*index) {
            Err(_) if context.study.data.skip_bad => None,
            decoded => Some(decoded?),
        };
        for (view, outlines) in views.iter().zip(&mut outlines) {
            let in_view = pixels.as_ref().map(|pixels| {
                let mut grey = grey(pixels);
                if *view == View::Flip {
                    grey.chunks_exact_mut(pixels.width).for_each(<[f32]>::reverse);
                }
                outline(&grey, pixels.width, pixels.height)
            });
            outlines.extend(in_view.unwrap_or_else(|| vec![0.0; LENGTH]));
        }
    }
    Ok(outlines)
}

/// For each outline of `sought` the nearest of `outlines`, which belong to the images of the `indices`.
fn nearest_each(isa: Isa, sought: &[f32], outlines: &[f32], indices: &[usize]) -> Vec<Like> {
    let columns = indices.len();
    let mut panels = Panels::new(isa, Precision::F32, LENGTH, columns);
    panels.pack(Matrix::rows(outlines, columns, LENGTH, LENGTH).transposed());
    let mut correlations = vec![0.0; OTHERS_TOGETHER * columns];
    let mut all = Vec::with_capacity(sought.len() / LENGTH);
    for sought in sought.chunks(OTHERS_TOGETHER * LENGTH) {
        let rows = sought.len() / LENGTH;
        let values = &mut correlations[..rows * columns];
        let to = MatrixMut { values: &mut *values, rows, columns, row_step: columns };
        multiply(Matrix::rows(sought, rows, LENGTH, LENGTH), &panels, Begin::Zero, to);
        all.extend(values.chunks_exact(columns).map(|row| {
            let likes =
                row.iter().zip(indices).map(|(likeness, index)| Like { likeness: rounded(*likeness), index: *index });
            likes.fold(Like::NOTHING, Like::or_nearer)
        }));
    }
    all
}

/// To four digits.
fn rounded(likeness: f32) -> f32 {
    (likeness * 1e4).round() / 1e4
}
