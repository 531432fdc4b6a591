//! The whole study in one command, its report, figures of feature maps and answers about single images.

use fs_err as fs;
use harness::{Study, exists_below, files_below, kill_when};

/// Three combinations with two seeds: an effect of fm4 in one context, and comparisons.
const MORE: [&str; 3] = ["study.combos=fm3,fm4,fm3+fm4", "study.seeds=0,1", "extract.features=fm3+fm4"];

/// Whether a PNG has more than a few colours: letters alone have shades of grey.
fn shows_something(png: &[u8]) -> bool {
    let pixels = image::load_from_memory(png).unwrap().into_rgb8();
    let colours: std::collections::HashSet<_> = pixels.pixels().filter(|pixel| pixel[0] != pixel[2]).collect();
    colours.len() > 10
}

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
    let table = fs::read_to_string(folder.join("tables/table1.csv")).unwrap();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.lines().nth(1).unwrap().starts_with("fm3,2,91.64,"), "{table}");
    let effects = fs::read_to_string(folder.join("tables/effects.csv")).unwrap();
    assert_eq!(effects.lines().count(), 3, "fm3 and fm4 in one context each: {effects}");
    let spread = fs::read_to_string(folder.join("tables/spread.csv")).unwrap();
    assert!(spread.lines().count() == 7 && spread.contains("\ntest,3,3,"), "three combinations of two seeds: {spread}");
    let runs = fs::read_to_string(folder.join("tables/runs.csv")).unwrap();
    let columns = "inputs,seed,train %,valid %,test %,without copies %,balanced %,macro F1 %,ECE %,";
    assert!(runs.starts_with(columns) && runs.lines().count() == 7, "{runs}");
    for name in ["cells", "curves", "maps", "reliability"] {
        let svg = fs::read_to_string(folder.join(format!("figures/{name}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && !svg.contains("var("), "{name}: colours of its own");
        let png = fs::read(folder.join(format!("figures/{name}.png"))).unwrap();
        assert!(shows_something(&png), "{name}");
    }

    // Other faces than the paper's have nothing of it beside them.
    study.run("fmstudy", &with("report", &["study.paper=false", "report.dir=alone"]));
    let alone = fs::read_to_string(study.path("alone/index.html")).unwrap();
    assert!(!alone.contains("<h2 id=\"claims\">") && !alone.contains("the paper's mean"), "something of the paper");
    assert!(!study.path("alone/tables/table1.csv").exists());
    let table = fs::read_to_string(study.path("alone/tables/combinations.csv")).unwrap();
    assert_eq!(table.lines().count(), 4, "{table}");

    // Nothing is computed again, and the report is the same.
    let before = study.changed();
    study.run("fmstudy", &with("report", &[]));
    let again = study.run("fmstudy", &with("study", &[]));
    assert_eq!(again, text);
    assert_eq!(fs::read_to_string(folder.join("index.html")).unwrap(), page);
    let runs = |path: &std::path::Path| path.to_string_lossy().contains("runs-v2");
    for (path, time) in study.changed().iter().filter(|(path, _)| runs(path)) {
        assert_eq!(before[path], *time, "{} was written again", path.display());
    }
}

#[test]
fn a_report_says_which_runs_are_missing() {
    let study = Study::new();
    study.run("extract", &MORE);
    let expected = format!("hint: run `just study {}`", MORE.join(" "));
    assert!(study.fails("fmstudy", &with("report", &[]), 1).contains(&expected));
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
        ("a shard", &|| exists_below(&cache.join("features-v2"), ".safetensors")),
        ("a checkpoint", &|| exists_below(&cache.join("runs-v2"), "checkpoint.safetensors")),
        ("an answer", &|| exists_below(&cache.join("runs-v2"), "test_logits.npy")),
    ];
    for (moment, reached) in moments {
        if !kill_when(killed.spawn("fmstudy", &with("study", &[])), reached) {
            eprintln!("the study was done before it could be killed at {moment}");
        }
    }
    killed.run("fmstudy", &with("study", &[]));
    let answers = |study: &Study| {
        let runs = study.path("cache/faces/runs-v2");
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
    let folder = study.path("faces/FER2013Test");
    let images =
        files_below(&folder).iter().filter(|path| path.extension().is_some_and(|ending| ending == "png")).count();
    let text = study.run("fmstudy", &with("predict", &[&format!("image={}", folder.display())]));
    assert_eq!(text.lines().filter(|line| line.contains(".png")).count(), images, "{text}");
    assert!(study.fails("fmstudy", &with("predict", &["image=nobody.png"]), 1).contains("no image `nobody.png`"));
    fs::write(study.path("no.png"), "no image").unwrap();
    let refused = study.fails("fmstudy", &with("predict", &["image=no.png"]), 1);
    assert!(refused.contains("`no.png` is no PNG, JPEG or BMP image\n\nhint: name another image"), "{refused}");
    let refused = study.fails("fmstudy", &with("predict", &[]), 1);
    assert!(refused.contains(&format!("just predict {} image=face.png", MORE.join(" "))), "{refused}");
}

#[test]
fn figures_show_any_image() {
    let study = Study::new();
    study.run("extract", &MORE);
    let face =
        files_below(&study.path("faces/FER2013Test")).into_iter().find(|path| !path.ends_with("label.csv")).unwrap();
    fs::copy(&face, study.path("mine.png")).unwrap();
    let drawn = study.json("fmstudy", &with("figure", &["images=mine.png", "figure.channels=2"]));
    assert_eq!(drawn["images"].as_array().unwrap().len(), 1);
    let svg = fs::read_to_string(study.path(drawn["svg"].as_str().unwrap())).unwrap();
    // The image, and of both maps the mean and two channels.
    assert_eq!(svg.matches("<image").count(), 1 + 2 * 3, "{svg}");
    assert!(shows_something(&fs::read(study.path(drawn["png"].as_str().unwrap())).unwrap()));
    // Without a name, a test image of each class.
    let drawn = study.json("fmstudy", &with("figure", &[]));
    assert!(drawn["images"].as_array().unwrap().len() > 3, "{drawn}");
}

#[test]
fn runs_are_judged_on_another_data_set() {
    let study = Study::new();
    study.run("extract", &MORE);
    study.run("train", &MORE);
    let faces = files_below(&study.path("faces/FER2013Test"));
    let faces: Vec<_> = faces.iter().filter(|path| !path.ends_with("label.csv")).collect();
    for (class, face) in ["joy", "Sad", "disgust", "masked"].iter().zip(&faces) {
        fs::create_dir_all(study.path("other").join(class)).unwrap();
        fs::copy(face, study.path("other").join(class).join("face.png")).unwrap();
    }
    let unknown = study.fails("eval", &with("data=other", &[]), 1);
    assert!(unknown.contains("masked") && unknown.contains("happiness (happy, joy)"), "{unknown}");
    let asked = with("data=other", &["eval.class_names=masked=none"]);
    let judged = study.json("eval", &asked);
    assert_eq!(judged["images"], 2, "one of disgust is left out");
    assert_eq!(judged["left_out"]["disgust"], 1);
    assert_eq!(judged["runs"].as_array().unwrap().len(), 6);
    assert_eq!(judged["runs"][0]["transfer"]["scores"]["overall"]["images"], 2);
    // Another folder of the same name is another data set.
    fs::create_dir_all(study.path("elsewhere/other/sad")).unwrap();
    fs::copy(faces[5], study.path("elsewhere/other/sad/face.png")).unwrap();
    assert!(study.run("eval", &with("data=elsewhere/other", &[])).contains("1 image, 6 runs, 0 of them fresh"));
    let again = study.run("eval", &with("data=./other/", &["eval.class_names=masked=none"]));
    assert!(again.contains("6 runs, 6 of them fresh; left out: 1 of disgust"), "{again}");
    // Another image is another question.
    fs::copy(faces[4], study.path("other/joy/second.png")).unwrap();
    assert!(study.run("eval", &asked).contains("3 images, 6 runs, 0 of them fresh"));
    study.run("fmstudy", &with("report", &[]));
    let table = || fs::read_to_string(study.path("cache/faces/report/tables/transfers.csv")).unwrap();
    assert_eq!(table().lines().count(), 1 + 2 * 6, "the report shows it: {}", table());
    assert!(table().contains("/other,fm3,0,3,1 disgust,"), "{}", table());
    // What has changed since is not shown, nor what is left of an earlier report.
    fs::copy(faces[6], study.path("other/joy/third.png")).unwrap();
    study.run("fmstudy", &with("report", &[]));
    assert_eq!(table().lines().count(), 1 + 6, "{}", table());
    fs::copy(faces[6], study.path("elsewhere/other/sad/another.png")).unwrap();
    study.run("fmstudy", &with("report", &[]));
    assert!(!study.path("cache/faces/report/tables/transfers.csv").exists());
}

#[test]
fn variants_are_part_of_the_study() {
    let study = Study::new();
    let variants = "study.variants=model.collapse=mean,classes=8 loss.weights=inverse";
    let text = study.run("fmstudy", &with("study", &[variants]));
    assert!(text.contains("of 6 runs"), "the page is about the study itself: {text}");
    let table = fs::read_to_string(study.path("cache/faces/report/tables/variants.csv")).unwrap();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 4, "{table}");
    assert!(rows[1].starts_with("this study,3,") && rows[2].starts_with("model.collapse=mean,3,"), "{table}");
    assert!(rows[3].starts_with("classes=8 loss.weights=inverse,3,–,–,"), "eight classes are not the paper's: {table}");
    // What a variant changes is the difference of the means, where all seeds are the same; eight classes ask about other labels.
    let changes = fs::read_to_string(study.path("cache/faces/report/tables/changes.csv")).unwrap();
    let rows_of_changes: Vec<Vec<&str>> = changes.lines().map(|row| row.split(',').collect()).collect();
    assert_eq!(rows_of_changes.len(), 2, "{changes}");
    assert_eq!(rows_of_changes[1][..2], ["model.collapse=mean", "2"], "{changes}");
    let test = |row: usize| rows[row].split(',').nth(6).unwrap().parse::<f64>().unwrap();
    let change: f64 = rows_of_changes[1][3].trim_matches('"').split(' ').next().unwrap().parse().unwrap();
    assert!((change - (test(2) - test(1))).abs() < 0.011, "{table}{changes}");
    let status = study.run("fmstudy", &with("status", &[variants]));
    assert!(status.contains("\n\nvariant model.collapse=mean\nextract: fresh\ntrain fm3 seed 0: fresh"), "{status}");
    // A variant that fails is told of, and keeps nothing else from being done.
    let failing = study.fails(
        "fmstudy",
        &with("study", &["study.variants=recipe.lr=1e30,data.dir=absent,model.collapse=max"]),
        1,
    );
    assert!(failing.contains("3 things failed") && failing.contains("no data set at `absent`"), "{failing}");
    let table = fs::read_to_string(study.path("cache/faces/report/tables/variants.csv")).unwrap();
    assert!(
        table.contains("data.dir=absent,no data set at `absent`") && table.contains("model.collapse=max,3,"),
        "{table}"
    );
    // What a variant uses is no leftover, until it is no variant any more.
    let kept = study.run("fmstudy", &with("clean-stale", &[variants, "--yes"]));
    assert!(kept.contains("12 leftovers"), "six runs of each of the other two: {kept}");
    // Weights make another run, and leave the others what they are.
    assert!(study.run("fmstudy", &with("status", &[])).contains("train fm3 seed 0: fresh"));
    let weighted = study.run("fmstudy", &with("status", &["loss.weights=effective"]));
    assert!(weighted.contains("train fm3 seed 0: stale (loss.weights"), "{weighted}");
    let gone = study.run("fmstudy", &with("clean-stale", &["--yes"]));
    assert!(gone.contains("12 leftovers"), "{gone}");
}

#[test]
fn names_from_outside_are_text_on_the_page() {
    let study = Study::new();
    let faces = study.path("faces <b>&");
    fs::rename(study.path("faces"), &faces).unwrap();
    let table = fs::read_to_string(faces.join("fer2013new.csv")).unwrap();
    fs::write(faces.join("fer2013new.csv"), table.replace("PrivateTest,fer", "PrivateTest,<i>&fer")).unwrap();
    for image in files_below(&faces.join("FER2013Test")) {
        let name = image.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".png") {
            fs::rename(&image, image.with_file_name(format!("<i>&{name}"))).unwrap();
        }
    }
    study.run("fmstudy", &["study", "data.dir=faces <b>&"]);
    let page = fs::read_to_string(study.path("cache/faces <b>&/report/index.html")).unwrap();
    assert!(page.contains("faces &lt;b&gt;&amp;") && page.contains("&lt;i&gt;&amp;fer"), "the names are there");
    assert!(!page.contains("faces <b>") && !page.contains("<i>"), "and are no markup");
}
