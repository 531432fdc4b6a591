//! The backbone pass: run once, stored for all runs.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use backbone::{Precision, View, Weights};
use dataset::{Dataset, DatasetError, ImageRecord, Split};
use rayon::prelude::*;
use serde::Serialize;
use shards::{
    ChannelSums, Dtype, FORMAT_VERSION, FeatureEntry, Images, Manifest, Moments, Plan, PlannedImage, PlannedShard,
    ShardEntry, ShardRecord, record_path, shard_path,
};
use sources::Source;
use stage::{ContentHash, Lock, SealError, check_seal, warn_once};

pub use crate::feature_pass::Waited;
use crate::{
    Context, calibration,
    copies::{Copies, CopyCounts},
    feature_cache::FeatureCache,
    feature_pass::{self, Pass, PassError},
    inputs::Inputs,
    progress,
    summary::counted,
};

/// What an extraction is about to do, or found done.
#[derive(Debug)]
pub struct Extraction {
    /// The feature cache.
    pub cache: FeatureCache,
    /// Which image lies where.
    pub plan: Plan,
    /// Identifies the plan.
    pub plan_digest: ContentHash,
    /// The features asked for, canonical order.
    pub features: Vec<Source>,
    /// Features to compute, by shard.
    pub missing: BTreeMap<usize, Vec<Source>>,
    /// The manifest that is there, if it describes just this plan.
    pub manifest: Option<Manifest>,
}

/// What an extraction did.
#[derive(Debug, Serialize)]
pub struct ExtractionReport {
    /// Folder of the feature cache; that of the images as they are, if there are other views.
    pub cache: PathBuf,
    /// The features asked for.
    pub features: Vec<Source>,
    /// Images in the cache.
    pub images: usize,
    /// Images that went through the backbone now.
    pub images_computed: usize,
    /// Shard files written now.
    pub shards_written: usize,
    /// Shard files in all, of these features.
    pub shards: usize,
    /// Size of these features.
    pub size_bytes: u64,
    /// Wall-clock time of the pass.
    pub wall_s: f64,
    /// What of it was waiting.
    pub waited: Waited,
    /// What ran the network; none if there was nothing to do.
    pub engine: Option<String>,
    /// Bad input that was left out (with data.skip_bad).
    pub skipped: Vec<String>,
    /// Validation and test images that show what a training image shows; empty if they have not been looked for.
    pub copies: Vec<CopyCounts>,
    /// The least likeness of a near copy, if it is more than usual: images are too alike, or near copies too few, to tell from chance.
    pub raised_likeness: Option<f32>,
}

impl Extraction {
    /// Finds out what there is to do for one view of the images, from records and remembered hashes.
    pub fn plan(context: &Context, view: View) -> Result<Self> {
        Self::plan_with(context, &context.weights()?, view)
    }

    /// The same for each of the configured views.
    pub fn plan_all(context: &Context) -> Result<Vec<Self>> {
        let weights = context.weights()?;
        context.study.extract.views.each().iter().map(|view| Self::plan_with(context, &weights, *view)).collect()
    }

    fn plan_with(context: &Context, weights: &Weights, view: View) -> Result<Self> {
        let cache = FeatureCache::find(&context.study, &context.paths, weights, view)?;
        let folder = &cache.folder;
        let manifest = Manifest::read(folder).unwrap_or_else(|error| {
            warn_once(error.to_string());
            None
        });
        let stored =
            context.read_ahead.plan(folder, manifest.as_ref().map(|manifest| manifest.plan)).unwrap_or_else(|error| {
                warn_once(format!("{error}; it is made anew from what the shards say"));
                None
            });
        let plan_is_sound = stored.is_some();
        let (before, digest) =
            stored.map_or_else(|| (Plan::recover(folder), None), |(plan, digest)| (plan, Some(digest)));
        let shard_images = context.study.extract.shard_images;
        let updated = with_images(&context.dataset, |all| before.update(all, context.wants(), shard_images));
        if let Some(plan) = &updated {
            refuse_to_destroy(&before, plan, context, folder)?;
        }
        let digest = digest.filter(|_| updated.is_none());
        let plan = updated.unwrap_or(before);
        let plan_digest = digest.unwrap_or_else(|| plan.digest());

        let features: Vec<Source> = context.study.extract.features.feature_maps().collect();
        let mut missing: BTreeMap<usize, Vec<Source>> = BTreeMap::new();
        let mut complete: BTreeMap<(Source, usize), ShardEntry> = BTreeMap::new();
        let shards = plan.shards().par_iter().enumerate().filter(|(_, images)| !images.is_empty());
        let images: Vec<(usize, ContentHash)> = shards.map(|(shard, images)| (shard, images.digest())).collect();
        for source in &features {
            let known = manifest.as_ref().and_then(|manifest| manifest.features.get(source));
            let found = images.par_iter().map(|(shard, images)| {
                let known = known.and_then(|entry| entry.shards.get(shard));
                (*shard, complete_shard(context, folder, images, known, *source, *shard))
            });
            for (shard, entry) in found.collect::<Vec<_>>() {
                match entry {
                    Some(entry) => _ = complete.insert((*source, shard), entry),
                    None => missing.entry(shard).or_default().push(*source),
                }
            }
        }
        // A process killed between a shard and the manifest leaves one that describes what was there before.
        let describes = |source: &Source, entry: &FeatureEntry| {
            let shards = entry.shards.iter();
            shards.into_iter().all(|(shard, entry)| complete.get(&(*source, *shard)).is_none_or(|found| found == entry))
        };
        let manifest = manifest.filter(|manifest| {
            let described = |source| manifest.features.get(source).is_some_and(|entry| describes(source, entry));
            let same = manifest.fingerprint == cache.fingerprint && manifest.plan == plan_digest;
            plan_is_sound && same && features.iter().all(described)
        });
        Ok(Self { cache, plan, plan_digest, features, missing, manifest })
    }

