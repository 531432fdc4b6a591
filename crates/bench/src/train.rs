//! The training step: seconds per step of ours, fed from a cache and from memory, and of PyTorch's variants, taking
//! turns.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result};
use candle_core::{DType, Device};
use comfy_table::Table;
use demo::SplitCounts;
use half::f16;
use kernels::{Isa, Patches, Standardise};
use pipeline::{Context, extraction, training};
use serde::Serialize;
use serde_json::Value;
use sources::{Combination, Source};
use study::Study;
use tempfile::TempDir;
use vit::{About, Batch, Draws, Input, Model, ModelConfig, Precision, Recipe, Tokens, Trainer};

use crate::{TrainArguments, median, peak::peak_gflops, peer::Peer};

const PEER: &str = include_str!("../peers/pytorch_train.py");

const CLASSES: usize = 6;

/// Steps of ours in a turn, and how many of the first are left out: files are opened and memory is taken in them.
const STEPS_PER_TURN: usize = 32;
const WARM_UP_STEPS: usize = 8;

/// Steps of each of PyTorch's variants in a turn.
const PEER_STEPS_PER_TURN: usize = 4;

/// A model and its inputs.
struct Case {
    combination: &'static str,
    width: usize,
    depth: usize,
    heads: usize,
}

const CASES: [Case; 3] = [
    Case { combination: "fm2", width: 64, depth: 4, heads: 2 },
    Case { combination: "fm2", width: 192, depth: 6, heads: 3 },
    Case { combination: "fm1+fm2+fm3+fm4", width: 192, depth: 6, heads: 3 },
];

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    isa: String,
    threads: usize,
    batch: usize,
    peak_gflops: f64,
    peer_versions: Option<Value>,
    /// Why there is no peer.
    peer_missing: Option<String>,
    rows: Vec<Row>,
}

/// One model on one set of inputs in one precision. Times are medians in seconds per step.
#[derive(Debug, Serialize)]
struct Row {
    combination: String,
    width: usize,
    depth: usize,
    heads: usize,
    precision: Precision,
    /// Fed from the cache, everything included.
    ours: f64,
    /// The fastest of the peer's variants in the same precision, its data in memory.
    peer: Option<f64>,
    ratio: Option<f64>,
    /// The same for the fastest of all its variants.
    fastest_peer: Option<f64>,
    fastest_ratio: Option<f64>,
    /// The same step on one batch in memory.
    in_memory: f64,
    /// How fast the step is when it is fed from the cache, against that.
    from_cache: f64,
    /// Operations of the matrix products of a step.
    gflop: f64,
    /// Share of the peak of 32-bit floats that they reach in the step from memory.
    share_of_f32_peak: f64,
    peer_variants: BTreeMap<String, f64>,
}

pub fn measure(arguments: &TrainArguments) -> Result<Measured> {
    let folder = tempfile::tempdir()?;
    write_cache(&folder, arguments.images)?;
    let isa = Isa::choose()?;
    let peak = peak_gflops(isa, arguments.threads);
    let mut measured = Measured {
        isa: isa.to_string(),
        threads: arguments.threads,
        batch: arguments.batch,
        peak_gflops: peak,
        peer_versions: None,
        peer_missing: None,
        rows: Vec::new(),
    };
    for case in CASES.iter().take(arguments.models) {
        let (mut peer, variants) = match start_peer(arguments, case) {
            Ok((mut peer, variants)) => {
                measured.peer_versions = Some(peer.ask("versions")?);
                (Some(peer), variants)
            }
            Err(error) => {
                measured.peer_missing = Some(format!("{error:#}"));
                (None, Vec::new())
            }
        };
        let ours = |precision: &Precision| Ours::new(case, arguments.batch, *precision);
        let mut ours = Precision::ALL.iter().map(ours).collect::<Result<Vec<_>>>()?;
        let mut theirs = BTreeMap::<_, Vec<f64>>::new();
        for turn in 0..arguments.runs {
            for ours in &mut ours {
                ours.from_cache.extend(from_cache(&folder, case, ours.precision, arguments.batch, turn)?);
                for step in 0..STEPS_PER_TURN {
                    let seconds = ours.memory.step()?;
                    if step >= WARM_UP_STEPS {
                        ours.in_memory.push(seconds);
                    }
                }
            }
            for variant in variants.iter().copied().cycle().take(variants.len() * PEER_STEPS_PER_TURN) {
                if let Some(peer) = &mut peer {
                    theirs.entry(variant).or_default().push(peer.ask(&format!("time {variant}"))?);
                }
            }
        }
        let peer_variants: BTreeMap<String, f64> =
            theirs.into_iter().map(|(variant, seconds)| (variant.to_owned(), median(seconds))).collect();
        let gflop = case.gflop(arguments.batch)?;
        for Ours { precision, from_cache, in_memory, .. } in ours {
            let (ours, in_memory) = (median(from_cache), median(in_memory));
            let fastest = |wanted: &str| {
                let variants = peer_variants.iter().filter(|(variant, _)| variant.starts_with(wanted));
                variants.map(|(_, seconds)| *seconds).reduce(f64::min)
            };
            let (peer, fastest_peer) = (fastest(precision.name()), fastest(""));
            measured.rows.push(Row {
                combination: case.combination.to_owned(),
                width: case.width,
                depth: case.depth,
                heads: case.heads,
                precision,
                ours,
                peer,
                ratio: peer.map(|peer| peer / ours),
                fastest_peer,
                fastest_ratio: fastest_peer.map(|peer| peer / ours),
                in_memory,
                from_cache: in_memory / ours,
                gflop,
                share_of_f32_peak: gflop / in_memory / peak,
                peer_variants: peer_variants.clone(),
            });
        }
    }
    Ok(measured)
}

