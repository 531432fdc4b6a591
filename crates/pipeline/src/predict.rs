//! Answers of a trained run about images outside the study.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use candle_core::Device;
use kernels::Isa;
use serde::Serialize;
use sources::{Combination, Source};
use vit::{Answers, Batch, MODEL_FILE, Model, Predictors, Tokens, first_largest};

use crate::{
    Context,
    evaluation::softmax,
    examples::Examples,
    features::Features,
    loader::MeanLogits,
    runs,
    single::{self, SingleImage, SinglePass},
    tokens::TokenCutter,
};

/// What a run says of some images.
#[derive(Debug, Serialize)]
pub struct Predictions {
    /// The run's inputs.
    pub combination: Combination,
    /// Its seed.
    pub seed: u64,
    /// Its validation accuracy.
    pub valid_accuracy: f64,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// One per image.
    pub images: Vec<Prediction>,
}

/// What it says of one.
#[derive(Debug, Serialize)]
pub struct Prediction {
    /// The file.
    pub path: PathBuf,
    /// The answered class.
    pub class: String,
    /// Of each class, in the order of the classes.
    pub probabilities: Vec<f64>,
}

/// Has the configured run answer about `predict.image`: the one that `combo` and `seed` name, or else the trained run with the
/// highest validation accuracy.
pub fn run(context: &Context) -> Result<Predictions> {
    let names = &context.study.predict.image;
    if names.is_empty() {
        bail!("no image to answer about\n\nhint: run `just predict image=face.png`, or a folder");
    }
    let paths = single::image_files(context, names)?;
    let examples = Examples::new(context);
    let features = Features::open(context, &examples)?;
    let trained = runs::requested(context, &features, &examples)?.runs.into_iter().filter_map(|run| {
        let trained = run.trained(&context.memo)?;
        Some((run, trained.outcome.validation.validation.accuracy))
    });
    let mut trained: Vec<_> = trained.collect();
    // As the report does, the first of several in the order of the paper's tables.
    let tables = Combination::all();
    trained.sort_by_key(|(run, _)| (tables.iter().position(|one| *one == run.combination), run.seed));
    let best = trained.into_iter().reduce(|best, other| if other.1 > best.1 { other } else { best });
    let (run, valid_accuracy) = best.ok_or_else(runs::none_trained)?;
    let maps: Vec<Source> = run.combination.feature_maps().collect();
    let pass = SinglePass::new(context, &maps)?;
    let model = Model::load(&run.folder.join(MODEL_FILE), &Device::Cpu)?;
    let (classes, mut asked) = (model.about().classes.clone(), Asked::new(vec![&model])?);
    let mut images = Vec::with_capacity(paths.len());
    for paths in paths.chunks(pass.batch()) {
        for (path, logits) in paths.iter().zip(asked.about(context, &features, &pass, paths)?.concat()) {
            let class = classes[first_largest(&logits)].clone();
            images.push(Prediction { path: path.clone(), class, probabilities: softmax(&logits) });
        }
    }
    Ok(Predictions { combination: run.combination, seed: run.seed, valid_accuracy, images, classes })
}

/// Models of one configuration that are asked about images from anywhere.
pub(crate) struct Asked<'a> {
    models: Vec<&'a Model>,
    predictors: Predictors<'a>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(models: Vec<&'a Model>) -> Result<Self> {
        Ok(Self { predictors: Predictors::new(&models)?, models })
    }

    /// Logits (K) of each image in `paths` by each model, averaged over the configured views.
    pub(crate) fn about(
        &mut self,
        context: &Context,
        features: &Features,
        pass: &SinglePass<'_>,
        paths: &[PathBuf],
    ) -> Result<Answers> {
        let mut means = vec![MeanLogits::default(); self.models.len()];
        for view in context.study.extract.views.each() {
            let batch = self.batch(features, &pass.run(paths, *view)?)?;
            for (mean, logits) in means.iter_mut().zip(self.predictors.logits(&batch)?) {
                mean.add(logits);
            }
        }
        Ok(means.into_iter().map(MeanLogits::finish).collect())
    }

    /// The tokens of `images` as the models read them, standardised by the moments of the images that those were trained on.
    fn batch(&self, features: &Features, images: &[SingleImage]) -> Result<Batch> {
        let isa = Isa::choose()?;
        let mut batch = Batch { images: images.len(), ..Batch::default() };
        for about in self.models.iter().map(|model| model.about()) {
            batch.targets.resize(images.len() * about.classes.len(), 0.0);
            for source in about.inputs.iter().map(|input| input.source) {
                if batch.tokens.contains_key(&source) {
                    continue;
                }
                let cutter = TokenCutter::new(source, &about.model, features.moments(source)?);
                let mut values = vec![0.0; images.len() * cutter.values_per_image()];
                for (image, tokens) in images.iter().zip(values.chunks_exact_mut(cutter.values_per_image())) {
                    let map = match source {
                        Source::Orig => &image.original,
                        map => &image.maps.iter().find(|other| other.source == map).context("a map is missing")?.values,
                    };
                    cutter.cut(isa, map, tokens);
                }
                batch.tokens.insert(source, Tokens::Ready(values));
            }
        }
        Ok(batch)
    }
}
