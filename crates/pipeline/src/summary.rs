//! Results as text for the terminal.

use std::fmt::Write as _;

use comfy_table::Table;

use crate::{
    Context, CopyCounts,
    clean::Leftovers,
    evaluation::EvaluationReport,
    extraction::{ExtractionReport, Waited},
    predict::Predictions,
    scores::Accuracy,
    status::StudyStatus,
    training::{RunReport, TrainingReport},
    transfer::TransferReport,
    verify::Verification,
};

/// What an extraction did, below the data audit.
pub fn extraction(context: &Context, report: &ExtractionReport) -> String {
    let features: Vec<&str> = report.features.iter().map(|source| source.name()).collect();
    let features = features.join("+");
    let size_gb = report.size_bytes as f64 / 1e9;
    if report.shards_written == 0 && report.engine.is_none() {
        return format!("extract {features}: fresh ({} images, {size_gb:.2} GB); nothing to do", report.images);
    }
    let rate = report.images_computed as f64 / report.wall_s;
    let share = |seconds: f64| format!("{:.0}%", 100.0 * seconds / report.wall_s);
    let Waited { images_s, network_s, disk_s } = report.waited;
    format!(
        "{}{}\nextract {features}: {} of {} shards written, {} images in {:.1} s ({rate:.1} images/s, {}; waiting for images {}, \
         for the network {}, for the disk {}); {} images, {size_gb:.2} GB in `{}`",
        context.dataset.audit,
        copies(report),
        report.shards_written,
        report.shards,
        report.images_computed,
        report.wall_s,
        report.engine.as_deref().unwrap_or("nothing computed"),
        share(images_s),
        share(network_s),
        share(disk_s),
        report.images,
        report.cache.display(),
    )
}

/// Lines of the audit about copies of training images.
fn copies(report: &ExtractionReport) -> String {
    let line = |of: &CopyCounts| {
        let CopyCounts { split, identical, near } = of;
        format!("\n  {split} images that a training image shows as well: {identical} byte for byte, {near} more nearly")
    };
    let mut lines: String = report.copies.iter().map(line).collect();
    if let Some(likeness) = report.raised_likeness {
        let _ = write!(
            lines,
            "\n  near copies count from a likeness of {likeness} on; below, they are too few, or images too alike, to tell from chance"
        );
    }
    lines
}

