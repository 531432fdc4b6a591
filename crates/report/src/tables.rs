//! Tables that appear on the page, as CSV and as Markdown.

use anyhow::Result;
use pipeline::{
    Context,
    transfer::{self, Transfer},
};

use crate::{
    analysis::{Agreement, Analysis, Effect, Variant, VariantFigures, p_value},
    results::{Cell, Measure, Results},
};

/// A table of texts.
#[derive(Clone, Debug)]
pub struct Table {
    /// Name of its files, and of its place on the page.
    pub name: String,
    /// What it shows.
    pub caption: String,
    /// Titles of its columns.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(name: &str, caption: &str, columns: &[&str], rows: Vec<Vec<String>>) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { name: name.to_owned(), caption: caption.to_owned(), columns, rows }
    }

    /// As a CSV file.
    pub fn csv(&self) -> Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&self.columns)?;
        for row in &self.rows {
            writer.write_record(row)?;
        }
        writer.into_inner().map_err(|error| anyhow::anyhow!("cannot write the table: {}", error.error()))
    }

    /// As a Markdown table.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = line(&vec!["---".to_owned(); self.columns.len()]);
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}\n\n{}{rule}{rows}", self.caption, line(&self.columns))
    }
}

/// The paper's Tables 1 to 3 with ours beside them; where there is nothing of the paper, all combinations in one table.
pub fn beside_the_paper(results: &Results) -> Vec<Table> {
    const CAPTIONS: [&str; 3] = [
        "The paper's Table 1: single inputs",
        "The paper's Table 2: combinations of feature maps",
        "The paper's Table 3: combinations with the original image",
    ];
    if results.cells.iter().all(|cell| cell.paper.is_none()) {
        let columns =
            ["inputs", "seeds", "train %", "valid %", "test %", "without copies %", "balanced %", "macro F1 %"];
        let measures = [
            Measure::Train,
            Measure::Valid,
            Measure::Test,
            Measure::TestWithoutCopies,
            Measure::Balanced,
            Measure::MacroF1,
        ];
        let row = |cell: &Cell| {
            let measured = measures.into_iter().map(|measure| with_interval(cell, measure));
            [cell.combination.to_string(), cell.runs.len().to_string()].into_iter().chain(measured).collect()
        };
        let rows = results.evaluated().map(row).collect();
        return vec![Table::new("combinations", "All combinations", &columns, rows)];
    }
    let columns = [
        "inputs",
        "seeds",
        "train, paper %",
        "train, ours % [95%]",
        "train, difference",
        "train, inside",
        "test, paper %",
        "test, ours % [95%]",
        "test, difference",
        "test, inside",
        "without copies %",
        "balanced %",
    ];
    let row = |cell: &Cell| {
        let mut row = vec![cell.combination.to_string(), cell.runs.len().to_string()];
        for measure in [Measure::Train, Measure::Test] {
            let (paper, ours) = (cell.paper(measure), cell.mean(measure));
            let difference = paper.zip(ours).map(|(paper, ours)| ours.mean - paper);
            let inside = paper.zip(cell.interval(measure)).map(|(paper, [low, high])| (low..=high).contains(&paper));
            row.extend([
                percent(paper),
                with_interval(cell, measure),
                difference.map_or_else(absent, |difference| format!("{:+.2}", 100.0 * difference)),
                inside.map_or_else(absent, |inside| if inside { "yes" } else { "no" }.to_owned()),
            ]);
        }
        let mean = |measure| percent(cell.mean(measure).map(|mean| mean.mean));
        row.extend([mean(Measure::TestWithoutCopies), mean(Measure::Balanced)]);
        row
    };
    (1..=3_u8)
        .zip(CAPTIONS)
        .map(|(number, caption)| {
            let of_table = |cell: &&Cell| cell.paper.as_ref().is_some_and(|paper| paper.table == number);
            let rows = results.cells.iter().filter(of_table).map(row).collect();
            Table::new(&format!("table{number}"), caption, &columns, rows)
        })
        .filter(|table| !table.rows.is_empty())
        .collect()
}

/// What each source adds.
pub fn effects(effects: &[Effect]) -> Table {
    let mut columns = vec!["source", "contexts", "raised in", "change, points [95%]", "adjusted p"];
    let has_paper = effects.iter().any(|effect| effect.paper_mean.is_some());
    if has_paper {
        columns.extend(["the paper's change, points", "… without fm4 alone"]);
    }
    let row = |effect: &Effect| {
        let points = |share: f64| format!("{:+.2}", 100.0 * share);
        let interval = effect
            .mean
            .interval_95
            .map_or_else(String::new, |[low, high]| format!(" [{}, {}]", points(low), points(high)));
        let mut row = vec![
            effect.source.to_string(),
            effect.contexts.len().to_string(),
            effect.contexts.iter().filter(|(_, change)| *change > 0.0).count().to_string(),
            format!("{}{interval}", points(effect.mean.mean)),
            p_value(effect.adjusted_p),
        ];
        if has_paper {
            row.extend([effect.paper_mean, effect.paper_mean_without_fm4].map(|mean| mean.map_or_else(absent, points)));
        }
        row
    };
    let caption = "Change of test accuracy when a source is added to other inputs";
    Table::new("effects", caption, &columns, effects.iter().map(row).collect())
}