fn start_peer(arguments: &TrainArguments, case: &Case) -> Result<(Peer, Vec<&'static str>)> {
    let model = case.model();
    let widths: Vec<String> = case.inputs()?.iter().map(|input| input.token_width.to_string()).collect();
    let numbers = [arguments.threads, arguments.batch, model.tokens_per_source()].map(|n| n.to_string());
    let sizes = [case.width, case.depth, case.heads].map(|n| n.to_string());
    let words: Vec<String> = numbers.into_iter().chain([widths.join(",")]).chain(sizes).collect();
    let mut peer = Peer::start(&arguments.python, PEER, &words)?;
    let mut variants = vec!["f32", "bf16"];
    if !arguments.no_compile {
        variants.extend(["f32-compiled", "bf16-compiled"]);
    }
    for variant in &variants {
        let () = peer.ask(&format!("warm {variant}"))?;
    }
    Ok((peer, variants))
}

impl Case {
    fn model(&self) -> ModelConfig {
        let &Self { width, depth, heads, .. } = self;
        ModelConfig { width, depth, heads, ..ModelConfig::default() }
    }

    fn inputs(&self) -> Result<Vec<Input>> {
        let grid = self.model().grid;
        let width = |source: Source| source.patch_side(grid).pow(2) * source.channels();
        let combination: Combination = self.combination.parse()?;
        Ok(combination.iter().map(|source| Input { source, token_width: width(source) }).collect())
    }

    /// Operations of the matrix products of a step in units of 10⁹, a multiply-add counted as two: each product of the
    /// forward pass has two in the backward pass, but for the projections, whose inputs need no gradient.
    fn gflop(&self, batch: usize) -> Result<f64> {
        let (model, inputs) = (self.model(), self.inputs()?);
        let (tokens, width) = (model.tokens_per_source(), self.width);
        let projections: usize = inputs.iter().map(|input| input.token_width * width).sum();
        let block = (4 + 2 * model.mlp_ratio) * width * width + 2 * tokens * width;
        let per_token = 2 * projections + 3 * self.depth * block;
        Ok(2e-9 * (batch * tokens * per_token) as f64)
    }
}

/// Our side in one precision, and the seconds of its steps.
struct Ours {
    precision: Precision,
    memory: InMemory,
    from_cache: Vec<f64>,
    in_memory: Vec<f64>,
}

impl Ours {
    fn new(case: &Case, batch: usize, precision: Precision) -> Result<Self> {
        let memory = InMemory::new(case, batch, precision)?;
        Ok(Self { precision, memory, from_cache: Vec::new(), in_memory: Vec::new() })
    }
}

/// Steps on one batch that never changes.
struct InMemory {
    model: Model,
    trainer: Trainer,
    batch: Batch,
    draws: Draws,
    step: usize,
}

impl InMemory {
    fn new(case: &Case, images: usize, precision: Precision) -> Result<Self> {
        let classes = (0..CLASSES).map(|class| class.to_string()).collect();
        let about = About { model: case.model(), inputs: case.inputs()?, classes };
        let tokens = |input: &Input| {
            let (source, grid) = (input.source, case.model().grid);
            let (side, patch_side, channels) = (source.side(), source.patch_side(grid), source.channels());
            let patches = Patches { side, grid, patch_side, channels };
            let count = images * patches.values_per_map();
            let values = (0..count).map(|i| f16::from_f32((i as f32 * 0.7).sin())).collect();
            let standardise = Standardise::new(&vec![[0.1, 1.4]; channels], patches, true);
            (source, Tokens::Stored(values, Arc::new(standardise)))
        };
        let tokens = about.inputs.iter().map(tokens).collect();
        let target = |i: usize| f32::from(u8::from(i / CLASSES % CLASSES == i % CLASSES));
        let batch = Batch { images, tokens, targets: (0..images * CLASSES).map(target).collect(), ..Batch::default() };
        let model = Model::new(about, 0, DType::F32, &Device::Cpu)?;
        let trainer = Trainer::new(&model, &Recipe::paper(), precision)?;
        Ok(Self { model, trainer, batch, draws: Draws::new(0, 1), step: 0 })
    }

