//! The report as one page that needs nothing but itself.

mod parts;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{
    Report,
    analysis::Verdict,
    figures::Chart,
    tables::{self, Table},
};
use parts::{key, mistakes, portraits, sortable};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("tables.js");

/// Letters of a fact that takes the whole width.
const LONG_FACT: usize = 80;

/// The whole page.
pub fn page(report: &Report) -> String {
    let title = format!("fmstudy: {}", report.provenance.data_set);
    let tables_title = if report.agreement.is_some() { "The paper's tables" } else { "All combinations" };
    let sections = [
        ("results", "Results", results(report)),
        ("claims", "What the paper concludes, tested", claims(report)),
        ("tables", tables_title, beside_the_paper(report)),
        ("effects", "What each input adds", effects(report)),
        ("variants", "Other configurations", variants(report)),
        ("transfers", "Other data sets", transfers(report)),
        ("maps", "Feature maps", maps(report)),
        ("run", "The best run", Some(best_run(report))),
        ("each", "Every combination", Some(each(report))),
        ("provenance", "Where the numbers come from", provenance(report)),
    ];
    let sections = sections.into_iter().filter_map(|(id, title, content)| Some((id, title, content?)));
    let sections: Vec<(&str, &str, Markup)> = sections.collect();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Which intermediate features help facial expression recognition?" }
                    p.soft {
                        "Feature maps of a frozen ResNet-18 and the original image, in combinations, read by a Vision "
                        "Transformer: the experiment of Oh & Yoo (2023), on " (report.provenance.data_set) "."
                    }
                    (facts(report))
                    nav aria-label="Sections" { ul { @for (id, title, _) in &sections { li { a href={ "#" (id) } { (title) } } } } }
                }
                main {
                    @for (id, title, content) in &sections {
                        section { h2 id=(id) { (title) } (content) }
                    }
                }
                footer {
                    p { "Written by fmstudy " (report.provenance.version) ". Rebuild it with " code { (report.provenance.command) } "." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    markup.into_string()
}

fn facts(report: &Report) -> Markup {
    let provenance = &report.provenance;
    html! {
        dl.facts {
            @for (name, value) in &provenance.facts { div { dt { (name) } dd { (value) } } }
        }
        @if !report.missing.is_empty() {
            p { strong { (report.missing.len()) " runs of this study are not there yet" } ": " (shortened(&report.missing)) "." }
        }
    }
}

fn shortened(names: &[String]) -> String {
    const MOST: usize = 8;
    let shown = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn results(report: &Report) -> Option<Markup> {
    let chart = report.charts.get("cells")?;
    let has_paper = report.cells_table.iter().any(|table| table.name != "combinations");
    Some(html! {
        p {
            "Test accuracy. With several seeds the line is Student's 95% interval of their mean, which says how much the seed "
            "decides; with one seed it is Wilson's, which says how much the choice of test images decides. One more run, such as each of "
            "the paper's, may lie further off than the mean does."
        }
        (key(&[("ours", "ours")])) @if has_paper { (key(&[("paper", "the paper")])) }
        (figure(chart))
    })
}

fn claims(report: &Report) -> Option<Markup> {
    let analysis = (!report.analysis.claims.is_empty()).then_some(&report.analysis)?;
    let class = |verdict| match verdict {
        Verdict::Holds => "holds",
        Verdict::DoesNotHold => "does-not-hold",
        Verdict::CannotBeTold => "cannot-be-told",
    };
    Some(html! {
        p {
            "Runs of the same seed are compared on the same test images by McNemar's exact test; where both have several seeds, the "
            "largest p counts, so that a difference has to show with each. A single seed decides nothing: the test knows "
            "the choice of test images only, not what another seed would have changed."
            @if analysis.tests > 0 {
                " Holm's method adjusts them together with the effects below, at 5% (tests: " (analysis.tests) ")."
            }
        }
        ul.claims {
            @for claim in &analysis.claims {
                li class=(class(claim.verdict)) { span.verdict { (claim.verdict) } ". " strong { (claim.statement) } ". " (claim.because) }
            }
        }
        details { summary { "All comparisons" } (sortable(&tables::comparisons(analysis), true)) }
    })
}

fn beside_the_paper(report: &Report) -> Option<Markup> {
    Some(html! {
        p {
            "Means over the seeds with their 95% intervals (one seed: Wilson's). "
            @if report.agreement.is_some() { (within(!report.analysis.spread.is_empty())) }
            "‘Without copies’ leaves out the test images that show what a training image shows, byte for byte or nearly."
        }
        @for table in &report.cells_table { (sortable(table, true)) }
        @if let Some(table) = tables::spread(&report.analysis.spread) { (sortable(&table, false)) }
        @if let Some(agreements) = &report.agreement { (sortable(&tables::agreement(agreements), false)) }
    })
}

/// What the columns say of the paper's figure.
fn within(several_seeds: bool) -> &'static str {
    if several_seeds {
        "The paper's accuracies are those of one run each. ‘Within one run's range’ says whether they lie where 95% of further runs \
         of ours would: Student's prediction interval, from the standard deviation over the seeds that is pooled over all \
         combinations. What another choice of test images would change is not in it. "
    } else {
        "With a single seed nothing is known of what another would change: ‘within Wilson's interval of one run’ says whether the \
         choice of images alone explains the difference from the paper's accuracy. "
    }
}

fn effects(report: &Report) -> Option<Markup> {
    let analysis = &report.analysis;
    let chart = report.charts.get("effects")?;
    let has_paper = analysis.effects.iter().any(|effect| effect.paper_mean.is_some());
    Some(html! {
        p {
            "The change of test accuracy when an input is added to each set of the others. Small dots are the contexts, the large one is "
            "their mean with Student's 95% interval; p is that of the exact randomisation of the signs. All contexts share the same "
            "test images, which neither knows of. The mean may rest on one odd context: the median does not."
            @if let Some(weakest) = analysis.weakest_input {
                " To " (weakest) ", our weakest single input, any other may add more than it does elsewhere; the mean is also given "
                "without that context."
            }
            @if has_paper {
                " The paper's FM4 alone (42.56%) does not fit what FM4 holds; the last column leaves the change from it out."
            }
        }
        (key(&[("ours", "mean of ours")])) @if has_paper { (key(&[("paper", "mean of the paper's")])) }
        (figure(chart))
        (sortable(&tables::effects(analysis), false))
    })
}

fn variants(report: &Report) -> Option<Markup> {
    (!report.variants.is_empty()).then(|| html! {
        p {
            "The same study with other settings: guesses at what the paper left open, scored by how close they come to its cells, and "
            "steps beyond it. What each changes is tested over the seeds that both have, by the signs of their differences: fewer than six "
            "seeds cannot tell, however large it is."
        }
        @for table in &report.variants {
            (sortable(table, false))
        }
    })
}

fn transfers(report: &Report) -> Option<Markup> {
    let table = report.transfers.as_ref()?;
    Some(html! {
        p { "The runs, trained on " (report.provenance.data_set) " alone, asked about the images of other data sets." }
        (sortable(table, true))
    })
}

fn maps(report: &Report) -> Option<Markup> {
    (!report.portraits.is_empty()).then(|| html! {
        p {
            "One test image of each class, the one with the most agreement among its annotators, if there were any, and the mean over the channels of each of its "
            "feature maps (viridis, from its 1st to its 99th percentile), as in the paper's Figure 3. Last: where the best run "
            "looks, by attention roll-out over the token grid."
        }
        (portraits(&report.portraits))
    })
}

fn best_run(report: &Report) -> Markup {
    let best = &report.best;
    let chart = |name: &str| report.charts.get(name).map(figure);
    html! {
        p {
            "The run with the highest validation accuracy: " strong { (best.name) } ", " (best.accuracies) "."
        }
        h3 { "Learning curves" }
        (key(&[("ours", "training images, each batch before it is learned"), ("valid", "validation images")]))
        @if let Some(chart) = chart("curves") { (chart) }
        h3 { "Classes" }
        (confusion(&best.confusion))
        (sortable(&best.classes, false))
        h3 { "Calibration" }
        p {
            "Expected calibration error over 15 bins: " strong { (best.calibration_error) } ". First: accuracy by confidence; on the "
            "diagonal a model is as often right as it says."
            @if report.charts.contains_key("votes") { " Then: confidence and accuracy where the annotators agree less and less." }
        }
        div.pair {
            @if let Some(chart) = chart("reliability") { (chart) }
            @if let Some(chart) = chart("votes") { div { (key(&[("ours", "confidence"), ("valid", "accuracy")])) (chart) } }
        }
        h3 { "Most confidently wrong" }
        p { "Test images, each with where the run looks." }
        (mistakes(&report.mistakes))
    }
}

fn each(report: &Report) -> Markup {
    let folded = |title: &str, name: &str, key: Markup| {
        let chart = report.charts.get(name)?;
        Some(html! { details { summary { (title) } (key) (figure(chart)) } })
    };
    let curves_key = key(&[("ours", "training images"), ("valid", "validation images")]);
    html! {
        (sortable(&report.class_f1, true))
        @for part in [
            folded("Learning curves", "all_curves", curves_key),
            folded("Confusion matrices", "all_confusions", html! {}),
            folded("Calibration", "all_reliabilities", html! {}),
        ] { @if let Some(part) = part { (part) } }
    }
}

/// The matrix with each row's shares as shades.
fn confusion(table: &Table) -> Markup {
    let total = |row: &[String]| row[1..].iter().filter_map(|cell| cell.parse::<f64>().ok()).sum::<f64>().max(1.0);
    html! {
        div.table tabindex="0" role="region" aria-label=(table.caption) {
            table {
                caption { (table.caption) }
                thead { tr { @for column in &table.columns { th scope="col" { (column) } } } }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (index, cell) in row.iter().enumerate() {
                                @if index == 0 { th scope="row" { (cell) } } @else {
                                    @let share = cell.parse::<f64>().unwrap_or(0.0) / total(row);
                                    td.shade style={ "--share: " (format!("{share:.3}")) } { (cell) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn provenance(report: &Report) -> Option<Markup> {
    let provenance = &report.provenance;
    Some(html! {
        dl.facts {
            @for (name, value) in provenance.program.iter().chain(&provenance.machine) {
                div.long[value.len() > LONG_FACT] { dt { (name) } dd { (value) } }
            }
        }
        h3 { "Configuration" }
        pre { (provenance.configuration) }
        h3 { "Data audit" }
        pre { (provenance.audit) }
        h3 { "Runs" }
        (sortable(&provenance.runs, true))
        h3 { "Command" }
        pre { (provenance.command) }
    })
}

fn figure(chart: &Chart) -> Markup {
    html! { figure { (PreEscaped(chart.inline())) figcaption { (chart.description) "." } } }
}
