//! What was interrupted goes on, and ends as if it had not been.

use harness::{Study, exists_below, files_below, kill_when};

#[test]
fn a_killed_extraction_resumes_to_the_same_bytes() {
    let (whole, killed) = (Study::new(), Study::new());
    whole.run("extract", &["features=fm2+fm3"]);
    let child = killed.spawn("extract", &["features=fm2+fm3"]);
    let was_killed = kill_when(child, || exists_below(&killed.path("cache"), "fm2/00001.record.json"));
    assert!(was_killed, "the extraction finished before it could be killed");
    assert!(!exists_below(&killed.path("cache"), "manifest.json"), "the manifest comes last");
    let status = killed.run("fmstudy", &["status", "features=fm2+fm3"]);
    assert!(status.starts_with("extract: partial"), "{status}");
    let report = killed.json("extract", &["features=fm2+fm3"]);
    assert!(report["shards_written"].as_u64().unwrap() < 10, "what was done is kept: {report}");
    killed.run("fmstudy", &["clean-stale", "--yes", "features=fm2+fm3"]);
    assert_eq!(whole.feature_files(), killed.feature_files());
}

#[test]
fn a_killed_training_resumes_to_the_same_weights() {
    let long = ["recipe.steps=40", "model.dropout=0.1", "recipe.drop_path=0.1"];
    let (whole, killed) = (Study::new(), Study::new());
    for study in [&whole, &killed] {
        study.run("extract", &[]);
    }
    whole.run("train", &long);
    let child = killed.spawn("train", &long);
    let was_killed = kill_when(child, || exists_below(&killed.path("cache"), "checkpoint.safetensors"));
    assert!(was_killed, "the training finished before it could be killed");
    let status = killed.run("fmstudy", &[&["status"], &long[..]].concat());
    assert!(status.contains("train fm3 seed 0: partial ("), "{status}");
    let trained = killed.json("train", &long);
    assert!(trained["runs"][0]["trained"]["outcome"]["resumed_from"].as_u64().unwrap() > 0);
    assert_eq!(trained["runs"][0]["trained"]["model"], whole.json("train", &long)["runs"][0]["trained"]["model"]);

    let metrics = files_below(&killed.path("cache")).into_iter().find(|path| path.ends_with("metrics.jsonl")).unwrap();
    let text = fs_err::read_to_string(metrics).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let steps: Vec<u64> =
        records.filter(|record| record["kind"] == "step").map(|record| record["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=40).collect::<Vec<u64>>(), "every step is recorded once");
}

#[test]
fn what_a_training_reads_is_not_written_meanwhile() {
    let study = Study::new();
    study.run("extract", &[]);
    let sound = study.feature_files();
    let reading = stage::Lock::shared(&study.features()).unwrap();
    std::fs::copy(study.path("faces/FER2013Train/fer0000001.png"), study.path("faces/FER2013Train/fer0000020.png"))
        .unwrap();
    assert!(study.fails("extract", &[], 1).contains("is being read by another process"));
    let kept = study.run("fmstudy", &["clean-stale", "--yes", "dtype=f32"]);
    assert!(
        kept.contains("other weights, engine, precision, view, dtype or numerics"),
        "it is listed, but not removed: {kept}"
    );
    assert_eq!(study.feature_files(), sound);
    drop(reading);
    study.run("extract", &[]);
    let writing = stage::Lock::acquire(&study.features()).unwrap();
    assert!(study.fails("train", &[], 1).contains("is in use by process"));
    drop(writing);
    study.run("train", &[]);
}

#[test]
fn a_manifest_that_lags_behind_its_shards_is_written_anew() {
    let study = Study::new();
    study.run("extract", &[]);
    let path = study.features().join("manifest.json");
    let sound = std::fs::read_to_string(&path).unwrap();
    let at = sound.find("\"blake3\"").unwrap() + 12;
    let digit = if sound.as_bytes()[at] == b'0' { "1" } else { "0" };
    std::fs::write(&path, format!("{}{digit}{}", &sound[..at], &sound[at + 1..])).unwrap();
    assert!(!study.run("extract", &[]).contains("nothing to do"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), sound);
    study.run("train", &[]);
}

#[test]
fn weights_that_are_not_finite_are_no_result() {
    let study = Study::new();
    study.run("extract", &[]);
    for more in ["train.checkpoint_every=1", "train.checkpoint_every=0"] {
        let refused = study.fails("train", &["recipe.lr=1e30", "recipe.steps=1", more], 1);
        assert!(refused.contains("norm of the weights is inf") || refused.contains("is NaN"), "{refused}");
    }
    assert!(study.run("fmstudy", &["status", "recipe.lr=1e30", "recipe.steps=1"]).contains("train fm3 seed 0: "));
    assert!(study.fails("eval", &["recipe.lr=1e30", "recipe.steps=1"], 1).contains("no run"));
}
