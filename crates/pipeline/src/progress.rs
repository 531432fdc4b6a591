use std::{fmt::Write, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// A progress bar on stderr with rate and remaining time, or one that draws nothing. indicatif itself hides
/// bars where stderr is no terminal.
pub(crate) fn bar(visible: bool, length: u64, what: &str, unit: &str) -> ProgressBar {
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let template = format!("{{prefix:<24}} {{wide_bar}} {{pos}}/{{len}} {unit}  {{rate}}/s  {{eta}} left  {{msg}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    // indicatif's own rate has four decimals.
    let style = style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
        // Nothing can be done about a terminal that is gone.
        let _ = write!(out, "{:.1}", state.per_sec());
    });
    let bar = ProgressBar::with_draw_target(Some(length), target).with_style(style).with_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
