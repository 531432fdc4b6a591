//! Trained runs judged on another data set: faces, cameras and labels that they have never seen.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use candle_core::Device;
use dataset::{ClassName, ForeignImage, foreign_images};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sources::{Combination, Source};
use stage::{ContentHash, Fingerprint, Lock, read_sound_json, write_sealed_json};
use vit::{Model, first_largest};

use crate::{
    Context,
    evaluation::{self, EvaluatedRun},
    examples::Examples,
    failed::Failed,
    features::Features,
    predict::Asked,
    progress,
    runs::{self, Run, Trained},
    scores::Scores,
    single::SinglePass,
};

/// Version of everything between an image of another data set and the scores.
const NUMERICS_VERSION: u32 = 1;

const FOLDER: &str = "transfer";

/// `transfer/NAME-HASH.json` in a run's folder: name of the other data set's folder, and hash of its path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// What the scores depend on.
    pub fingerprint: Fingerprint,
    /// Folder of the other data set.
    pub data: PathBuf,
    /// What its class folders' names mean.
    pub class_names: Vec<ClassName>,
    /// Images of classes that the run does not know, by class.
    pub left_out: BTreeMap<String, usize>,
    /// On its images.
    pub scores: Scores,
}

/// A run on the other data set.
#[derive(Debug, Serialize)]
pub struct TransferredRun {
    /// Its inputs.
    pub combination: Combination,
    /// Its seed.
    pub seed: u64,
    /// Whether this was known already.
    pub was_fresh: bool,
    /// What was found.
    pub transfer: Transfer,
}

/// What became of all runs.
#[derive(Debug, Serialize)]
pub struct TransferReport {
    /// The other data set.
    pub data: PathBuf,
    /// Images that were judged.
    pub images: usize,
    /// Images of classes that the runs do not know, by class.
    pub left_out: BTreeMap<String, usize>,
    /// Every trained run asked for.
    pub runs: Vec<TransferredRun>,
}

/// A run without fresh scores.
struct Due {
    run: Run,
    fingerprint: Fingerprint,
    model: Model,
    _lock: Lock,
}

/// Has every trained run of the configuration answer about the images in `data`; those whose answers are known are left
/// alone. The backbone runs once for all of them.
///
/// # Errors
/// If the folder has images of unknown classes or that cannot be decoded, or nothing is trained.
pub fn run(context: &Context, data: &Path) -> Result<TransferReport> {
    if !data.is_dir() {
        bail!(
            "no data set at `{}` (eval.data)\n\nhint: name a folder with one folder of images for each class: \
             `just eval eval.data=FOLDER`",
            data.display()
        );
    }
    // However it is named, a data set is one folder.
    let data = &fs_err::canonicalize(data)?;
    let class_names = &context.study.eval.class_names;
    let OtherImages { images, left_out } = OtherImages::list(context, data, class_names)?;
    if images.is_empty() {
        bail!("`{}` has images of none of the {} classes of data.classes", data.display(), context.study.data.classes);
    }
    let examples = Examples::new(context);
    let features = Features::open(context, &examples)?;
    let digest = digest(context, &images, &left_out)?;
    let (mut done, mut due, mut failed) = (Vec::new(), Vec::new(), Failed::to("evaluate"));
    for run in runs::requested(context, &features, &examples)?.runs {
        let Some(trained) = run.trained(&context.memo) else { continue };
        let fingerprint = fingerprint(&run, &trained, digest);
        match read(&path(&run.folder, data)?).filter(|known| known.fingerprint == fingerprint) {
            Some(transfer) => done.push(transferred(&run, true, transfer)),
            None => match evaluation::open_locked(&run, &Device::Cpu) {
                Ok((model, lock)) => due.push(Due { run, fingerprint, model, _lock: lock }),
                Err(error) => failed.add(&run, error),
            },
        }
    }
    for (due, scores) in due.iter().zip(judge(context, &features, &images, &due)?) {
        let (fingerprint, left_out) = (due.fingerprint.clone(), left_out.clone());
        let transfer =
            Transfer { fingerprint, data: data.to_owned(), class_names: class_names.clone(), left_out, scores };
        write_sealed_json(&path(&due.run.folder, data)?, &transfer)?;
        done.push(transferred(&due.run, false, transfer));
    }
    failed.into_result()?;
    if done.is_empty() {
        return Err(runs::none_trained());
    }
    done.sort_by_key(|run| runs::place(context, run.combination, run.seed));
    Ok(TransferReport { data: data.to_owned(), images: images.len(), left_out, runs: done })
}

