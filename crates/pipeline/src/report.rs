//! Results as text for the terminal.

use crate::{Context, extraction::ExtractionReport};

/// What an extraction did, below the data audit.
pub fn extraction(context: &Context, report: &ExtractionReport) -> String {
    let features: Vec<&str> = report.features.iter().map(|source| source.name()).collect();
    let features = features.join("+");
    let size_gb = report.size_bytes as f64 / 1e9;
    if report.shards_written == 0 && report.engine.is_none() {
        return format!("extract {features}: fresh ({} images, {size_gb:.2} GB); nothing to do", report.images);
    }
    let rate = report.images_computed as f64 / report.wall_s;
    format!(
        "{}\nextract {features}: {} of {} shards written, {} images in {:.1} s ({rate:.1} images/s, {}); \
         {} images, {size_gb:.2} GB in `{}`",
        context.dataset.audit,
        report.shards_written,
        report.shards,
        report.images_computed,
        report.wall_s,
        report.engine.as_deref().unwrap_or("nothing computed"),
        report.images,
        report.cache.display(),
    )
}
