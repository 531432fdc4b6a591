use maud::{Markup, html};

use crate::{
    faces::{Mistake, Portrait},
    tables::Table,
};

/// What the colours of a chart mean: classes of the style sheet and words.
pub(super) fn key(entries: &[(&str, &str)]) -> Markup {
    html! { span.key.soft { @for (class, words) in entries { span class=(class) { (words) } } } }
}

/// A table that sorts, and filters if it is long.
pub(super) fn sortable(table: &Table, filters: bool) -> Markup {
    html! {
        div.sortable {
            @if filters && table.rows.len() > 6 {
                label.filter { "Filter " input type="search" aria-label={ "Filter: " (table.caption) }; }
            }
            div.table tabindex="0" role="region" aria-label=(table.caption) {
                table id={ "table-" (table.name) } {
                    caption { (table.caption) }
                    thead { tr { @for column in &table.columns { th scope="col" { button type="button" { (column) } } } } }
                    tbody { @for row in &table.rows { tr { @for cell in row { td { (cell) } } } } }
                }
            }
        }
    }
}

pub(super) fn portraits(portraits: &[Portrait]) -> Markup {
    html! {
        div.gallery {
            @for portrait in portraits {
                div {
                    div.portrait {
                        (picture(&portrait.original.data_url, &format!("{}: the image", portrait.id), "image"))
                        @for (source, map) in &portrait.maps {
                            (picture(&map.data_url, &format!("{}: channel mean of {source}", portrait.id), source.name()))
                        }
                        (picture(&portrait.attention.data_url, &format!("{}: attention", portrait.id), "attention"))
                    }
                    p.soft { strong { (portrait.class) } " (" (portrait.votes) "), " code { (portrait.id) } }
                }
            }
        }
    }
}

pub(super) fn mistakes(mistakes: &[Mistake]) -> Markup {
    html! {
        div.mistakes {
            @for mistake in mistakes {
                figure {
                    div.faces {
                        img src=(mistake.original.data_url) alt={ (mistake.id) ": the image" };
                        img src=(mistake.attention.data_url) alt={ (mistake.id) ": attention" };
                    }
                    figcaption {
                        strong { (mistake.answer) " " (format!("{:.0}%", mistake.confidence)) } ", labelled " (mistake.label) br;
                        "votes: " (mistake.votes) br; code { (mistake.id) }
                    }
                }
            }
        }
    }
}

fn picture(data_url: &str, alt: &str, caption: &str) -> Markup {
    html! { figure { img src=(data_url) alt=(alt) loading="lazy"; figcaption { (caption) } } }
}
