//! Tables that appear on the page, as CSV and as Markdown.

use std::collections::BTreeSet;

use anyhow::Result;
use pipeline::{
    Context,
    transfer::{self, Transfer},
};
use statistics::MeanInterval;

use crate::{
    analysis::{Agreement, Analysis, Change, Discordant, Effect, Spread, Variant, VariantFigures, p_value},
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
        let titles = Measure::ALL.map(|measure| format!("{} %", measure.title()));
        let columns: Vec<&str> = ["inputs", "seeds"].into_iter().chain(titles.iter().map(String::as_str)).collect();
        let row = |cell: &Cell| {
            let measured = Measure::ALL.into_iter().map(|measure| with_interval(cell, measure));
            [cell.combination.to_string(), cell.runs.len().to_string()].into_iter().chain(measured).collect()
        };
        let rows = results.evaluated().map(row).collect();
        return vec![Table::new("combinations", "All combinations", &columns, rows)];
    }
    // Without a pooled standard deviation the range of one run is Wilson's interval of the one there is.
    let of_seeds = results.pooled(Measure::Test).is_some();
    let [within_train, within_test] = ["train", "test"].map(|measure| {
        format!("{measure}, within {}", if of_seeds { "one run's range" } else { "Wilson's interval of one run" })
    });
    let columns = [
        "inputs",
        "seeds",
        "train, paper %",
        "train, ours % [95%]",
        "train, difference",
        &within_train,
        "test, paper %",
        "test, ours % [95%]",
        "test, difference",
        &within_test,
        "without copies %",
        "balanced %",
    ];
    let row = |cell: &Cell| {
        let mut row = vec![cell.combination.to_string(), cell.runs.len().to_string()];
        for measure in [Measure::Train, Measure::Test] {
            let (paper, ours) = (cell.paper(measure), cell.mean(measure));
            let difference = paper.zip(ours).map(|(paper, ours)| ours.mean - paper);
            let range = cell.range_of_one_run(measure, results.pooled(measure));
            let within = paper.zip(range).map(|(paper, [low, high])| (low..=high).contains(&paper));
            row.extend([
                percent(paper),
                with_interval(cell, measure),
                difference.map_or_else(absent, |difference| format!("{:+.2}", 100.0 * difference)),
                within.map_or_else(absent, |within| if within { "yes" } else { "no" }.to_owned()),
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
            Table::new(&format!("table{number}"), &format!("{caption}{}", range_of_one_run(results)), &columns, rows)
        })
        .filter(|table| !table.rows.is_empty())
        .collect()
}

/// How far one more run lies at most from the mean of the seeds; nothing where no combination has several.
fn range_of_one_run(results: &Results) -> String {
    let seeds: BTreeSet<usize> = results.evaluated().map(|cell| cell.runs.len()).collect();
    let half = |measure, seeds| Some(100.0 * results.pooled(measure)?.half_prediction_95(seeds));
    let of_seeds = |seeds: &usize| {
        let (train, test) = (half(Measure::Train, *seeds)?, half(Measure::Test, *seeds)?);
        let centre = if *seeds == 1 { "one run".to_owned() } else { format!("the mean of {seeds} seeds") };
        Some(format!("±{train:.2} (train) and ±{test:.2} points (test) around {centre}"))
    };
    match seeds.iter().filter_map(of_seeds).collect::<Vec<_>>() {
        ranges if ranges.is_empty() => String::new(),
        ranges => format!(". One run's range: {}", ranges.join(", ")),
    }
}

/// How far another seed moves a run; nothing where no combination has several.
pub fn spread(spread: &[Spread]) -> Option<Table> {
    let columns = ["measure", "combinations", "degrees of freedom", "pooled, points", "smallest", "largest"];
    let row = |Spread { measure, combinations, pooled, ends: [smallest, largest] }: &Spread| {
        let [deviation, smallest, largest] =
            [pooled.deviation, *smallest, *largest].map(|share| format!("{:.2}", 100.0 * share));
        let (combinations, freedom) = (combinations.to_string(), pooled.freedom.to_string());
        vec![measure.title().to_owned(), combinations, freedom, deviation, smallest, largest]
    };
    let caption = "Standard deviation of a run over the seeds, pooled over the combinations with several";
    (!spread.is_empty()).then(|| Table::new("spread", caption, &columns, spread.iter().map(row).collect()))
}

/// What each source adds.
pub fn effects(analysis: &Analysis) -> Table {
    let Analysis { effects, weakest_input, .. } = analysis;
    let without_weakest = weakest_input.map(|weakest| format!("mean without {weakest} alone, points [95%]"));
    let mut columns =
        vec!["source", "contexts", "seeds", "raised in", "mean change, points [95%]", "median change, points"];
    columns.extend(without_weakest.as_deref());
    columns.extend(["p", "adjusted p"]);
    let has_paper = effects.iter().any(|effect| effect.paper_mean.is_some());
    if has_paper {
        columns.extend(["the paper's mean change, points", "the paper's without fm4 alone, points"]);
    }
    let row = |effect: &Effect| {
        let [fewest, most] = effect.seeds;
        let mut row = vec![
            effect.source.to_string(),
            effect.contexts.len().to_string(),
            if fewest == most { most.to_string() } else { format!("{fewest} to {most}") },
            effect.contexts.iter().filter(|(_, change)| *change > 0.0).count().to_string(),
            change(&effect.mean),
            points(effect.median),
        ];
        if weakest_input.is_some() {
            row.push(effect.mean_without_weakest.as_ref().map_or_else(absent, change));
        }
        row.extend([effect.p, effect.adjusted_p].map(p_value));
        if has_paper {
            row.extend([effect.paper_mean, effect.paper_mean_without_fm4].map(|mean| mean.map_or_else(absent, points)));
        }
        row
    };
    let weakest = weakest_input.map_or_else(String::new, |weakest| {
        format!("; {weakest} is the single input with the lowest test accuracy of ours")
    });
    let caption = format!(
        "Change of test accuracy when a source is added to other inputs. Intervals are Student's over the contexts, not \
         adjusted for the number of tests{weakest}"
    );
    Table::new("effects", &caption, &columns, effects.iter().map(row).collect())
}

/// A change with its interval, in points.
fn change(mean: &MeanInterval) -> String {
    let interval =
        mean.interval_95.map_or_else(String::new, |[low, high]| format!(" [{}, {}]", points(low), points(high)));
    format!("{}{interval}", points(mean.mean))
}

/// A change of a share in points.
fn points(share: f64) -> String {
    format!("{:+.2}", 100.0 * share)
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
    let caption = "Test accuracies: agreement with the paper. p stands outside the family of adjusted tests and takes the cells for \
                   independent, which combinations of five inputs are not";
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
        let VariantFigures { combinations, agreement, means, .. } = match &variant.figures {
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

/// What each variant changes; none if none can be compared.
pub fn changes(variants: &[Variant]) -> Option<Table> {
    let columns = ["configuration", "seeds", "raised in", "change of test accuracy, points [95%]", "p", "adjusted p"];
    let p = |p: Option<f64>| p.map_or_else(absent, p_value);
    let row = |variant: &Variant| {
        let Change { mean, raised, p: raw, adjusted_p } = variant.figures.as_ref().ok()?.change.as_ref()?;
        let (seeds, raised) = (mean.count.to_string(), raised.to_string());
        Some(vec![variant.name.clone(), seeds, raised, change(mean), p(*raw), p(*adjusted_p)])
    };
    let rows: Vec<Vec<String>> = variants.iter().filter_map(row).collect();
    let caption = "What they change of this study with the same seeds, a mean over these combinations, where both answer about the same \
                   images and labels. Intervals are Student's over the seeds, not adjusted for the number of tests";
    (!rows.is_empty()).then(|| Table::new("changes", caption, &columns, rows))
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
    let columns = [
        "claim",
        "first",
        "second",
        "seeds",
        "only first / only second right, by seed",
        "difference, points",
        "p",
        "adjusted p",
    ];
    let discordant =
        |Discordant { seed, only_first, only_second }: &Discordant| format!("{seed}: {only_first} / {only_second}");
    let rows = analysis.claims.iter().flat_map(|claim| {
        claim.comparisons.iter().map(|comparison| {
            vec![
                claim.statement.to_owned(),
                comparison.first.to_string(),
                comparison.second.to_string(),
                comparison.seeds.to_string(),
                comparison.discordant.iter().map(discordant).collect::<Vec<_>>().join(", "),
                format!("{:+.2}", 100.0 * comparison.difference),
                p_value(comparison.p),
                comparison.adjusted_p.map_or_else(absent, p_value),
            ]
        })
    });
    let caption = "Exact McNemar tests behind the claims. With one seed p knows the choice of test images only, and decides \
                   nothing";
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::results::made_up::results;

    /// The row of `inputs` in the paper's first table, by the titles of the columns, and the table's caption.
    fn first_table(runs: &[(&str, u64, usize)], inputs: &str) -> (HashMap<String, String>, String) {
        let table = beside_the_paper(&results(1000, runs)).remove(0);
        let row = table.rows.iter().find(|row| row[0] == inputs).unwrap().clone();
        (table.columns.into_iter().zip(row).collect(), table.caption)
    }

    #[test]
    fn the_papers_figure_is_judged_as_one_run() {
        // The paper has 75.51%. Our two runs agree, but those of fm1 say what a seed may change: a pooled deviation of 1 point.
        let runs = [("fm1", 0, 700), ("fm1", 1, 720), ("fm2", 0, 750), ("fm2", 1, 750)];
        let (row, caption) = first_table(&runs, "fm2");
        assert_eq!(row["test, ours % [95%]"], "75.00 [75.00, 75.00]");
        assert_eq!(row["test, within one run's range"], "yes");
        assert!(caption.ends_with("±5.27 (train) and ±5.27 points (test) around the mean of 2 seeds"), "{caption}");
        let far = [("fm1", 0, 700), ("fm1", 1, 720), ("fm2", 0, 690), ("fm2", 1, 690)];
        assert_eq!(first_table(&far, "fm2").0["test, within one run's range"], "no");
        // A combination with a single run profits from the others.
        let (row, caption) = first_table(&[("fm1", 0, 700), ("fm1", 1, 720), ("fm2", 0, 700)], "fm2");
        assert_eq!(row["test, within one run's range"], "yes");
        assert!(caption.contains("around one run, ±"), "{caption}");
        // Nothing to pool.
        let (row, caption) = first_table(&[("fm1", 0, 700), ("fm2", 0, 740)], "fm2");
        assert_eq!(row["test, within Wilson's interval of one run"], "yes");
        assert_eq!(caption, "The paper's Table 1: single inputs");
    }

    #[test]
    fn no_interval_is_wider_than_a_share_can_be() {
        let (row, _) = first_table(&[("fm3", 0, 990), ("fm3", 1, 1000)], "fm3");
        assert_eq!(row["test, ours % [95%]"], "99.50 [93.15, 100.00]");
    }
}
