//! Training: every run that is not fresh.

mod resident;
mod sharing;
mod together;

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use candle_core::{DType, Device};
use serde::Serialize;
use sharing::Sharing;
use sources::Combination;
use stage::Freshness;
use together::train_together;
use vit::{About, Model, Trainer, VitError};

use crate::{
    Context,
    examples::{Example, Examples},
    failed::Failed,
    features::Features,
    loader,
    out_of_memory::is_out_of_memory,
    runs::{self, Run, Trained},
};

/// What became of one run.
#[derive(Debug, Serialize)]
pub struct RunReport {
    /// Its inputs.
    pub combination: Combination,
    /// Its seed.
    pub seed: u64,
    /// Its folder.
    pub folder: PathBuf,
    /// How it stood before.
    pub before: Freshness,
    /// How training went.
    pub trained: Trained,
}

/// What `train` did.
#[derive(Debug, Serialize)]
pub struct TrainingReport {
    /// Every run asked for.
    pub runs: Vec<RunReport>,
}

/// A run that is to be trained.
#[derive(Debug)]
struct Waiting<'a> {
    run: &'a Run,
    /// How it stood before.
    before: Freshness,
}

/// What all runs of a command have in common.
struct Common<'a> {
    context: &'a Context,
    features: &'a Features,
    examples: &'a Examples,
    device: Device,
}

/// Trains what is not fresh. Runs of one seed see the same images in the same order; as many of them as the memory holds
/// learn from each batch, so that the cache is read once for all. A run that fails holds no other up.
pub fn run(context: &Context) -> Result<TrainingReport> {
    let examples = Examples::new(context);
    for (split, members) in [("training", &examples.train), ("validation", &examples.valid)] {
        if members.is_empty() {
            bail!(
                "no {split} image has a label under data.labels = {}, data.classes = {}; the data set has {}\n\n\
                 hint: without a folder for validation a tenth of the training images is \
                 set apart",
                context.study.data.labels,
                context.study.data.classes,
                count_of_images(context),
            );
        }
    }
    let class = |example: &Example| example.target.class();
    if let Some(first) = examples.train.first().map(class)
        && examples.train.iter().all(|example| class(example) == first)
    {
        bail!(
            "all {} training images are of one class, {}: there is nothing to tell apart\n\n\
             hint: see data.classes and data.labels, or look into `{}`",
            examples.train.len(),
            context.study.data.classes.names()[first],
            context.study.data.dir.display(),
        );
    }
    let features = Features::open(context, &examples)?;
    let device = context.study.device.open()?;
    let runs = runs::requested(context, &features, &examples)?.complete()?;
    let common = Common { context, features: &features, examples: &examples, device };

    let (mut reports, mut failed) = (Vec::new(), Failed::to("train"));
    let mut waiting: Vec<Waiting<'_>> = Vec::new();
    for run in &runs {
        let before = run.freshness(&context.memo, context.study.recipe.steps);
        match (&before, run.trained(&context.memo)) {
            (Freshness::Fresh, Some(trained)) => reports.push(report(run, before, trained)),
            _ => waiting.push(Waiting { run, before }),
        }
    }
    let mut sharing = Sharing::as_foreseen();
    while !waiting.is_empty() {
        for (Waiting { run, before }, trained) in train_some(&common, &mut sharing, &mut waiting)? {
            match trained {
                Ok(trained) => reports.push(report(run, before, trained)),
                Err(error) => failed.add(run, error),
            }
        }
    }
    failed.into_result()?;
    let place = |report: &RunReport| runs.iter().position(|run| run.folder == report.folder);
    reports.sort_by_key(place);
    Ok(TrainingReport { runs: reports })
}

/// How many images each split has.
fn count_of_images(context: &Context) -> String {
    let counts = context.dataset.audit.splits.iter().map(|(split, count)| format!("{} for {split}", count.images));
    counts.collect::<Vec<_>>().join(", ")
}

fn report(run: &Run, before: Freshness, trained: Trained) -> RunReport {
    RunReport { combination: run.combination, seed: run.seed, folder: run.folder.clone(), before, trained }
}