/// One line per run.
pub fn training(report: &TrainingReport) -> String {
    let line = |run: &RunReport| {
        let outcome = &run.trained.outcome;
        let state = if run.before.is_fresh() { "fresh; nothing to do" } else { "trained" };
        let collapsed = if outcome.collapsed { ", COLLAPSED" } else { "" };
        format!(
            "train {} seed {}: {state} ({} steps, loss {:.3}, validation {:.2}%, {:.0} s{collapsed})",
            run.combination,
            run.seed,
            outcome.steps,
            outcome.final_loss,
            100.0 * outcome.validation.validation.accuracy,
            outcome.wall_s,
        )
    };
    report.runs.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Ours beside the paper's.
pub fn evaluation(report: &EvaluationReport) -> String {
    let beside_paper = report.runs.iter().any(|run| run.paper_test.is_some());
    let mut header =
        vec!["inputs", "seed", "steps", "train %", "valid %", "test % [95%]", "without copies %", "balanced %"];
    if beside_paper {
        header.extend(["paper train %", "paper test %"]);
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(header);
    let percent = |share: f64| format!("{:.2}", 100.0 * share);
    let accuracy = |of: &Accuracy| of.accuracy.map_or_else(|| "-".to_owned(), percent);
    let paper = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    for run in &report.runs {
        let test = &run.evaluation.test.overall;
        let [low, high] = test.interval_95;
        let mut row = vec![
            run.combination.to_string(),
            run.seed.to_string(),
            run.trained.outcome.steps.to_string(),
            accuracy(&run.evaluation.train.overall),
            accuracy(&run.evaluation.valid.overall),
            format!("{} [{}, {}]", accuracy(test), percent(low), percent(high)),
            accuracy(&run.evaluation.test_without_copies),
            percent(run.evaluation.test.balanced_accuracy),
        ];
        if beside_paper {
            row.extend([paper(run.paper_train), paper(run.paper_test)]);
        }
        table.add_row(row);
    }
    let mut text = table.to_string();
    let fresh = report.runs.iter().filter(|run| run.was_fresh).count();
    let _ = write!(text, "\neval: {}, {fresh} of them fresh", counted(report.runs.len(), "run"));
    if fresh == report.runs.len() {
        text.push_str("; nothing to do");
    }
    if !report.untrained.is_empty() {
        let _ = write!(text, "\nnot trained yet: {}", report.untrained.join(", "));
    }
    text
}

/// All runs on another data set.
pub fn transfer(report: &TransferReport) -> String {
    let mut table = Table::new();
    let header = ["inputs", "seed", "accuracy % [95%]", "balanced %", "macro F1 %"];
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(header);
    let percent = |share: f64| format!("{:.2}", 100.0 * share);
    for run in &report.runs {
        let scores = &run.transfer.scores;
        let [low, high] = scores.overall.interval_95;
        let accuracy = scores.overall.accuracy.map_or_else(|| "-".to_owned(), percent);
        table.add_row([
            run.combination.to_string(),
            run.seed.to_string(),
            format!("{accuracy} [{}, {}]", percent(low), percent(high)),
            percent(scores.balanced_accuracy),
            percent(scores.macro_f1),
        ]);
    }
    let left_out: Vec<String> = report.left_out.iter().map(|(class, count)| format!("{count} of {class}")).collect();
    let left_out = if left_out.is_empty() { String::new() } else { format!("; left out: {}", left_out.join(", ")) };
    let fresh = report.runs.iter().filter(|run| run.was_fresh).count();
    format!(
        "{table}\neval on `{}`: {}, {}, {fresh} of them fresh{left_out}",
        report.data.display(),
        counted(report.images, "image"),
        counted(report.runs.len(), "run"),
    )
}

/// A row per image.
pub fn predictions(predictions: &Predictions) -> String {
    let mut table = Table::new();
    let classes = predictions.classes.iter().map(|class| format!("{class} %"));
    let header: Vec<String> = ["image".to_owned(), "answer".to_owned()].into_iter().chain(classes).collect();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(header);
    for image in &predictions.images {
        let probabilities = image.probabilities.iter().map(|probability| format!("{:.1}", 100.0 * probability));
        let name = [image.path.display().to_string(), image.class.clone()];
        table.add_row(name.into_iter().chain(probabilities).collect::<Vec<_>>());
    }
    let Predictions { combination, seed, valid_accuracy, .. } = predictions;
    format!("{table}\npredict: {combination} seed {seed}, validation accuracy {:.2}%", 100.0 * valid_accuracy)
}

/// One line per stage and run.
pub fn status(status: &StudyStatus) -> String {
    let mut text = format!("extract: {}", status.extract);
    for run in &status.runs {
        let name = format!("{} seed {}", run.combination, run.seed);
        let _ = write!(text, "\ntrain {name}: {}\neval {name}: {}", run.train, run.eval);
    }
    if let Some(blocked) = &status.blocked {
        let _ = write!(text, "\ntrain, eval: {blocked}");
    }
    for variant in &status.variants {
        let _ = write!(text, "\n\nvariant {}\n{}", variant.variant, self::status(&variant.status));
    }
    text
}

/// What was read, and every damage.
pub fn verification(verification: &Verification) -> String {
    let mut text: String = verification.damaged.iter().map(|damage| format!("damaged: {damage}\n")).collect();
    let _ = write!(
        text,
        "verify: {}, {} ({:.2} GB) read, {} damaged",
        counted(verification.images, "image"),
        counted(verification.files, "other file"),
        verification.size_bytes as f64 / 1e9,
        verification.damaged.len()
    );
    text
}

/// What is of no use.
pub fn leftovers(leftovers: &Leftovers) -> String {
    let leftovers = &leftovers.leftovers;
    let mut text = String::new();
    for leftover in leftovers {
        let megabytes = leftover.size_bytes as f64 / 1e6;
        let _ = writeln!(text, "{megabytes:>10.1} MB  {} ({})", leftover.path.display(), leftover.reason);
    }
    let megabytes = leftovers.iter().map(|leftover| leftover.size_bytes).sum::<u64>() as f64 / 1e6;
    let _ = write!(text, "clean-stale: {}, {megabytes:.1} MB", counted(leftovers.len(), "leftover"));
    text
}

/// So many of `one`, which forms its plural with an s.
pub fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// The message without its hint, for lists.
pub fn without_hint(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}
