//! The report's page in headless Chromium, where there is one: on a desk and on a phone.

use std::{path::Path, process::Command};

use base64::prelude::*;
use fs_err as fs;
use harness::Study;
use serde_json::Value;

/// Names under which Chromium is installed.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// Looks at the page in `frame` and gives what it found.
const LOOK: &str = r##"
    const page = frame.contentDocument;
    const all = (selector) => [...page.querySelectorAll(selector)];
    const found = {
        broken_images: all("img").filter((image) => !(image.complete && image.naturalWidth)).map((image) => image.alt),
        images: all("img").length,
        dead_links: all("nav a").filter((link) => !page.querySelector(link.getAttribute("href"))).length,
        links: all("nav a").length,
    };
    all("details").forEach((part) => (part.open = true));
    const charts = all("figure > svg");
    found.charts = charts.length;
    found.empty_charts = charts.filter((chart) => chart.getBoundingClientRect().height < 50).length;
    found.nameless_charts = charts.filter((chart) => !chart.getAttribute("aria-label")).length;
    found.width = page.documentElement.scrollWidth;
    // Tables scroll in themselves.
    const sticks_out = (part) => part.getBoundingClientRect().right > frame.width && !part.closest(".table, pre, svg");
    found.sticking_out = all("body *").filter(sticks_out).map((part) => part.outerHTML.slice(0, 100));

    const table = page.querySelector("#table-class_f1");
    const shown = (column) => [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[column].textContent);
    const button = table.querySelectorAll("th button")[2];
    // What a keyboard reaches and presses.
    button.focus();
    found.focused = page.activeElement === button;
    found.focus_shows = frame.contentWindow.getComputedStyle(button).outlineStyle;
    button.click();
    found.ascending = shown(2);
    button.click();
    found.descending = shown(2);
    found.sorted = button.parentElement.getAttribute("aria-sort");
    const filter = table.closest(".sortable").querySelector("input");
    filter.value = "FM4 orig";
    filter.dispatchEvent(new Event("input"));
    found.filtered = shown(0);
    return found;
"##;

/// What `browser` makes of the page at `url`, and what it says meanwhile.
fn browse(browser: &str, url: &str) -> Option<(String, String)> {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--allow-file-access-from-files", "--window-size=1400,1000", "--virtual-time-budget=20000"])
        .args(["--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .output()
        .ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((text(&output.stdout), text(&output.stderr)))
}

/// A browser that shows pages here; none, and said so, without one.
fn browser() -> Option<&'static str> {
    const PAGE: &str = "data:text/html,<script>document.write('it%20'+'works')</script>";
    let shows = |browser: &&str| browse(browser, PAGE).is_some_and(|(dom, _)| dom.contains("it works"));
    let found = BROWSERS.into_iter().find(shows);
    if found.is_none() {
        eprintln!("skipped: no browser shows pages here; looked for {}", BROWSERS.join(", "));
    }
    found
}

/// Opens `page` in a frame `width` pixels wide and looks at it.
fn look(browser: &str, page: &Path, width: u32) -> Value {
    let frame = page.with_file_name(format!("frame-{width}.html"));
    let markup = format!(
        r#"<!doctype html><meta charset="utf-8"><pre id="outcome"></pre>
        <iframe id="frame" width="{width}" height="900" style="border: 0" src="{}"></iframe>
        <script>
            const look = () => {{ {LOOK} }};
            frame.onload = () => {{
                let found;
                try {{ found = look(); }} catch (error) {{ found = {{ error: String(error) }}; }}
                const bytes = new TextEncoder().encode(JSON.stringify(found));
                outcome.textContent = btoa(String.fromCharCode(...bytes));
            }};
        </script>"#,
        page.file_name().unwrap().to_str().unwrap()
    );
    fs::write(&frame, markup).unwrap();
    let url = format!("file://{}", frame.canonicalize().unwrap().display());
    let (dom, said) = browse(browser, &url).unwrap();
    fs::remove_file(&frame).unwrap();
    let complaints: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "the page writes to the console: {complaints:#?}");
    let outcome = dom.split_once("<pre id=\"outcome\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let outcome = outcome.map(|(outcome, _)| outcome).unwrap_or_default();
    assert!(!outcome.is_empty(), "the browser shows something else: {dom}\n{said}");
    let found: Value = serde_json::from_slice(&BASE64_STANDARD.decode(outcome).unwrap()).unwrap();
    assert!(found.get("error").is_none(), "{found}");
    found
}

#[test]
fn the_page_is_usable_on_a_desk_and_on_a_phone() {
    let Some(browser) = browser() else { return };
    let study = Study::new();
    let combinations = "study.combos=orig,fm3,fm4,orig+fm3,orig+fm4,fm3+fm4,orig+fm3+fm4";
    study.run("fmstudy", &["study", combinations, "recipe.steps=4", "extract.features=fm3+fm4"]);
    let page = study.path("cache/faces/report/index.html");
    for width in [1200, 400] {
        let found = look(browser, &page, width);
        let number = |name: &str| found[name].as_u64().unwrap();
        assert!(number("width") <= u64::from(width), "{found:#}");
        assert_eq!(found["broken_images"].as_array().unwrap().len(), 0, "{found}");
        assert_eq!((number("dead_links"), number("empty_charts"), number("nameless_charts")), (0, 0, 0), "{found}");
        assert!(number("images") > 10 && number("links") >= 7 && number("charts") >= 7, "{found}");
        assert!(found["focused"].as_bool().unwrap() && found["focus_shows"] != "none", "{found}");

        let numbers = |name: &str| -> Vec<f64> {
            let texts = found[name].as_array().unwrap().iter();
            texts.map(|text| text.as_str().unwrap().parse().unwrap()).collect()
        };
        let (ascending, descending) = (numbers("ascending"), numbers("descending"));
        assert_eq!(ascending.len(), 7, "{found}");
        assert!(ascending.is_sorted() && descending.iter().rev().is_sorted(), "{found}");
        assert_eq!(found["sorted"], "descending");
        let mut filtered: Vec<&str> =
            found["filtered"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        filtered.sort_unstable();
        assert_eq!(filtered, ["orig+fm3+fm4", "orig+fm4"]);
    }
}