/// Scores of all `due` runs on `images`.
fn judge(context: &Context, features: &Features, images: &[(ForeignImage, usize)], due: &[Due]) -> Result<Vec<Scores>> {
    let maps: Vec<Source> = due.iter().flat_map(|due| due.run.combination.feature_maps()).collect();
    let names = context.study.data.classes.names();
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let mut asked = Asked::new(due.iter().map(|due| &due.model).collect())?;
    let mut answers: Vec<Vec<(usize, usize)>> = vec![Vec::with_capacity(images.len()); due.len()];
    let pass = SinglePass::new(context, &maps)?;
    let bar = progress::bar(context.show_progress, images.len() as u64, "eval", "images");
    for some in images.chunks(pass.batch()) {
        let paths: Vec<PathBuf> = some.iter().map(|(image, _)| image.path.clone()).collect();
        let found = asked.about(context, features, &pass, &paths)?;
        for (logits, answers) in found.iter().zip(&mut answers) {
            answers.extend(some.iter().zip(logits).map(|((_, class), logits)| (*class, first_largest(logits))));
        }
        bar.inc(some.len() as u64);
    }
    bar.finish_and_clear();
    Ok(answers.iter().map(|answers| Scores::new(&names, answers)).collect())
}

/// The images of another data set that the runs can be asked about, with their classes.
struct OtherImages {
    images: Vec<(ForeignImage, usize)>,
    /// Those of classes that the runs do not know, by class.
    left_out: BTreeMap<String, usize>,
}

impl OtherImages {
    fn list(context: &Context, data: &Path, class_names: &[ClassName]) -> Result<Self> {
        let (mut images, mut left_out) = (Vec::new(), BTreeMap::new());
        for image in foreign_images(data, class_names)? {
            match context.study.data.classes.index_of(image.emotion) {
                Some(class) => images.push((image, class)),
                None => *left_out.entry(image.emotion.name().to_owned()).or_insert(0) += 1,
            }
        }
        Ok(Self { images, left_out })
    }
}

/// What is known of `run` on other data sets and still true: of this model, and of the images as they are now, where they are
/// still there.
pub fn known(context: &Context, run: &EvaluatedRun) -> Vec<Transfer> {
    let entries = std::fs::read_dir(run.folder.join(FOLDER)).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let is_true = |transfer: &Transfer| {
        let says = |key: &str, value: String| transfer.fingerprint.get(key) == Some(&value);
        let images = || {
            let is_configured = context.study.eval.data.as_ref().and_then(|data| fs_err::canonicalize(data).ok());
            let is_configured = is_configured.as_ref() == Some(&transfer.data);
            let names = if is_configured { &context.study.eval.class_names } else { &transfer.class_names };
            let OtherImages { images, left_out } = OtherImages::list(context, &transfer.data, names)?;
            digest(context, &images, &left_out)
        };
        says("model", run.trained.model.to_string())
            && says("transfer.numerics", NUMERICS_VERSION.to_string())
            && (!transfer.data.is_dir() || images().is_ok_and(|digest| says("transfer.images", digest.to_string())))
    };
    paths.iter().filter_map(|path| read(path)).filter(is_true).collect()
}

/// Where the scores of the run in `folder` on `data` are kept. Folders of many data sets are called `test`.
fn path(folder: &Path, data: &Path) -> Result<PathBuf> {
    let name = data.file_name().with_context(|| format!("`{}` has no name", data.display()))?.to_string_lossy();
    let hash = ContentHash::of(data.as_os_str().as_encoded_bytes());
    Ok(folder.join(FOLDER).join(format!("{name}-{}.json", hash.short())))
}

fn read(path: &Path) -> Option<Transfer> {
    read_sound_json(path, runs::MADE_ANEW)
}

fn transferred(run: &Run, was_fresh: bool, transfer: Transfer) -> TransferredRun {
    TransferredRun { combination: run.combination, seed: run.seed, was_fresh, transfer }
}

fn fingerprint(run: &Run, trained: &Trained, images: ContentHash) -> Fingerprint {
    let mut fingerprint = Fingerprint::default();
    fingerprint.set("run", run.fingerprint.digest());
    fingerprint.set("model", trained.model);
    fingerprint.set("transfer.images", images);
    fingerprint.set("transfer.numerics", NUMERICS_VERSION);
    fingerprint
}

/// Hash of the images' contents and classes, and of what is left out.
fn digest(
    context: &Context,
    images: &[(ForeignImage, usize)],
    left_out: &BTreeMap<String, usize>,
) -> Result<ContentHash> {
    let left_out = serde_json::to_vec(left_out)?;
    let hashes = images.par_iter().map(|(image, _)| Ok(context.memo.hash_file(&image.path)?));
    let hashes = hashes.collect::<Result<Vec<ContentHash>>>()?;
    let classes: Vec<[u8; 8]> = images.iter().map(|(_, class)| (*class as u64).to_le_bytes()).collect();
    let parts = hashes.iter().zip(&classes).flat_map(|(hash, class)| [hash.as_bytes().as_slice(), class.as_slice()]);
    Ok(ContentHash::of_parts(parts.chain([left_out.as_slice()])))
}
