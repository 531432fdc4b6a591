//! The backbone pass: images per second of our engine and of PyTorch's variants, taking turns.

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};
use backbone::{Backbone, Engine, FeatureBatch, Weights, preprocess::resize};
use candle_core::Device;
use comfy_table::Table;
use demo::{Expression, FACE_SIZE_PX, SplitCounts};
use kernels::Isa;
use pipeline::{Context, extraction};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::Value;
use sources::Source;
use study::Study;
use tempfile::TempDir;

use crate::{ExtractArguments, median, peak::peak_gflops, peer::Peer};

const PEER: &str = include_str!("../peers/pytorch_extract.py");

/// Operations of one image at 224×224 up to FM4, a multiply-add counted as two.
const IMAGE_GFLOP: f64 = 3.63;

/// Images whose feature maps are compared with candle's.
const COMPARED_IMAGES: usize = 4;

/// Images that 8-bit integers are calibrated on.
const CALIBRATION_IMAGES: usize = 48;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    isa: String,
    threads: usize,
    batch: usize,
    peak_gflops: f64,
    /// Share of that peak at our rate, counting the operations of a direct convolution.
    share_of_peak: f64,
    peer_versions: Option<Value>,
    /// Why there is no peer.
    peer_missing: Option<String>,
    f32: Precision,
    bf16: Precision,
    /// Ours in 8-bit integers beside the peer's bf16: PyTorch has no static quantisation of taps that a user would write.
    int8: Precision,
    /// Images per second from files to shards, and its share of the bare engine's.
    end_to_end: Option<f64>,
    end_to_end_share: Option<f64>,
}

/// One precision: rates in images per second.
#[derive(Debug, Serialize)]
struct Precision {
    ours: f64,
    /// The fastest of the peer's variants.
    peer: Option<f64>,
    ratio: Option<f64>,
    /// Relative L2 difference to candle's convolutions, per feature map.
    error: BTreeMap<String, f64>,
    peer_variants: BTreeMap<String, f64>,
}

/// A file of weights, kept as long as this is.
pub struct WeightsFile {
    pub path: PathBuf,
    _folder: Option<TempDir>,
}

/// The weights that the arguments name, or seeded ones.
pub fn weights(arguments: &ExtractArguments) -> Result<WeightsFile> {
    if let Some(path) = &arguments.weights {
        return Ok(WeightsFile { path: path.clone(), _folder: None });
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("resnet18.safetensors");
    demo::write_weights(&path, 0, &faces(8))?;
    Ok(WeightsFile { path, _folder: Some(folder) })
}

/// Drawn faces.
pub fn faces(count: usize) -> Vec<Vec<u8>> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    (0..count).map(|i| demo::draw(Expression::ALL[i % Expression::ALL.len()], &mut random)).collect()
}

