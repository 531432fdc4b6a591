//! The study's report: ours beside the paper's tables, what can be said of the paper's conclusions, figures, and one page
//! that holds it all.
//!
//! ```text
//! evaluations ─► results ─► analysis ─► tables, figures ─► page
//! feature cache, models ─► pictures ─► faces ──────────────┘
//! ```
//!
//! Nothing is computed that needs the backbone or a training; what is not evaluated is named as missing.

mod analysis;
mod curves;
mod each;
mod faces;
mod figures;
mod maps;
mod page;
mod pictures;
mod provenance;
mod results;
mod tables;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use pipeline::{Context, inspect::Inspector, summary::without_hint};
use serde::Serialize;
use statistics::reliability;

use analysis::Variant;
pub use analysis::{Agreement, Analysis, Claim, Comparison, Discordant, Effect, Spread, Verdict};
use each::Each;
use faces::{Mistake, Portrait};
use figures::Chart;
pub use maps::{Drawn, draw, summary as drawn_summary};
use pictures::Picture;
use provenance::Provenance;
use results::{AnsweredRun, Measure, Results};
use tables::Table;

/// Name of the page.
pub const PAGE: &str = "index.html";

/// Pixels of a chart's PNG for each of its own.
const PNG_SCALE: f32 = 2.0;

/// Everything that the report shows.
#[derive(Debug)]
pub struct Report {
    analysis: Analysis,
    /// None where there is nothing of the paper to compare with.
    agreement: Option<[Agreement; 2]>,
    cells_table: Vec<Table>,
    charts: BTreeMap<&'static str, Chart>,
    portraits: Vec<Portrait>,
    mistakes: Vec<Mistake>,
    best: Best,
    /// F1 of every class, for each combination.
    class_f1: Table,
    /// The study's variants beside it, if it has any, and what they change, as far as that can be told.
    variants: Vec<Table>,
    /// The runs on other data sets, if there are any.
    transfers: Option<Table>,
    missing: Vec<String>,
    provenance: Provenance,
}

/// `analysis.json`
#[derive(Serialize)]
struct Numbers<'a> {
    #[serde(flatten)]
    analysis: &'a Analysis,
    agreement: Option<&'a [Agreement; 2]>,
}

/// Names of all charts and tables that a report may have.
const CHARTS: [&str; 9] =
    ["all_confusions", "all_curves", "all_reliabilities", "cells", "curves", "effects", "maps", "reliability", "votes"];
const TABLES: [&str; 15] = [
    "agreement",
    "changes",
    "class_f1",
    "classes",
    "combinations",
    "comparisons",
    "confusion",
    "effects",
    "runs",
    "spread",
    "table1",
    "table2",
    "table3",
    "transfers",
    "variants",
];

/// Removes from `folder` the files of an earlier report whose `names` this one does not have: they would be taken for its own.
fn remove_others(folder: &Path, names: &[&str], is_written: impl Fn(&str) -> bool) -> Result<()> {
    for name in names.iter().filter(|name| !is_written(name)) {
        for ending in ["svg", "png", "csv", "md"] {
            let path = folder.join(format!("{name}.{ending}"));
            if path.is_file() {
                fs_err::remove_file(path)?;
            }
        }
    }
    Ok(())
}

/// What is told of the run with the highest validation accuracy.
#[derive(Debug)]
struct Best {
    name: String,
    accuracies: String,
    classes: Table,
    confusion: Table,
    calibration_error: String,
}

/// What was written.
#[derive(Debug, Serialize)]
pub struct Written {
    /// The page.
    pub page: PathBuf,
    /// Runs that it shows.
    pub runs: usize,
    /// Runs of the study that are not there yet.
    pub missing: Vec<String>,
    /// What became of the paper's conclusions.
    pub claims: Vec<Claim>,
}