/// Trains as many of the `waiting` runs together as go together, and takes them out; but for those that had too little memory
/// when less can be asked of it: they go on from their checkpoints.
fn train_some<'a>(
    common: &Common<'_>,
    sharing: &mut Sharing,
    waiting: &mut Vec<Waiting<'a>>,
) -> Result<Vec<(Waiting<'a>, Result<Trained>)>> {
    let allowed = allowed_bytes(common.context, &common.device);
    let (mut together, mut models, mut bytes) = (Vec::new(), Vec::new(), 0);
    let (mut others, mut ended) = (Vec::new(), Vec::new());
    let mut is_full = false;
    for run in waiting.drain(..) {
        let first_seed = together.first().map(|first: &Waiting<'_>| first.run.seed);
        if is_full || first_seed.is_some_and(|seed| seed != run.run.seed) {
            others.push(run);
            continue;
        }
        let model = match new_model(common, run.run) {
            Err(error) if !together.is_empty() && is_out_of_memory(&error) => {
                is_full = true;
                others.push(run);
                continue;
            }
            Err(error) => {
                ended.push((run, Err(error)));
                continue;
            }
            Ok(model) => model,
        };
        let more = Trainer::bytes(&model, common.context.study.recipe.batch, rayon::current_num_threads());
        if together.is_empty() || (together.len() < sharing.most_together && bytes + more <= allowed) {
            bytes += more;
            together.push(run);
            models.push(model);
        } else {
            is_full = true;
            others.push(run);
        }
    }
    *waiting = others;
    if together.len() > 1 {
        tracing::info!(
            "{} runs learn from the same batches, in {:.1} GB of memory",
            together.len(),
            bytes as f64 / 1e9
        );
    }
    let trained = match train_together(common, &together, &mut models, sharing) {
        Err(error) if is_out_of_memory(&error) && sharing.reduce(together.len()) => {
            waiting.splice(..0, together);
            return Ok(ended);
        }
        // There is nothing left that this run could do without; others may need less.
        Err(error) if is_out_of_memory(&error) && together.len() == 1 => {
            ended.extend(together.into_iter().zip([Err(error)]));
            return Ok(ended);
        }
        trained => trained?,
    };
    let is_short = trained.iter().any(|trained| trained.as_ref().is_err_and(is_out_of_memory));
    if !is_short || !sharing.reduce(together.len()) {
        ended.extend(together.into_iter().zip(trained));
        return Ok(ended);
    }
    let (again, done): (Vec<_>, Vec<_>) =
        together.into_iter().zip(trained).partition(|(_, trained)| trained.as_ref().is_err_and(is_out_of_memory));
    waiting.splice(..0, again.into_iter().map(|(run, _)| run));
    ended.extend(done);
    Ok(ended)
}

/// Bytes that runs which are trained together may take.
fn allowed_bytes(context: &Context, device: &Device) -> u64 {
    const GIB: f64 = (1_u64 << 30) as f64;
    match (context.study.train.memory_gib, Trainer::free_bytes(device)) {
        (0.0, Some(free)) => free / 2,
        // Where the system does not tell, one run at a time.
        (0.0, None) => sysinfo::System::new().map_or(0, |mut system| {
            system.refresh_memory();
            system.available_memory() / 2
        }),
        (gib, _) => (gib * GIB) as u64,
    }
}

/// Why `run` cannot even begin.
fn without_weights(common: &Common<'_>, run: &Run, error: &VitError) -> anyhow::Error {
    let hint = "nvidia-smi tells what else uses a GPU's memory; device=cpu does without one";
    let device = common.context.study.device;
    anyhow!("{} cannot have its weights on device `{device}`: {error}\n\nhint: {hint}", run.name())
}

fn new_model(common: &Common<'_>, run: &Run) -> Result<Model> {
    let study = &common.context.study;
    let inputs = loader::inputs(common.features, run.combination, &study.model)?;
    let classes = study.data.classes.names().into_iter().map(str::to_owned).collect();
    let about = About { model: study.model.clone(), inputs, classes };
    Model::new(about, run.seed, DType::F32, &common.device).map_err(|error| without_weights(common, run, &error))
}
