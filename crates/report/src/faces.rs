//! The faces that the page shows: which images, and what is known of them.

use std::path::PathBuf;

use anyhow::Result;
use dataset::{Annotation, Emotion, Split, target};
use pipeline::{Context, inspect::Inspector};
use sources::Source;

use crate::{pictures::Picture, results::AnsweredRun};

/// Most confidently wrong answers that are shown.
const WRONG: usize = 12;

/// An image with its feature maps, as in the paper's Figure 3.
#[derive(Debug)]
pub struct Portrait {
    /// The image's id.
    pub id: String,
    /// What it shows.
    pub class: String,
    /// Votes for it.
    pub votes: String,
    /// The image itself.
    pub original: Picture,
    /// Channel means of the cached maps.
    pub maps: Vec<(Source, Picture)>,
    /// Where the chosen run looks, laid on the image.
    pub attention: Picture,
}

/// A wrong answer.
#[derive(Debug)]
pub struct Mistake {
    /// The image's id.
    pub id: String,
    /// The image itself.
    pub original: Picture,
    /// Where the run looks.
    pub attention: Picture,
    /// The true class.
    pub label: String,
    /// The answer, and how sure of it the run is.
    pub answer: String,
    /// In percent.
    pub confidence: f64,
    /// How the annotators voted.
    pub votes: String,
}

/// One test image of each class: the one on which the annotators agree most, the first of several.
pub fn one_of_each_class(context: &Context) -> Vec<usize> {
    let (data, images) = (&context.study.data, &context.dataset.images);
    let class = |index: &usize| {
        target(&images[*index].annotation, data.labels, data.classes, Split::Test).map(|target| target.class())
    };
    let test: Vec<usize> =
        context.selected.iter().copied().filter(|index| images[*index].split == Split::Test).collect();
    let disagreement = |index: &usize| entropy(context, *index).unwrap_or(0.0);
    let most_agreed = |wanted: usize| {
        let of_class = test.iter().copied().filter(|index| class(index) == Some(wanted));
        of_class.min_by(|a, b| disagreement(a).total_cmp(&disagreement(b)))
    };
    (0..data.classes.len()).filter_map(most_agreed).collect()
}

/// The files of these images; those of a table of pixels have none.
pub fn files_of_each_class(context: &Context) -> Vec<PathBuf> {
    let path = |index: usize| context.dataset.dir.join(&context.dataset.images[index].id);
    one_of_each_class(context).into_iter().map(path).filter(|path| path.is_file()).collect()
}

/// Portraits of `images` of the data set, seen by the run `answered`.
pub fn portraits(
    context: &Context,
    inspector: &Inspector<'_>,
    images: &[usize],
    answered: &AnsweredRun,
) -> Result<Vec<Portrait>> {
    let seen = seen(context, inspector, images, answered)?;
    let sources: Vec<Source> = inspector.cached().collect();
    let portrait = |(image, [original, attention]): (&usize, [Picture; 2])| {
        let record = &context.dataset.images[*image];
        let map = |source: &Source| Ok((*source, Picture::channel_mean(&inspector.map(*source, *image)?)?));
        let at = answered.answers.images.iter().position(|other| other == image);
        let class = at.map(|at| context.study.data.classes.names()[answered.answers.labels[at]].to_owned());
        Ok(Portrait {
            id: record.id.clone(),
            class: class.unwrap_or_default(),
            votes: votes(&record.annotation),
            original,
            maps: sources.iter().map(map).collect::<Result<_>>()?,
            attention,
        })
    };
    images.iter().zip(seen).map(portrait).collect()
}

/// The test images about which the run was wrong and most sure.
pub fn mistakes(context: &Context, inspector: &Inspector<'_>, answered: &AnsweredRun) -> Result<Vec<Mistake>> {
    let answers = &answered.answers;
    let confidences: Vec<f64> = answers.confidences().collect();
    let mut wrong: Vec<usize> = (0..answers.images.len()).filter(|at| !answered.correct[*at]).collect();
    wrong.sort_by(|a, b| confidences[*b].total_cmp(&confidences[*a]));
    wrong.truncate(WRONG);
    let images: Vec<usize> = wrong.iter().map(|at| answers.images[*at]).collect();
    let seen = seen(context, inspector, &images, answered)?;
    let names = context.study.data.classes.names();
    let mistake = |(at, [original, attention]): (&usize, [Picture; 2])| {
        let record = &context.dataset.images[answers.images[*at]];
        Mistake {
            id: record.id.clone(),
            original,
            attention,
            label: names[answers.labels[*at]].to_owned(),
            answer: names[answers.answers[*at]].to_owned(),
            confidence: 100.0 * confidences[*at],
            votes: votes(&record.annotation),
        }
    };
    Ok(wrong.iter().zip(seen).map(mistake).collect())
}

/// Entropy of an image's votes in bits; none without votes.
pub fn entropy(context: &Context, image: usize) -> Option<f64> {
    let Annotation::Votes(votes) = &context.dataset.images[image].annotation else { return None };
    let all: f64 = votes.0.iter().map(|count| f64::from(*count)).sum();
    let shares = votes.0.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / all);
    Some(shares.map(|share| -share * share.log2()).sum::<f64>().max(0.0))
}

/// The images, and each under the light of the run's attention.
fn seen(
    context: &Context,
    inspector: &Inspector<'_>,
    images: &[usize],
    answered: &AnsweredRun,
) -> Result<Vec<[Picture; 2]>> {
    let shares = inspector.attention(&answered.run.folder, answered.run.combination, images)?;
    let of_image = |(image, shares): (&usize, Vec<f32>)| {
        let original = Picture::pixels(&context.dataset.decode(*image)?)?;
        let lit = original.lit(&shares)?;
        Ok([original, lit])
    };
    images.iter().zip(shares).map(of_image).collect()
}

/// Such as "happiness 8, neutral 2".
fn votes(annotation: &Annotation) -> String {
    match annotation {
        Annotation::Votes(votes) => {
            let names = Emotion::ALL.iter().map(|emotion| emotion.name()).chain(["unknown", "not a face"]);
            let mut cast: Vec<(u8, &str)> = votes.0.into_iter().zip(names).filter(|(count, _)| *count > 0).collect();
            cast.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
            cast.iter().map(|(count, name)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        }
        Annotation::Class(emotion) => format!("folder {emotion}"),
        Annotation::None => "none".to_owned(),
    }
}