/// Builds the report of what is evaluated and writes it to `folder`: the page, `tables/*.csv`, `tables/*.md`,
/// `figures/*.svg`, `figures/*.png` and `analysis.json`. The `variants` of the study, by their overrides, are compared with it.
/// `command` is what makes it again.
///
/// # Errors
/// If nothing is evaluated yet, or files fail.
pub fn write(
    context: &Context,
    variants: &[(String, Result<Context>)],
    folder: &Path,
    command: &str,
) -> Result<Written> {
    let results = Results::read(context)?;
    let Some(best) = results.best_by_validation() else {
        bail!("no run of this configuration is evaluated\n\nhint: run `just study`");
    };
    let mut report = Report::new(context, &results, best, command)?;
    if !variants.is_empty() {
        // A variant that cannot be read is told of, and keeps nothing else from being shown.
        let read = |(name, context): &'_ (String, Result<Context>)| {
            let results = match context {
                Ok(context) => Results::read(context).map_err(|error| without_hint(&error.to_string())),
                Err(error) => Err(without_hint(&error.to_string())),
            };
            (name.clone(), results)
        };
        let read: Vec<(String, Result<Results, String>)> = variants.iter().map(read).collect();
        let variants = read.iter().map(|(name, results)| (name.as_str(), results.as_ref().map_err(Clone::clone)));
        let compared = Variant::compare(("this study", &results), &variants.collect::<Vec<_>>());
        report.variants = [tables::variants(&compared)].into_iter().chain(tables::changes(&compared)).collect();
    }
    report.write(folder)?;
    Ok(Written {
        page: folder.join(PAGE),
        runs: results.runs().count(),
        missing: results.missing,
        claims: report.analysis.claims,
    })
}

/// What was written, for the terminal.
pub fn summary(written: &Written) -> String {
    let claims: String = written
        .claims
        .iter()
        .map(|claim| format!("{}: {}. {}\n", claim.statement, claim.verdict, claim.because))
        .collect();
    let missing = match written.missing.len() {
        0 => String::new(),
        missing => format!("; {missing} runs are not there yet"),
    };
    format!("{claims}report: `{}` of {} runs{missing}", written.page.display(), written.runs)
}

impl Report {
    fn new(context: &Context, results: &Results, chosen: &AnsweredRun, command: &str) -> Result<Self> {
        let has_paper = results.cells.iter().any(|cell| cell.paper.is_some());
        let analysis = Analysis::of(results);
        let mut charts: Vec<Chart> = figures::cells_beside_the_paper(results)?.into_iter().collect();
        charts.extend(figures::effects_of_sources(&analysis.effects)?);

        let inspector = Inspector::open(context)?;
        let portraits = faces::portraits(context, &inspector, &faces::one_of_each_class(context), chosen)?;
        let mistakes = faces::mistakes(context, &inspector, chosen)?;
        let (best, more) = describe(context, chosen)?;
        charts.extend(more);
        charts.push(gallery(&portraits));
        let each = Each::of(results)?;
        charts.extend(each.charts);
        Ok(Self {
            agreement: has_paper.then(|| analysis::agreement(results.evaluated())),
            cells_table: tables::beside_the_paper(results),
            charts: charts.into_iter().map(|chart| (chart.name, chart)).collect(),
            portraits,
            mistakes,
            best,
            class_f1: each.classes,
            variants: Vec::new(),
            transfers: tables::transfers(context, results),
            missing: results.missing.clone(),
            provenance: Provenance::of(context, results, command)?,
            analysis,
        })
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let write = |name: String, bytes: &[u8]| stage::write_atomically(&folder.join(name), bytes);
        for chart in self.charts.values() {
            write(format!("figures/{}.svg", chart.name), chart.svg().as_bytes())?;
            write(format!("figures/{}.png", chart.name), &chart.png(PNG_SCALE)?)?;
        }
        let tables = self.tables();
        for table in &tables {
            write(format!("tables/{}.csv", table.name), &table.csv()?)?;
            write(format!("tables/{}.md", table.name), table.markdown().as_bytes())?;
        }
        remove_others(&folder.join("figures"), &CHARTS, |name| self.charts.contains_key(name))?;
        remove_others(&folder.join("tables"), &TABLES, |name| tables.iter().any(|table| table.name == name))?;
        let numbers = Numbers { analysis: &self.analysis, agreement: self.agreement.as_ref() };
        stage::write_sealed_json(&folder.join("analysis.json"), &numbers)?;
        write(PAGE.to_owned(), page::page(self).as_bytes())?;
        Ok(())
    }

