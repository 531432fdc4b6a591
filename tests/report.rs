//! The whole study in one command, its report, figures of feature maps and answers about single images.

mod support;

use fs_err as fs;
use support::{Study, exists_below, files_below, kill_when};

/// Three combinations with two seeds: an effect of fm4 in one context, and comparisons.
const MORE: [&str; 3] = ["study.combos=fm3,fm4,fm3+fm4", "study.seeds=0,1", "extract.features=fm3+fm4"];

fn with<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [command].into_iter().chain(MORE).chain(more.iter().copied()).collect()
}

#[test]
fn a_study_is_one_command_and_leaves_a_page_that_needs_nothing_else() {
    let study = Study::new();
    let text = study.run("fmstudy", &with("study", &[]));
    assert!(text.contains("of 6 runs"), "{text}");
    let folder = study.path("cache/faces/report");
    let page = fs::read_to_string(folder.join("index.html")).unwrap();
    for part in
        ["<h2 id=\"results\">", "<h2 id=\"tables\">", "<h2 id=\"maps\">", "<h2 id=\"run\">", "<h2 id=\"provenance\">"]
    {
        assert!(page.contains(part), "no {part}");
    }
    for reference in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!page.contains(reference), "the page fetches something: {reference}");
    }
    // Drawn faces lie in class folders: the paper's figures have no place beside them.
    assert!(!page.contains("the paper's mean") && !page.contains("<h2 id=\"claims\">"), "nothing of the paper");
    let table = fs::read_to_string(folder.join("tables/combinations.csv")).unwrap();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.lines().nth(1).unwrap().starts_with("fm3,2,"), "{table}");
    for name in ["cells", "curves", "maps", "reliability"] {
        let svg = fs::read_to_string(folder.join(format!("figures/{name}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && !svg.contains("var("), "{name}: colours of its own");
        let png = fs::read(folder.join(format!("figures/{name}.png"))).unwrap();
        assert!(png.starts_with(b"\x89PNG"), "{name}");
    }

    // Nothing is computed again, and the report is the same.
    let before = study.changed();
    study.run("fmstudy", &with("report", &[]));
    let again = study.run("fmstudy", &with("study", &[]));
    assert_eq!(again, text);
    assert_eq!(fs::read_to_string(folder.join("index.html")).unwrap(), page);
    let runs = |path: &std::path::Path| path.to_string_lossy().contains("runs-v1");
    for (path, time) in study.changed().iter().filter(|(path, _)| runs(path)) {
        assert_eq!(before[path], *time, "{} was written again", path.display());
    }
}

#[test]
fn a_report_says_which_runs_are_missing() {
    let study = Study::new();
    study.run("extract", &MORE);
    assert!(study.fails("fmstudy", &with("report", &[]), 1).contains("hint: run `just study`"));
    let one: Vec<&str> = MORE.into_iter().chain(["combo=fm3", "seed=1"]).collect();
    study.run("train", &one);
    study.run("eval", &one);
    let written = study.json("fmstudy", &with("report", &["report.dir=elsewhere"]));
    assert_eq!((&written["runs"], written["missing"].as_array().unwrap().len()), (&1.into(), 5));
    let page = fs::read_to_string(study.path("elsewhere/index.html")).unwrap();
    assert!(page.contains("5 runs of this study are not there yet"));
    assert!(page.contains("fm3 seed 0"), "they are named");
}

#[test]
fn a_killed_study_goes_on_where_it_was() {
    let whole = Study::new();
    whole.run("fmstudy", &with("study", &[]));
    let killed = Study::new();
    let cache = killed.path("cache/faces");
    let moments: [(&str, &dyn Fn() -> bool); 3] = [
        ("a shard", &|| exists_below(cache.join("features-v1"), ".safetensors")),
        ("a checkpoint", &|| exists_below(cache.join("runs-v1"), "checkpoint.safetensors")),
        ("an answer", &|| exists_below(cache.join("runs-v1"), "test_logits.npy")),
    ];
    for (moment, reached) in moments {
        if !kill_when(killed.spawn("fmstudy", &with("study", &[])), reached) {
            eprintln!("the study was done before it could be killed at {moment}");
        }
    }
    killed.run("fmstudy", &with("study", &[]));
    let answers = |study: &Study| {
        let runs = study.path("cache/faces/runs-v1");
        let files = files_below(&runs).into_iter().filter(|path| path.ends_with("evaluation/test_logits.npy"));
        let found: Vec<_> =
            files.map(|path| (path.strip_prefix(&runs).unwrap().to_owned(), fs::read(path).unwrap())).collect();
        assert_eq!(found.len(), 6);
        found
    };
    assert!(answers(&whole) == answers(&killed), "other answers than those of an uninterrupted study");
}

#[test]
fn an_answer_about_a_file_is_the_one_that_eval_gave() {
    let study = Study::new();
    study.run("fmstudy", &with("study", &[]));
    let folder = study.json("eval", &[MORE[0], MORE[1], MORE[2], "combo=fm3+fm4", "seed=1"]);
    let folder = folder["runs"][0]["folder"].as_str().unwrap();
    let answers = study.path(folder).join("evaluation/test_predictions.csv");
    let answers = fs::read_to_string(answers).unwrap();
    let row: Vec<&str> = answers.lines().nth(1).unwrap().split(',').collect();
    let image = format!("image={}", row[0]);
    let predicted = study.json("fmstudy", &with("predict", &[&image, "combo=fm3+fm4", "seed=1"]));
    assert_eq!(predicted["images"][0]["class"], row[2]);
    let probabilities = predicted["images"][0]["probabilities"].as_array().unwrap();
    for (got, expected) in probabilities.iter().zip(&row[3..]) {
        let (got, expected) = (got.as_f64().unwrap(), expected.parse::<f64>().unwrap());
        assert!((got - expected).abs() < 1e-4, "{got}, {expected}");
    }
    // A folder, and the run that is best on the validation images.
    let folder = study.path("faces/test/happiness");
    let images = fs::read_dir(&folder).unwrap().count();
    let text = study.run("fmstudy", &with("predict", &[&format!("image={}", folder.display())]));
    assert_eq!(text.lines().filter(|line| line.contains(".png")).count(), images, "{text}");
    assert!(study.fails("fmstudy", &with("predict", &["image=nobody.png"]), 1).contains("no image `nobody.png`"));
    assert!(study.fails("fmstudy", &with("predict", &[]), 1).contains("just predict image=face.png"));
}

#[test]
fn figures_show_any_image() {
    let study = Study::new();
    study.run("extract", &MORE);
    let face = files_below(&study.path("faces/test")).into_iter().find(|path| path.extension().is_some()).unwrap();
    fs::copy(&face, study.path("mine.png")).unwrap();
    let drawn = study.json("fmstudy", &with("figure", &["images=mine.png", "figure.channels=2"]));
    assert_eq!(drawn["images"].as_array().unwrap().len(), 1);
    let svg = fs::read_to_string(study.path(drawn["svg"].as_str().unwrap())).unwrap();
    // The image, and of both maps the mean and two channels.
    assert_eq!(svg.matches("<image").count(), 1 + 2 * 3, "{svg}");
    assert!(fs::read(study.path(drawn["png"].as_str().unwrap())).unwrap().starts_with(b"\x89PNG"));
    // Without a name, a test image of each class.
    let drawn = study.json("fmstudy", &with("figure", &[]));
    assert!(drawn["images"].as_array().unwrap().len() > 3, "{drawn}");
}