    /// Seconds of one step.
    fn step(&mut self) -> Result<f64> {
        self.step += 1;
        let begun = Instant::now();
        let gradient = self.trainer.gradient(&self.model, &self.batch, &mut self.draws, self.step)?;
        let recipe = Recipe::paper();
        self.trainer.update(&self.model, recipe.clip_factor(gradient.norm), recipe.lr, self.step)?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

/// Draws faces and extracts their features.
fn write_cache(folder: &TempDir, images: usize) -> Result<()> {
    demo::write_faces(&folder.path().join("faces"), 0, SplitCounts { train: images - 2, valid: 1, test: 1 })?;
    demo::write_weights(&weights_path(folder), 0, &crate::extract::faces(8))?;
    fs_err::write(folder.path().join("study.toml"), "")?;
    extraction::run(&mut Context::open(study(folder, &[])?, false)?).context("extraction")?;
    Ok(())
}

fn weights_path(folder: &TempDir) -> PathBuf {
    folder.path().join("resnet18.safetensors")
}

fn study(folder: &TempDir, overrides: &[String]) -> Result<Study> {
    let path = |name: &str| folder.path().join(name);
    let common = [
        format!("data.dir={}", path("faces").display()),
        format!("cache.dir={}", path("cache").display()),
        format!("extract.weights={}", weights_path(folder).display()),
        "device=cpu".to_owned(),
    ];
    let overrides: Vec<String> = common.into_iter().chain(overrides.iter().cloned()).collect();
    Ok(Study::load(&path("study.toml"), &overrides)?)
}

/// Seconds of the steps of a short training, as it records them itself: from asking for the batch to the update.
fn from_cache(folder: &TempDir, case: &Case, precision: Precision, batch: usize, turn: usize) -> Result<Vec<f64>> {
    let overrides = [
        format!("combo={}", case.combination),
        format!("model.width={}", case.width),
        format!("model.depth={}", case.depth),
        format!("model.heads={}", case.heads),
        format!("train.precision={precision}"),
        format!("recipe.batch={batch}"),
        format!("recipe.steps={STEPS_PER_TURN}"),
        format!("seed={turn}"),
    ];
    let report = training::run(&Context::open(study(folder, &overrides)?, false)?).context("training")?;
    let run: &Path = &report.runs.first().context("no run")?.folder;
    let metrics = fs_err::read_to_string(run.join(vit::METRICS_FILE))?;
    let steps = metrics.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let seconds = steps.iter().filter(|line| line["kind"] == "step").filter_map(|line| line["seconds"].as_f64());
    let seconds = seconds.skip(WARM_UP_STEPS).collect();
    fs_err::remove_dir_all(run)?;
    Ok(seconds)
}

pub fn table(measured: &Measured) -> String {
    let mut table = Table::new();
    let header = ["model and inputs", "", "ms per step", "ours against it"];
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(header);
    let ms = |seconds: f64| format!("{:.1}", 1e3 * seconds);
    for rows in measured.rows.chunk_by(|a, b| (a.width, &a.combination) == (b.width, &b.combination)) {
        let Some(row) = rows.first() else { continue };
        let mut label = format!("width {}, depth {}, {} heads, {}", row.width, row.depth, row.heads, row.combination);
        let mut add = |what: String, ms: String, remark: String| {
            table.add_row([std::mem::take(&mut label), what, ms, remark]);
        };
        for row in rows {
            add(format!("ours, {}, from the cache", row.precision), ms(row.ours), String::new());
            let memory = format!("the cache gives {:.0}% of this speed", 100.0 * row.from_cache);
            add(format!("ours, {}, from memory", row.precision), ms(row.in_memory), memory);
        }
        for (variant, seconds) in &row.peer_variants {
            let ratios = rows.iter().map(|row| format!("{:.2}× in {}", seconds / row.ours, row.precision));
            add(format!("PyTorch, {variant}"), ms(*seconds), ratios.collect::<Vec<_>>().join(", "));
        }
        let shares = rows.iter().map(|row| format!("{:.0}% in {}", 100.0 * row.share_of_f32_peak, row.precision));
        let products = format!("products alone at f32's peak, {:.1} GFLOP", row.gflop);
        add(products, ms(row.gflop / measured.peak_gflops), shares.collect::<Vec<_>>().join(", "));
    }
    let missing =
        measured.peer_missing.as_ref().map_or_else(String::new, |reason| format!("\nPyTorch was left out: {reason}"));
    format!(
        "{table}\n{} on {} threads, batch {}; peak in f32 {:.0} GFLOP/s{missing}",
        measured.isa, measured.threads, measured.batch, measured.peak_gflops
    )
}