    /// All tables that get files of their own.
    fn tables(&self) -> Vec<Table> {
        let mut all = self.cells_table.clone();
        all.extend([tables::effects(&self.analysis), tables::comparisons(&self.analysis)]);
        all.extend(tables::spread(&self.analysis.spread));
        all.extend(self.agreement.iter().map(|agreement| tables::agreement(agreement)));
        all.extend(self.variants.iter().chain(&self.transfers).cloned());
        let more = [&self.best.classes, &self.best.confusion, &self.class_f1, &self.provenance.runs];
        all.extend(more.map(Table::clone));
        all
    }
}

/// What is told of `answered`, and its charts.
fn describe(context: &Context, answered: &AnsweredRun) -> Result<(Best, Vec<Chart>)> {
    let test = &answered.run.evaluation.test;
    let percent = |measure: Measure| tables::percent(measure.of(answered));
    let answers: Vec<(f64, bool)> = answered.confidences().collect();
    let bins = reliability(&answers);
    let mut charts = vec![figures::reliability_diagram(&bins)?];
    match curves::Curves::read(&answered.run.folder) {
        Ok(curves) => charts.push(figures::learning_curves(answered.run.combination, answered.run.seed, &curves)?),
        Err(error) => tracing::warn!("no learning curves: {error:#}"),
    }
    let groups = by_agreement(context, answered, &answers);
    if groups.len() > 1 {
        charts.push(figures::confidence_and_votes(&groups)?);
    }
    let best = Best {
        name: format!("{}, seed {}", answered.run.combination, answered.run.seed),
        accuracies: format!(
            "train {}%, valid {}%, test {}%, balanced {}%, macro F1 {}%",
            percent(Measure::Train),
            percent(Measure::Valid),
            percent(Measure::Test),
            percent(Measure::Balanced),
            percent(Measure::MacroF1)
        ),
        classes: tables::classes(test),
        confusion: tables::confusion(test),
        calibration_error: answered
            .calibration_error()
            .map_or_else(tables::absent, |error| format!("{:.1}%", 100.0 * error)),
    };
    Ok((best, charts))
}

/// The portraits as one drawing.
fn gallery(portraits: &[Portrait]) -> Chart {
    let maps = portraits.first().map_or(&[][..], |portrait| &portrait.maps);
    let maps = maps.iter().map(|(source, _)| source.to_string());
    let columns: Vec<String> = ["image".to_owned()].into_iter().chain(maps).chain(["attention".to_owned()]).collect();
    let rows: Vec<(String, Vec<&Picture>)> = portraits
        .iter()
        .map(|portrait| {
            let maps = portrait.maps.iter().map(|(_, map)| map);
            let pictures = [&portrait.original].into_iter().chain(maps).chain([&portrait.attention]).collect();
            (format!("{} ({}), {}", portrait.class, portrait.votes, portrait.id), pictures)
        })
        .collect();
    let description =
        "One image of each class, the channel means of its feature maps, and where the best run looks".to_owned();
    figures::grid("maps", description, &columns, &rows)
}

/// The answers in five groups of equal size by the entropy of their images' votes: the ends of the entropy, mean confidence,
/// accuracy. Images without votes are left out.
fn by_agreement(context: &Context, answered: &AnsweredRun, answers: &[(f64, bool)]) -> Vec<([f64; 2], f64, f64)> {
    const GROUPS: usize = 5;
    let images = answered.answers.images.iter().zip(answers);
    let mut voted: Vec<(f64, f64, bool)> = images
        .filter_map(|(image, (confidence, correct))| Some((faces::entropy(context, *image)?, *confidence, *correct)))
        .collect();
    voted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let size = voted.len().div_ceil(GROUPS).max(1);
    let group = |members: &[(f64, f64, bool)]| {
        let share = 1.0 / members.len() as f64;
        let confidence = members.iter().map(|(_, confidence, _)| confidence * share).sum();
        let accuracy = members.iter().filter(|(_, _, correct)| *correct).count() as f64 * share;
        ([members[0].0, members[members.len() - 1].0], confidence, accuracy)
    };
    voted.chunks(size).map(group).collect()
}