/// How close ours are to the paper's.
pub fn agreement(agreements: &[Agreement]) -> Table {
    let columns = ["cells", "count", "Spearman's ρ", "p", "RMSE, points"];
    let row = |agreement: &Agreement| {
        vec![
            agreement.cells.to_owned(),
            agreement.count.to_string(),
            agreement.spearman.map_or_else(absent, |found| format!("{:.3}", found.rho)),
            agreement.spearman.map_or_else(absent, |found| p_value(found.p)),
            agreement.rmse.map_or_else(absent, |rmse| format!("{:.2}", 100.0 * rmse)),
        ]
    };
    let caption = "Test accuracies: agreement with the paper";
    Table::new("agreement", caption, &columns, agreements.iter().map(row).collect())
}

/// The study and its variants.
pub fn variants(variants: &[Variant]) -> Table {
    let columns = [
        "configuration",
        "combinations",
        "RMSE to the paper, points",
        "ρ",
        "RMSE without fm4",
        "ρ without fm4",
        "mean test %",
        "mean balanced %",
        "mean macro F1 %",
    ];
    let row = |variant: &Variant| {
        let VariantFigures { combinations, agreement, means } = match &variant.figures {
            Ok(figures) => figures,
            Err(reason) => {
                let nothing = vec![absent(); columns.len() - 2];
                return [variant.name.clone(), reason.clone()].into_iter().chain(nothing).collect();
            }
        };
        let mut row = vec![variant.name.clone(), combinations.to_string()];
        for index in 0..2 {
            let agreement = agreement.as_ref().map(|agreement| &agreement[index]);
            let rmse = agreement.and_then(|agreement| agreement.rmse);
            let rho = agreement.and_then(|agreement| agreement.spearman).map(|found| found.rho);
            row.push(rmse.map_or_else(absent, |rmse| format!("{:.2}", 100.0 * rmse)));
            row.push(rho.map_or_else(absent, |rho| format!("{rho:.3}")));
        }
        row.extend(means.map(percent));
        row
    };
    let caption = "Configurations, over the combinations that all of them have: how close each is to the paper's cells, and how good";
    Table::new("variants", caption, &columns, variants.iter().map(row).collect())
}

/// The runs on other data sets; none if there are none.
pub fn transfers(context: &Context, results: &Results) -> Option<Table> {
    let columns = ["data set", "inputs", "seed", "images", "left out", "accuracy % [95%]", "balanced %", "macro F1 %"];
    let mut rows = Vec::new();
    for cell in results.runs() {
        for Transfer { data, left_out, scores, .. } in transfer::known(context, &cell.run) {
            let [low, high] = scores.overall.interval_95.map(|end| 100.0 * end);
            let left_out: Vec<String> = left_out.iter().map(|(class, count)| format!("{count} {class}")).collect();
            rows.push(vec![
                data.display().to_string(),
                cell.run.combination.to_string(),
                cell.run.seed.to_string(),
                scores.overall.images.to_string(),
                if left_out.is_empty() { "none".to_owned() } else { left_out.join(", ") },
                format!("{} [{low:.2}, {high:.2}]", percent(scores.overall.accuracy)),
                percent(Some(scores.balanced_accuracy)),
                percent(Some(scores.macro_f1)),
            ]);
        }
    }
    (!rows.is_empty()).then(|| Table::new("transfers", "Runs on other data sets", &columns, rows))
}

/// All pairs that were tested.
pub fn comparisons(analysis: &Analysis) -> Table {
    let columns = ["claim", "first", "second", "seeds", "difference, points", "p", "adjusted p"];
    let rows = analysis.claims.iter().flat_map(|claim| {
        claim.comparisons.iter().map(|comparison| {
            vec![
                claim.statement.to_owned(),
                comparison.first.to_string(),
                comparison.second.to_string(),
                comparison.seeds.to_string(),
                format!("{:+.2}", 100.0 * comparison.difference),
                p_value(comparison.p),
                p_value(comparison.adjusted_p),
            ]
        })
    });
    let caption = "Exact McNemar tests behind the claims";
    Table::new("comparisons", caption, &columns, rows.collect())
}

/// How a run fares with each class.
pub fn classes(scores: &pipeline::scores::Scores) -> Table {
    let columns = ["class", "images", "precision %", "recall %", "F1 %"];
    let row = |class: &pipeline::scores::ClassScore| {
        let shares = [class.precision, class.recall, class.f1].map(|share| percent(Some(share)));
        [class.class.clone(), class.images.to_string()].into_iter().chain(shares).collect()
    };
    Table::new("classes", "Test images by class", &columns, scores.classes.iter().map(row).collect())
}

/// Images by true and predicted class.
pub fn confusion(scores: &pipeline::scores::Scores) -> Table {
    let names: Vec<&str> = scores.classes.iter().map(|class| class.class.as_str()).collect();
    let columns: Vec<&str> = ["true \\ predicted"].into_iter().chain(names.iter().copied()).collect();
    let rows = names
        .iter()
        .zip(&scores.confusion)
        .map(|(name, counts)| [(*name).to_owned()].into_iter().chain(counts.iter().map(ToString::to_string)).collect());
    Table::new("confusion", "Test images by true and predicted class", &columns, rows.collect())
}

fn with_interval(cell: &Cell, measure: Measure) -> String {
    let Some(mean) = cell.mean(measure) else { return absent() };
    let interval = cell.interval(measure);
    let interval =
        interval.map_or_else(String::new, |[low, high]| format!(" [{:.2}, {:.2}]", 100.0 * low, 100.0 * high));
    format!("{:.2}{interval}", 100.0 * mean.mean)
}

/// A share in percent.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(absent, |share| format!("{:.2}", 100.0 * share))
}

/// What stands where there is nothing.
pub(crate) fn absent() -> String {
    "–".to_owned()
}
