//! Which folder holds the features of the current configuration.

use std::path::PathBuf;

use anyhow::{Result, bail};
use backbone::{Backbone, Calibration, Engine, NUMERICS_VERSION, Precision, View, Weights, preprocess};
use shards::Plan;
use stage::Fingerprint;
use study::{Paths, Study};

use crate::{Context, calibration};

/// A feature cache: where it lies and what its contents depend on besides the images.
#[derive(Clone, Debug)]
pub struct FeatureCache {
    /// Its folder.
    pub folder: PathBuf,
    /// What runs the network; never [`Engine::Auto`].
    pub engine: Engine,
    /// What the network multiplies.
    pub precision: Precision,
    /// How the images are looked at.
    pub view: View,
    /// What integers stand for; none before they have been calibrated.
    pub calibration: Option<Calibration>,
    /// Everything that a feature's values depend on besides the images.
    pub fingerprint: Fingerprint,
}

impl FeatureCache {
    /// The cache of the current configuration, there or not. If the engine is left open, the features that are there
    /// decide: what a GPU extracted can be trained from on a machine without one.
    pub(crate) fn find(study: &Study, paths: &Paths, weights: &Weights, view: View) -> Result<Self> {
        let extract = &study.extract;
        match (extract.engine, extract.precision) {
            (Engine::Candle, Precision::F32)
            | (Engine::Cudnn, Precision::F32 | Precision::Bf16)
            | (Engine::Native, _) => Self::of(study, paths, weights, extract.engine, view),
            (Engine::Candle, Precision::Bf16) if !study.device.open()?.is_cpu() => {
                Self::of(study, paths, weights, Engine::Candle, view)
            }
            (Engine::Auto, Precision::Int8) => Self::of(study, paths, weights, Engine::Native, view),
            (Engine::Candle, precision) => bail!(
                "extract.engine = candle computes in f32, and on GPUs in bf16, not in {precision}\n\n\
                 hint: leave extract.engine = auto, or set extract.precision = f32"
            ),
            (Engine::Cudnn, precision) => bail!(
                "extract.engine = cudnn computes in f32 and bf16, not in {precision}\n\n\
                 hint: leave extract.engine = auto, or set extract.precision = bf16"
            ),
            (Engine::Auto, Precision::F32 | Precision::Bf16) => {
                let usual = Engine::of(&study.device.open()?);
                // One engine for all views: that of the images as they are.
                let exists = |engine| {
                    let plain = Self::of(study, paths, weights, engine, View::Plain)?;
                    Ok::<_, anyhow::Error>(plain.folder.join(Plan::FILE).is_file())
                };
                for engine in [usual, Engine::Native, Engine::Cudnn, Engine::Candle] {
                    if exists(engine)? {
                        return Self::of(study, paths, weights, engine, view);
                    }
                }
                Self::of(study, paths, weights, usual, view)
            }
        }
    }

    /// Engines and precisions round differently, so that each has caches of its own.
    fn of(study: &Study, paths: &Paths, weights: &Weights, engine: Engine, view: View) -> Result<Self> {
        let extract = &study.extract;
        let precision = extract.precision;
        let calibration = match precision {
            Precision::F32 | Precision::Bf16 => None,
            Precision::Int8 => calibration::read(paths, weights)?,
        };
        let mut fingerprint = Fingerprint::default();
        fingerprint.set("extract.weights", weights.content_hash());
        fingerprint.set("extract.engine", engine);
        fingerprint.set("extract.precision", precision);
        if precision == Precision::Int8 {
            let hash = calibration.as_ref().map(calibration::hash).transpose()?;
            fingerprint.set("extract.calibration", hash.map_or_else(|| "none".to_owned(), |hash| hash.to_string()));
        }
        // Set for other views only, so that caches from before there were any stay what they are.
        if view != View::Plain {
            fingerprint.set("extract.view", view);
        }
        fingerprint.set("extract.dtype", extract.dtype);
        fingerprint.set("extract.image_side", preprocess::IMAGE_SIDE);
        fingerprint.set("extract.numerics", NUMERICS_VERSION);
        let folder = paths.features(extract.dtype, &fingerprint.digest());
        Ok(Self { folder, engine, precision, view, calibration, fingerprint })
    }

    /// The network that fills it. The native engine runs on the CPU, whatever the device, in other precisions than f32.
    pub(crate) fn backbone(&self, context: &Context, weights: &Weights) -> Result<Backbone> {
        Ok(match (self.precision, &self.calibration) {
            (Precision::F32, _) => Backbone::new(weights, self.engine, &context.study.device.open()?)?,
            (Precision::Bf16, _) if self.engine == Engine::Cudnn => {
                Backbone::bf16_on_cudnn(weights, &context.study.device.open()?, true)?
            }
            (Precision::Bf16, _) if self.engine == Engine::Candle => {
                Backbone::bf16_on(weights, &context.study.device.open()?)?
            }
            (Precision::Bf16, _) => Backbone::bf16(weights)?,
            (Precision::Int8, Some(calibration)) => Backbone::quantised(weights, calibration)?,
            (Precision::Int8, None) => bail!("the calibration is gone; run the command again"),
        })
    }

    /// The network that fills it, or where that needs a GPU that is not there, one that differs from it in rounding only: for single
    /// images, which are stored nowhere.
    pub(crate) fn backbone_here(&self, context: &Context, weights: &Weights) -> Result<Backbone> {
        let device = context.study.device.open()?;
        match self.precision {
            Precision::F32 | Precision::Bf16 if device.is_cpu() && self.engine == Engine::Cudnn => {
                let near = Self { engine: Engine::Native, ..self.clone() };
                near.backbone(context, weights)
            }
            _ => self.backbone(context, weights),
        }
    }
}
