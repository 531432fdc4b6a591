//! How every stage and run of the current configuration stands.

use anyhow::Result;
use serde::Serialize;
use sources::Combination;
use stage::Freshness;

use crate::{Context, evaluation, examples::Examples, extraction::Extraction, features::Features, runs, summary};

/// The whole study's state.
#[derive(Debug, Serialize)]
pub struct StudyStatus {
    /// The backbone pass.
    pub extract: Freshness,
    /// Every run asked for.
    pub runs: Vec<RunStatus>,
    /// Why runs, or the rest of them, cannot be judged; none when they can.
    pub blocked: Option<String>,
    /// The study's variants.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<VariantStatus>,
}

/// A variant's state.
#[derive(Debug, Serialize)]
pub struct VariantStatus {
    /// Its overrides.
    pub variant: String,
    /// How it stands.
    #[serde(flatten)]
    pub status: StudyStatus,
}

/// A run's state.
#[derive(Debug, Serialize)]
pub struct RunStatus {
    /// Its inputs.
    pub combination: Combination,
    /// Its seed.
    pub seed: u64,
    /// Its training.
    pub train: Freshness,
    /// Its evaluation.
    pub eval: Freshness,
}

/// Looks at everything, computes nothing. Variants are for the caller to add.
pub fn status(context: &Context) -> Result<StudyStatus> {
    let examples = || {
        let examples = Examples::new(context);
        // What the runs' folders are named after.
        examples.digests(context);
        examples
    };
    let (extractions, examples) = rayon::join(|| Extraction::plan_all(context), examples);
    let extractions = extractions?;
    let extract = extract_freshness(&extractions);
    let features = match Features::of_extractions(context, &examples, extractions) {
        Ok(features) => features,
        Err(error) => {
            return Ok(StudyStatus {
                extract,
                runs: Vec::new(),
                blocked: Some(summary::without_hint(&error.to_string())),
                variants: Vec::new(),
            });
        }
    };
    let requested = runs::requested(context, &features, &examples)?;
    let blocked = (!requested.missing.is_empty()).then(|| summary::without_hint(&requested.complaint()));
    let runs = requested
        .runs
        .into_iter()
        .map(|run| RunStatus {
            combination: run.combination,
            seed: run.seed,
            train: run.freshness(&context.memo, context.study.recipe.steps),
            eval: evaluation::freshness(context, &examples, &run),
        })
        .collect();
    Ok(StudyStatus { extract, runs, blocked, variants: Vec::new() })
}

/// Of all views together.
fn extract_freshness(views: &[Extraction]) -> Freshness {
    let sum = |of: fn(&Extraction) -> usize| views.iter().map(of).sum::<usize>() as u64;
    let (missing, total) = (sum(Extraction::missing_shards), sum(Extraction::shards));
    match (views.iter().all(Extraction::is_fresh), missing == total) {
        (true, _) => Freshness::Fresh,
        (false, true) => Freshness::Missing,
        (false, false) => Freshness::Partial { done: total - missing, total, unit: "shards".into() },
    }
}