    /// Whether there is nothing to do.
    pub fn is_fresh(&self) -> bool {
        self.missing.is_empty() && self.manifest.is_some()
    }

    /// Shard files that are missing.
    pub fn missing_shards(&self) -> usize {
        self.missing.values().map(Vec::len).sum()
    }

    /// Shard files that the features asked for have in all.
    pub fn shards(&self) -> usize {
        self.features.len() * self.plan.shards().iter().filter(|images| !images.is_empty()).count()
    }

    fn missing_bytes(&self, dtype: Dtype) -> u64 {
        let values = |(shard, sources): (&usize, &Vec<Source>)| {
            let per_image: usize = sources.iter().map(|source| source.values_per_image()).sum();
            self.plan.shards()[*shard].len() * per_image
        };
        (self.missing.iter().map(values).sum::<usize>() * dtype.size_bytes()) as u64
    }
}

/// The images of `dataset` as a plan sees them.
pub(crate) fn with_images<T>(dataset: &Dataset, look: impl FnOnce(Images<'_>) -> T) -> T {
    let image = |index: usize| {
        let ImageRecord { id, split, hash, .. } = &dataset.images[index];
        PlannedImage { id, train: *split == Split::Train, hash: *hash }
    };
    look(Images { count: dataset.images.len(), image: &image })
}

/// Another data set under the same name would make all of this cache's images disappear from the plan.
fn refuse_to_destroy(before: &Plan, plan: &Plan, context: &Context, cache: &Path) -> Result<()> {
    let ids: HashSet<&str> = plan.shards().iter().flat_map(PlannedShard::images).map(|image| image.id).collect();
    let kept = before.shards().iter().flat_map(PlannedShard::images).filter(|image| ids.contains(image.id)).count();
    if before.images() > 0 && kept * 2 < before.images() {
        bail!(
            "`{}` holds features of {} images, of which `{}` has only {kept}: another data set of the same name?\n\n\
             hint: give it a folder of another name, set another cache.dir, or remove the old features",
            cache.display(),
            before.images(),
            context.study.data.dir.display(),
        );
    }
    Ok(())
}

/// A shard that is there, made of the planned `images`, and unchanged since its hash was taken: what the manifest `known`
/// says of it, which spares reading its record, or else the record.
fn complete_shard(
    context: &Context,
    cache: &Path,
    images: &ContentHash,
    known: Option<&ShardEntry>,
    source: Source,
    shard: usize,
) -> Option<ShardEntry> {
    let path = shard_path(cache, source, shard);
    let verify = |entry: &ShardEntry| entry.verify(&path, |path| context.memo.hash_file(path));
    let record = record_path(cache, source, shard);
    // That a record is sound is remembered like any file's hash.
    let known = known.filter(|entry| entry.images_digest == *images && context.memo.known(&record).is_some());
    if let Some(entry) = known.filter(|entry| verify(entry).is_ok()) {
        return Some(entry.clone());
    }
    let entry = ShardRecord::read(cache, source, shard)?.shard;
    if entry.images_digest != *images {
        return None;
    }
    context.memo.hash_file(&record).ok()?;
    match verify(&entry) {
        Ok(()) => Some(entry),
        Err(error) => {
            warn_once(error.to_string());
            None
        }
    }
}

/// Computes what is missing of each view and writes the manifests. With data.skip_bad, images that turn out undecodable are
/// left out of `context`.
pub fn run(context: &mut Context) -> Result<ExtractionReport> {
    context.write_audit()?;
    let weights = context.weights()?;
    Inputs::record(context)?;
    if context.study.extract.precision == Precision::Int8 {
        calibration::ensure(context, &weights)?;
    }
    let mut whole: Option<ExtractionReport> = None;
    for view in context.study.extract.views.each() {
        let report = run_view(context, &weights, *view)?;
        whole = Some(match whole {
            None => report,
            Some(before) => before.and(report),
        });
    }
    let whole = whole.context("there is no view to extract")?;
    // Behind the pass, which says of images if they cannot be decoded. Where there was none it is for who needs them to look for copies.
    let is_damaged = matches!(check_seal(&context.paths.copies()), Err(SealError::Damaged { .. }));
    let is_due = whole.engine.is_some() || is_damaged;
    let copies = if is_due { Some(Copies::find(context)?) } else { Copies::known(context) };
    Ok(match copies {
        Some(found) => {
            ExtractionReport { copies: found.counts().to_vec(), raised_likeness: found.raised_likeness(), ..whole }
        }
        None => whole,
    })
}

fn run_view(context: &mut Context, weights: &Weights, view: View) -> Result<ExtractionReport> {
    let mut extraction = Extraction::plan_with(context, weights, view)?;
    if extraction.is_fresh() {
        return Ok(report(context, &extraction, None));
    }
    let _lock = Lock::acquire(&extraction.cache.folder)?;
    // Another process may have written here since; nobody does from now on.
    extraction = Extraction::plan_with(context, weights, view)?;
    if extraction.is_fresh() {
        return Ok(report(context, &extraction, None));
    }
    check_free_disk(context, &extraction)?;

    let begun = Instant::now();
    let backbone = extraction.cache.backbone(context, weights)?;
    tracing::info!("backbone: {backbone}; view {view}");
    let mut pass = Pass::default();
    loop {
        extraction.plan.write(&extraction.cache.folder)?;
        let images: usize = extraction.missing.keys().map(|shard| extraction.plan.shards()[*shard].len()).sum();
        let bar = progress::bar(context.show_progress, images as u64, "extract", "images");
        let passed = feature_pass::run(context, &extraction, &backbone, &bar, &mut pass);
        bar.finish_and_clear();
        context.memo.save()?;
        match passed {
            Ok(()) => break,
            Err(PassError::Image { index, error }) => {
                context.leave_out(index, error)?;
                extraction = Extraction::plan_with(context, weights, view)?;
            }
            Err(PassError::Other(error)) => return Err(error),
        }
    }
    remove_superfluous(&extraction)?;
    write_manifest(context, &mut extraction)?;
    let computed = Computed { pass, wall_s: begun.elapsed().as_secs_f64(), engine: backbone.to_string() };
    Ok(report(context, &extraction, Some(computed)))
}

impl ExtractionReport {
    /// This view and another.
    fn and(self, other: Self) -> Self {
        Self {
            images_computed: self.images_computed + other.images_computed,
            shards_written: self.shards_written + other.shards_written,
            shards: self.shards + other.shards,
            size_bytes: self.size_bytes + other.size_bytes,
            wall_s: self.wall_s + other.wall_s,
            waited: self.waited.and(other.waited),
            engine: self.engine.or(other.engine),
            skipped: other.skipped,
            ..self
        }
    }
}

/// What was computed just now.
struct Computed {
    pass: Pass,
    wall_s: f64,
    engine: String,
}

fn report(context: &Context, extraction: &Extraction, computed: Option<Computed>) -> ExtractionReport {
    let entries = extraction.manifest.iter().flat_map(|manifest| &manifest.features);
    let entries = entries.filter(|(source, _)| extraction.features.contains(source));
    let pass = computed.as_ref().map(|computed| &computed.pass);
    ExtractionReport {
        cache: extraction.cache.folder.clone(),
        features: extraction.features.clone(),
        images: extraction.plan.images(),
        images_computed: pass.map_or(0, |pass| pass.images),
        shards_written: pass.map_or(0, |pass| pass.shards),
        shards: extraction.shards(),
        size_bytes: entries.flat_map(|(_, entry)| entry.shards.values()).map(|shard| shard.size_bytes).sum(),
        wall_s: computed.as_ref().map_or(0.0, |computed| computed.wall_s),
        waited: pass.map_or_else(Waited::default, |pass| pass.waited),
        engine: computed.map(|computed| computed.engine),
        skipped: context.dataset.audit.skipped.iter().map(ToString::to_string).collect(),
        copies: Vec::new(),
        raised_likeness: None,
    }
}

fn check_free_disk(context: &Context, extraction: &Extraction) -> Result<()> {
    /// Room for records, the manifest and runs.
    const SPARE_BYTES: u64 = 64 << 20;
    let needed = extraction.missing_bytes(context.study.extract.dtype);
    let free = fs4::available_space(&extraction.cache.folder)
        .with_context(|| format!("cannot ask for the free space at `{}`", extraction.cache.folder.display()))?;
    let shards = counted(extraction.missing_shards(), "shard");
    tracing::info!("{shards} to write, {}; {} are free", size(needed), size(free));
    if needed + SPARE_BYTES > free {
        bail!(
            "the features need {} and {} to spare, `{}` has {} free\n\n\
             hint: extract fewer features (extract.features=fm3+fm4), fewer images (extract.limit=1000), \
             or set cache.dir to another disk",
            size(needed),
            size(SPARE_BYTES),
            extraction.cache.folder.display(),
            size(free),
        );
    }
    Ok(())
}

/// Bytes in a unit that fits.
fn size(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes < 1e9 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.2} GB", bytes / 1e9),
    }
}

