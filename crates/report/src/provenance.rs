//! Where the report's numbers come from.

use anyhow::Result;
use pipeline::Context;
use statistics::MeanInterval;
use sysinfo::System;

use crate::{
    results::{Measure, Results},
    tables::{Table, absent},
};

/// What the build script found out.
mod built_info {
    include!(concat!(env!("OUT_DIR"), "/built.rs"));
}

/// The libraries on which numbers depend: decoding, resizing, drawing at random, networks, files, statistics.
const LIBRARIES: [&str; 12] = [
    "candle-core",
    "candle-nn",
    "fast_image_resize",
    "half",
    "hf-hub",
    "image",
    "ndarray-npy",
    "rand",
    "rand_chacha",
    "rayon",
    "safetensors",
    "statrs",
];

/// Everything that somebody needs who wants the same numbers.
#[derive(Debug)]
pub struct Provenance {
    /// Name of the data set.
    pub data_set: String,
    /// What the study is, in a few words each.
    pub facts: Vec<(&'static str, String)>,
    /// What the program is made of.
    pub program: Vec<(&'static str, String)>,
    /// What it ran on.
    pub machine: Vec<(&'static str, String)>,
    /// The resolved configuration as TOML.
    pub configuration: String,
    /// The data audit.
    pub audit: String,
    /// Every run with its fingerprint, time and files.
    pub runs: Table,
    /// What makes the report again.
    pub command: String,
    /// Of this program.
    pub version: &'static str,
}

impl Provenance {
    pub(crate) fn of(context: &Context, results: &Results, command: &str) -> Result<Self> {
        let study = &context.study;
        let seconds: Vec<f64> = results.runs().map(|answered| answered.run.trained.outcome.wall_s).collect();
        let mut seeds: Vec<u64> = results.runs().map(|answered| answered.run.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let images = results.runs().next().map(|answered| {
            let evaluation = &answered.run.evaluation;
            [&evaluation.train, &evaluation.valid, &evaluation.test]
                .map(|scores| scores.overall.images.to_string())
                .join(" / ")
        });
        let recipe = &study.recipe;
        let facts = vec![
            ("runs", results.runs().count().to_string()),
            ("combinations", results.evaluated().count().to_string()),
            (
                "seeds",
                format!("{} ({})", seeds.len(), seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            ),
            ("training", format!("{} steps of {} images", recipe.steps, recipe.batch)),
            ("recipe, learning rate", format!("{}, {}", recipe.name, recipe.lr)),
            (
                "model: width, depth, heads",
                format!("{}, {}, {}", study.model.width, study.model.depth, study.model.heads),
            ),
            ("classes, labels", format!("{}, {}", study.data.classes, study.data.labels)),
            ("images: train / valid / test", images.unwrap_or_default()),
        ];
        Ok(Self {
            data_set: context
                .paths
                .data_set()
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            facts,
            program: program(),
            machine: machine(&seconds),
            configuration: toml::to_string(study)?,
            audit: context.dataset.audit.to_string(),
            runs: runs(results),
            command: command.to_owned(),
            version: built_info::PKG_VERSION,
        })
    }
}

fn program() -> Vec<(&'static str, String)> {
    let version = |library: &&str| {
        let (name, version) = built_info::DEPENDENCIES.iter().find(|(name, _)| name == library)?;
        Some(format!("{name} {version}"))
    };
    let libraries: Vec<String> = LIBRARIES.iter().filter_map(version).collect();
    vec![
        (
            "program",
            format!("fmstudy {}, {} build for {}", built_info::PKG_VERSION, built_info::PROFILE, built_info::TARGET),
        ),
        ("compiler", built_info::RUSTC_VERSION.to_owned()),
        ("libraries", libraries.join(", ")),
    ]
}

fn machine(seconds: &[f64]) -> Vec<(&'static str, String)> {
    const GIB: f64 = (1_u64 << 30) as f64;
    let mut facts = Vec::new();
    if let Ok(mut system) = System::new() {
        system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
        system.refresh_memory();
        let name = system.cpus().first().map_or("", |cpu| cpu.brand()).trim();
        facts.push(("report made on", format!("{name}, {} threads", system.cpus().len())));
        facts.push(("memory", format!("{:.0} GiB", system.total_memory() as f64 / GIB)));
    }
    facts.extend(System::long_os_version().ok().map(|version| ("system", version)));
    if let Some(mean) = MeanInterval::of(seconds) {
        let hours = seconds.iter().sum::<f64>() / 3600.0;
        facts.push(("training", format!("{hours:.1} h in all, {:.0} s a run", mean.mean)));
    }
    facts
}

fn runs(results: &Results) -> Table {
    let mut columns = vec!["inputs", "seed"];
    let measures = Measure::ALL.map(|measure| format!("{} %", measure.title()));
    columns.extend(measures.iter().map(String::as_str));
    columns.extend(["ECE %", "final loss", "s", "collapsed", "model (BLAKE3)", "folder"]);
    let rows = results.runs().map(|answered| {
        let (run, outcome) = (&answered.run, &answered.run.trained.outcome);
        let mut row = vec![run.combination.to_string(), run.seed.to_string()];
        row.extend(Measure::ALL.into_iter().map(|measure| countable_percent(measure.of(answered))));
        row.extend([
            countable_percent(answered.calibration_error()),
            format!("{:.3}", outcome.final_loss),
            format!("{:.0}", outcome.wall_s),
            if outcome.collapsed { "yes" } else { "no" }.to_owned(),
            run.trained.model.short(),
            run.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        ]);
        row
    });
    Table::new("runs", "All runs", &columns, rows.collect())
}

/// A share in percent with decimals enough to tell one image of 100,000, so that the other tables can be computed from it.
fn countable_percent(share: Option<f64>) -> String {
    share.map_or_else(absent, |share| format!("{:.3}", 100.0 * share))
}
