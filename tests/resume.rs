//! What was interrupted goes on, and ends as if it had not been.

#![allow(clippy::unwrap_used, reason = "a test that cannot watch its process has failed")]

mod support;

use std::{path::PathBuf, thread::sleep, time::Duration};

use support::{Study, files_below};

/// Kills `child` as soon as `reached` holds; false if it finished before.
fn kill_when(mut child: std::process::Child, reached: impl Fn() -> bool) -> bool {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return false;
        }
        if reached() {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        sleep(Duration::from_millis(2));
    }
}

fn exists_below(folder: PathBuf, ending: &str) -> bool {
    folder.is_dir() && files_below(&folder).iter().any(|path| path.to_string_lossy().ends_with(ending))
}

#[test]
fn a_killed_extraction_resumes_to_the_same_bytes() {
    let (whole, killed) = (Study::new(), Study::new());
    whole.run("extract", &["features=fm2+fm3"]);
    let child = killed.spawn("extract", &["features=fm2+fm3"]);
    let was_killed = kill_when(child, || exists_below(killed.path("cache"), "fm2/00001.record.json"));
    assert!(was_killed, "the extraction finished before it could be killed");
    assert!(!exists_below(killed.path("cache"), "manifest.json"), "the manifest comes last");
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
    let was_killed = kill_when(child, || exists_below(killed.path("cache"), "checkpoint.safetensors"));
    assert!(was_killed, "the training finished before it could be killed");
    let status = killed.run("fmstudy", &[&["status"], &long[..]].concat());
    assert!(status.contains("train fm3 seed 0: partial ("), "{status}");
    let trained = killed.json("train", &long);
    assert!(trained[0]["trained"]["outcome"]["resumed_from"].as_u64().unwrap() > 0);
    assert_eq!(trained[0]["trained"]["model"], whole.json("train", &long)[0]["trained"]["model"]);

    let metrics = files_below(&killed.path("cache")).into_iter().find(|path| path.ends_with("metrics.jsonl")).unwrap();
    let text = fs_err::read_to_string(metrics).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let steps: Vec<u64> =
        records.filter(|record| record["kind"] == "step").map(|record| record["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=40).collect::<Vec<u64>>(), "every step is recorded once");
}