/// Files of shards whose images have all gone.
fn remove_superfluous(extraction: &Extraction) -> Result<()> {
    for source in Source::FEATURE_MAPS {
        for (shard, images) in extraction.plan.shards().iter().enumerate() {
            let folder = &extraction.cache.folder;
            for path in [record_path(folder, source, shard), shard_path(folder, source, shard)] {
                if images.is_empty() && path.exists() {
                    fs_err::remove_file(path)?;
                }
            }
        }
    }
    Ok(())
}

fn write_manifest(context: &Context, extraction: &mut Extraction) -> Result<()> {
    let (cache, plan) = (&extraction.cache, &extraction.plan);
    let mut features = BTreeMap::new();
    // Also those not asked for this time, if they are complete.
    for source in Source::FEATURE_MAPS {
        let mut sums = ChannelSums::new(source.channels());
        let mut entries = BTreeMap::new();
        for (shard, images) in plan.shards().iter().enumerate().filter(|(_, images)| !images.is_empty()) {
            match ShardRecord::read(&cache.folder, source, shard) {
                Some(record) if record.shard.images_digest == images.digest() => {
                    sums.merge(&record.sums);
                    entries.insert(shard, record.shard);
                }
                _ => break,
            }
        }
        if entries.values().map(|entry| entry.images).sum::<usize>() == plan.images() {
            let shape = [source.side(), source.side(), source.channels()];
            features.insert(source, FeatureEntry { shape, moments: sums.moments(), shards: entries });
        }
    }
    let manifest = Manifest {
        format: FORMAT_VERSION,
        fingerprint: cache.fingerprint.clone(),
        calibration: cache.calibration.as_ref().map(serde_json::to_value).transpose()?,
        dtype: context.study.extract.dtype,
        layout: "NHWC".to_owned(),
        features,
        orig: orig_moments(context, plan)?,
        plan: extraction.plan_digest,
    };
    manifest.write(&cache.folder)?;
    extraction.manifest = Some(manifest);
    Ok(())
}

/// Moments of the grey values of the cached training images.
fn orig_moments(context: &Context, plan: &Plan) -> Result<Moments> {
    let places = with_images(&context.dataset, |all| plan.places(all));
    let images = &context.dataset.images;
    let train: Vec<usize> =
        (0..images.len()).filter(|index| images[*index].split == Split::Train && places[*index].is_some()).collect();
    let sums: Vec<Result<ChannelSums, DatasetError>> = train
        .par_chunks(512)
        .map(|chunk| {
            let (mut sums, mut row_sums) = (ChannelSums::new(1), Vec::new());
            for index in chunk {
                let pixels = context.dataset.decode(*index)?;
                for row in feature_pass::grey(&pixels).chunks(pixels.width) {
                    sums.add_row(row, &mut row_sums);
                }
            }
            Ok(sums)
        })
        .collect();
    let mut all = ChannelSums::new(1);
    for sums in sums {
        all.merge(&sums?);
    }
    Ok(all.moments())
}
