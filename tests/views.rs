//! Mirror images as a second view: extracted beside the others, drawn in training, averaged in evaluation.

use fs_err as fs;
use harness::{Study, files_below};

const VIEWS: &str = "extract.views=plain+flip";

#[test]
fn the_second_view_has_a_cache_of_its_own() {
    let study = Study::new();
    let plain = study.json("extract", &[]);
    let both = study.json("extract", &[VIEWS]);
    assert_eq!(both["shards_written"], plain["shards"], "only the mirror images are computed");
    assert_eq!(both["shards"].as_u64(), plain["shards"].as_u64().map(|shards| 2 * shards));
    assert!(study.run("extract", &[VIEWS]).contains("nothing to do"));
    assert!(study.run("extract", &[]).contains("nothing to do"));

    // Without views the features of the mirror images are of no use, with them they are.
    study.run("train", &[]);
    let status = study.run("fmstudy", &["status", VIEWS]);
    assert!(status.starts_with("extract: fresh\ntrain fm3 seed 0: stale (features.fm3.flip"), "{status}");
    let verified = study.json("fmstudy", &["verify", VIEWS]);
    assert_eq!(verified["damaged"].as_array().unwrap().len(), 0);
    let leftovers = |arguments: &[&str]| {
        let found = study.output("fmstudy", &[&["clean-stale"], arguments].concat());
        String::from_utf8(found.stdout).unwrap()
    };
    assert!(!leftovers(&[VIEWS]).contains("features-v2"), "{}", leftovers(&[VIEWS]));
    assert!(leftovers(&[]).contains("other weights, engine, precision, view"), "{}", leftovers(&[]));
}

#[test]
fn mirror_images_get_the_answers_of_their_originals() {
    let study = Study::new();
    let more = [VIEWS, "study.combos=orig+fm3"];
    for stage in ["extract", "train", "eval"] {
        study.run(stage, &more);
    }
    // The same face and its mirror image are two views of each other.
    let face =
        files_below(&study.path("faces/FER2013Test")).into_iter().find(|path| !path.ends_with("label.csv")).unwrap();
    let mirrored = image::open(&face).unwrap().fliph();
    mirrored.save(study.path("mirrored.png")).unwrap();
    let image = format!("image={},mirrored.png", face.display());
    let probabilities = |arguments: &[&str]| -> Vec<Vec<f64>> {
        let predicted = study.json("fmstudy", &[&["predict", &image], arguments].concat());
        let of_image = |image: &serde_json::Value| serde_json::from_value(image["probabilities"].clone()).unwrap();
        predicted["images"].as_array().unwrap().iter().map(of_image).collect()
    };
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    let both = probabilities(&more);
    assert!(close(&both[0], &both[1]), "{both:?}");

    // And eval averages over the caches of both views as predict does over both passes.
    let run = study.json("eval", &more)["runs"][0]["folder"].as_str().unwrap().to_owned();
    let answers = fs::read_to_string(study.path(&run).join("evaluation/test_predictions.csv")).unwrap();
    let name = face.file_name().unwrap().to_string_lossy().into_owned();
    let row = answers.lines().find(|line| line.contains(&name)).unwrap();
    let evaluated: Vec<f64> = row.split(',').skip(3).map(|word| word.parse().unwrap()).collect();
    assert!(close(&evaluated, &both[0]), "{evaluated:?} {both:?}");

    // One view alone tells the two apart.
    let plain = ["study.combos=orig+fm3"];
    study.run("train", &plain);
    let single = probabilities(&plain);
    assert!(!close(&single[0], &single[1]), "{single:?}");
}

#[test]
fn the_views_that_training_draws_follow_from_the_seed() {
    let model = |arguments: &[&str]| {
        let study = Study::new();
        let arguments: Vec<&str> = [VIEWS].into_iter().chain(arguments.iter().copied()).collect();
        study.run("extract", &arguments);
        let trained = study.json("train", &arguments);
        trained["runs"][0]["trained"]["model"].as_str().unwrap().to_owned()
    };
    let first = model(&[]);
    assert_eq!(model(&["threads=1"]), first);
    assert_ne!(model(&["seed=1"]), first);
}