pub fn measure(arguments: &ExtractArguments) -> Result<Measured> {
    let weights_file = weights(arguments)?;
    let weights = Weights::read(&weights_file.path)?;
    let isa = Isa::choose()?;
    let faces = |count| -> Result<Vec<Vec<f32>>> {
        let resize = |face: &Vec<u8>| Ok(resize(face, FACE_SIZE_PX, FACE_SIZE_PX, 1)?);
        faces(count).iter().map(resize).collect()
    };
    let images = faces(arguments.batch)?;
    let calibration = Backbone::calibrate(&weights, &faces(CALIBRATION_IMAGES)?)?;
    let engines =
        [Backbone::native(&weights, isa)?, Backbone::bf16(&weights)?, Backbone::quantised(&weights, &calibration)?];
    let mut maps = FeatureBatch::default();
    let mut ours = |backbone: &Backbone| -> Result<f64> {
        let begun = Instant::now();
        backbone.feature_maps_into(&images, &Source::FEATURE_MAPS, &mut maps)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let mut errors: Vec<BTreeMap<String, f64>> =
        engines.iter().map(|backbone| error(backbone, &weights, &images)).collect::<Result<_>>()?;
    let (mut peer, variants, peer_missing) = match start_peer(arguments) {
        Ok((peer, variants)) => (Some(peer), variants, None),
        Err(error) => (None, Vec::new(), Some(format!("{error:#}"))),
    };
    let peer_versions = peer.as_mut().map(|peer| peer.ask("versions")).transpose()?;

    for engine in &engines {
        ours(engine)?;
    }
    let mut our_seconds = vec![Vec::new(); engines.len()];
    let mut peer_seconds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..arguments.runs {
        for (engine, seconds) in engines.iter().zip(&mut our_seconds) {
            seconds.push(ours(engine)?);
        }
        if let Some(peer) = &mut peer {
            for variant in &variants {
                peer_seconds.entry(variant).or_default().push(peer.ask(&format!("time {variant}"))?);
            }
        }
    }
    drop(peer);
    let rate = |seconds: Vec<f64>| arguments.batch as f64 / median(seconds);
    let peer_rates: BTreeMap<&str, f64> =
        peer_seconds.into_iter().map(|(variant, seconds)| (variant, rate(seconds))).collect();
    let mut measured = |peer: &str| {
        let variants = peer_rates.iter().filter(|(variant, _)| variant.starts_with(peer));
        let peer_variants: BTreeMap<String, f64> = variants.map(|(name, rate)| ((*name).to_owned(), *rate)).collect();
        let (ours, best) = (rate(our_seconds.remove(0)), peer_variants.values().copied().reduce(f64::max));
        Precision { ours, peer: best, ratio: best.map(|best| ours / best), error: errors.remove(0), peer_variants }
    };
    let (f32, bf16, int8) = (measured("f32"), measured("bf16"), measured("bf16"));

    let end_to_end = match arguments.end_to_end_images {
        0 => None,
        images => Some(end_to_end(&weights_file, images, arguments.batch)?),
    };
    let peak = peak_gflops(isa, arguments.threads);
    Ok(Measured {
        isa: isa.to_string(),
        threads: arguments.threads,
        batch: arguments.batch,
        peak_gflops: peak,
        share_of_peak: f32.ours * IMAGE_GFLOP / peak,
        peer_versions,
        peer_missing,
        end_to_end,
        end_to_end_share: end_to_end.map(|rate| rate / f32.ours),
        f32,
        bf16,
        int8,
    })
}

fn start_peer(arguments: &ExtractArguments) -> Result<(Peer, Vec<&'static str>)> {
    let mut peer = Peer::start(&arguments.python, PEER, &[arguments.threads, arguments.batch].map(|n| n.to_string()))?;
    let mut variants = vec!["f32-nchw", "f32-nhwc", "bf16-nhwc"];
    if !arguments.no_compile {
        variants.extend(["f32-nhwc-compiled", "bf16-nhwc-compiled"]);
    }
    for variant in &variants {
        let () = peer.ask(&format!("warm {variant}"))?;
    }
    Ok((peer, variants))
}

fn error(backbone: &Backbone, weights: &Weights, images: &[Vec<f32>]) -> Result<BTreeMap<String, f64>> {
    let images = &images[..images.len().min(COMPARED_IMAGES)];
    let reference = Backbone::new(weights, Engine::Candle, &Device::Cpu)?;
    let (ours, theirs) = (
        backbone.feature_maps(images, &Source::FEATURE_MAPS)?.maps,
        reference.feature_maps(images, &Source::FEATURE_MAPS)?.maps,
    );
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    Ok(ours
        .iter()
        .zip(&theirs)
        .map(|((source, a), (_, b))| {
            let apart = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
            (source.to_string(), apart / norm(&mut b.iter().map(|b| f64::from(*b))))
        })
        .collect())
}

/// Images per second of the whole pass: decode, resize, compute, convert, hash, write.
fn end_to_end(weights: &WeightsFile, images: usize, batch: usize) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let counts = SplitCounts { train: images - 2, valid: 1, test: 1 };
    demo::write_faces(&path("faces"), 0, counts)?;
    fs_err::write(path("study.toml"), "")?;
    let overrides = [
        format!("data.dir={}", path("faces").display()),
        format!("cache.dir={}", path("cache").display()),
        format!("extract.weights={}", weights.path.display()),
        format!("extract.batch={batch}"),
        "device=cpu".to_owned(),
    ];
    let study = Study::load(&path("study.toml"), &overrides)?;
    let report = extraction::run(&mut Context::open(study, false)?).context("extraction")?;
    Ok(report.images_computed as f64 / report.wall_s)
}

pub fn table(measured: &Measured) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(["", "images/s", "ours against it"]);
    for (name, precision) in [("f32", &measured.f32), ("bf16", &measured.bf16), ("int8", &measured.int8)] {
        table.add_row([format!("ours, {name}"), format!("{:.1}", precision.ours), String::new()]);
        for (variant, rate) in &precision.peer_variants {
            let ratio = format!("{:.2}×", precision.ours / rate);
            table.add_row([format!("PyTorch, {variant}"), format!("{rate:.1}"), ratio]);
        }
    }
    if let (Some(rate), Some(share)) = (measured.end_to_end, measured.end_to_end_share) {
        table.add_row([
            "ours, f32, files to shards".to_owned(),
            format!("{rate:.1}"),
            format!("{:.0}% of the bare engine", 100.0 * share),
        ]);
    }
    let errors = |precision: &Precision| {
        let errors = precision.error.iter().map(|(source, error)| format!("{source} {error:.1e}"));
        errors.collect::<Vec<_>>().join(", ")
    };
    let missing =
        measured.peer_missing.as_ref().map_or_else(String::new, |reason| format!("\nPyTorch was left out: {reason}"));
    format!(
        "{table}\n{} on {} threads, batch {}; {:.0}% of the peak of {:.0} GFLOP/s; relative error, f32: {}; bf16: {}; int8: {}{missing}",
        measured.isa,
        measured.threads,
        measured.batch,
        100.0 * measured.share_of_peak,
        measured.peak_gflops,
        errors(&measured.f32),
        errors(&measured.bf16),
        errors(&measured.int8),
    )
}
