//! Runs that learn from the same batches.

use std::path::PathBuf;

use fs_err as fs;
use harness::{Study, exists_below, kill_when};
use serde_json::Value;

const FOUR: &str = "combo=fm3,fm4,orig,orig+fm3+fm4";
const ONE_AT_A_TIME: &str = "train.memory_gib=0.000001";

/// Combination and folder of every run of `arguments`, trained if need be.
fn trained(study: &Study, arguments: &[&str]) -> Vec<(String, PathBuf)> {
    let report = study.json("train", arguments);
    let run =
        |run: &Value| (format!("{} {}", run["combination"], run["seed"]), study.path(run["folder"].as_str().unwrap()));
    report["runs"].as_array().unwrap().iter().map(run).collect()
}

#[test]
fn runs_trained_together_learn_what_they_learn_alone() {
    let (together, alone) = (Study::new(), Study::new());
    let recipe = ["recipe=robust", "recipe.steps=60", "recipe.warmup_steps=10", "model.dropout=0.1"];
    let arguments = [&[FOUR, "study.seeds=0,1"], recipe.as_slice()].concat();
    for study in [&together, &alone] {
        study.run("extract", &["features=fm3+fm4"]);
    }
    // One of them has been interrupted before, so that it is ahead of the others.
    let ahead = together.spawn("train", &[&["combo=fm4", "seed=0"], recipe.as_slice()].concat());
    let was_killed = kill_when(ahead, || exists_below(&together.path("cache"), "checkpoint.safetensors"));
    assert!(was_killed, "the run finished before it could be killed");

    let ours = trained(&together, &arguments);
    let theirs = trained(&alone, &[arguments.as_slice(), &[ONE_AT_A_TIME]].concat());
    assert_eq!(ours.len(), 8);
    for ((name, ours), (other, theirs)) in ours.iter().zip(&theirs) {
        assert_eq!(name, other);
        let model = |folder: &PathBuf| fs::read(folder.join("model.safetensors")).unwrap();
        assert!(model(ours) == model(theirs), "{name} has other weights");
    }
    let metrics = |study: &Study| {
        let mut results = study.results();
        results.retain(|name, _| name.ends_with("metrics.jsonl"));
        results
    };
    assert!(metrics(&together) == metrics(&alone), "something was recorded twice, or not at all");
}

#[test]
fn of_more_runs_than_are_written_at_once_each_has_its_last_checkpoint() {
    let study = Study::new();
    study.run("extract", &["features=fm2+fm3+fm4"]);
    let combos = "combo=fm2,fm3,fm4,orig,fm2+fm3,fm2+fm4,fm3+fm4,orig+fm2,orig+fm3,orig+fm4";
    let arguments = [combos, "recipe.steps=3", "train.checkpoint_every=1"];
    let models = || {
        let runs = trained(&study, &arguments);
        assert_eq!(runs.len(), 10);
        let model = |(_, folder): &(String, PathBuf)| fs::read(folder.join("model.safetensors")).unwrap();
        (runs.iter().map(model).collect::<Vec<_>>(), runs)
    };
    let (first, runs) = models();
    for (name, folder) in &runs {
        let checkpoint = fs::read(folder.join("checkpoint.safetensors")).unwrap();
        let says = |text: &[u8]| checkpoint.windows(text.len()).any(|part| part == text);
        assert!(says(br#"\"step\":3,"#), "{name} has no checkpoint of step 3");
        // From it the model is made again.
        fs::remove_file(folder.join("train.json")).unwrap();
        fs::remove_file(folder.join("model.safetensors")).unwrap();
    }
    assert!(models().0 == first, "checkpoints do not hold what was trained");
}

#[test]
fn a_run_that_fails_holds_no_other_up() {
    let study = Study::new();
    study.run("extract", &["features=fm3+fm4"]);
    let arguments = ["combo=fm3,fm4"];
    let runs = trained(&study, &arguments);
    // A checkpoint that is not its own, and two trainings that are not finished.
    for name in ["checkpoint.safetensors", "metrics.jsonl"] {
        fs::copy(runs[1].1.join(name), runs[0].1.join(name)).unwrap();
    }
    for (_, folder) in &runs {
        fs::remove_file(folder.join("train.json")).unwrap();
    }
    let stderr = study.fails("train", &arguments, 1);
    assert!(stderr.contains("train fm3 seed 0"), "{stderr}");
    assert!(stderr.contains("belongs to configuration"), "{stderr}");
    assert!(!runs[0].1.join("train.json").exists());
    assert!(runs[1].1.join("train.json").exists(), "{stderr}");
}

#[test]
fn a_run_that_somebody_works_on_holds_no_other_up() {
    let study = Study::new();
    study.run("extract", &["features=fm3+fm4"]);
    let arguments = ["combo=fm3,fm4"];
    let runs = trained(&study, &arguments);
    let answers = |run: usize| runs[run].1.join("evaluation/evaluation.json").exists();
    let working = stage::Lock::acquire(&runs[0].1).unwrap();
    let refused = study.fails("eval", &arguments, 1);
    assert!(refused.contains("evaluate fm3 seed 0") && refused.contains("is in use by process"), "{refused}");
    assert_eq!((answers(0), answers(1)), (false, true));
    drop(working);
    study.run("eval", &arguments);
    assert!(answers(0));
}
