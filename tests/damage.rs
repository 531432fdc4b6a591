//! What is damaged or lost is found, named, and made anew or left out.

use std::path::{Path, PathBuf};

use fs_err as fs;
use harness::{Study, files_below, write_unnoticed};

/// Flips a bit in the middle of `path` behind an unchanged size and modification time.
fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    write_unnoticed(path, &bytes);
}

fn only_file(study: &Study, name: &str) -> PathBuf {
    let mut files = files_below(&study.path("cache"));
    files.retain(|path| path.ends_with(name));
    assert_eq!(files.len(), 1, "{name}: {files:?}");
    files.remove(0)
}

fn run_all(study: &Study, more: &[&str]) {
    for stage in ["extract", "train", "eval"] {
        study.run(stage, more);
    }
}

#[test]
fn an_undecodable_image_is_named_or_left_out_for_good() {
    let study = Study::new();
    let image = study.path("faces/FER2013Train/fer0000003.png");
    let sound = fs::read(&image).unwrap();
    // Its structure stays whole, its compressed pixels do not.
    flip_a_bit(&image);
    let refused = study.fails("extract", &[], 1);
    assert!(refused.contains("fer0000003.png` cannot be decoded") && refused.contains("data.skip_bad"), "{refused}");

    let skip = "data.skip_bad=true";
    let report = study.json("extract", &[skip]);
    assert_eq!(report["images"], 79);
    assert!(report["skipped"][0].as_str().unwrap().contains("fer0000003.png"), "{report}");
    assert!(fs::read_to_string(study.path("cache/faces/audit.json")).unwrap().contains("fer0000003.png"));
    assert!(study.run("extract", &[skip]).contains("nothing to do"));
    assert!(study.run("fmstudy", &["status", skip]).starts_with("extract: fresh"));
    study.run("train", &[skip]);
    study.run("eval", &[skip]);
    assert!(study.fails("train", &[], 1).contains("fer0000003.png"), "without skip_bad it is an error everywhere");

    fs::write(&image, sound).unwrap();
    assert_eq!(study.json("extract", &[])["images"], 80, "a mended image is taken in again");
}

#[test]
fn a_damaged_image_is_found_by_verify_and_is_fresh_again_when_mended() {
    let study = Study::new();
    study.run("extract", &[]);
    let image = study.path("faces/FER2013Test/fer0000070.png");
    let image = if image.exists() { image } else { files_below(&study.path("faces/FER2013Test")).remove(0) };
    let sound = fs::read(&image).unwrap();
    flip_a_bit(&image);
    assert!(study.run("extract", &[]).contains("nothing to do"), "the quick look does not see it");
    let output = study.output("fmstudy", &["verify"]);
    assert_eq!(output.status.code(), Some(1));
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(found.contains(image.file_name().unwrap().to_str().unwrap()) && found.contains("1 damaged"), "{found}");
    assert!(!study.output("extract", &[]).status.success(), "from now on every command sees it");
    fs::write(&image, sound).unwrap();
    assert!(study.run("extract", &[]).contains("nothing to do"));
    study.run("fmstudy", &["verify"]);
}

#[test]
fn a_damaged_model_is_trained_anew_to_the_same_bytes() {
    let study = Study::new();
    run_all(&study, &[]);
    let model = only_file(&study, "model.safetensors");
    let sound = fs::read(&model).unwrap();
    flip_a_bit(&model);
    let output = study.output("fmstudy", &["verify"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("model.safetensors` has content hash"));
    assert!(study.run("fmstudy", &["status"]).contains("train fm3 seed 0: partial (6 of 6 steps)"));
    study.run("train", &[]);
    assert_eq!(fs::read(&model).unwrap(), sound);
    study.run("fmstudy", &["verify"]);
    assert!(study.run("eval", &[]).contains("nothing to do"), "the same model has the same evaluation");
}

#[test]
fn a_damaged_checkpoint_makes_the_run_begin_anew() {
    let study = Study::new();
    study.run("extract", &[]);
    let whole = study.json("train", &[]);
    let checkpoint = only_file(&study, "checkpoint.safetensors");
    fs::remove_file(checkpoint.with_file_name("train.json")).unwrap();
    flip_a_bit(&checkpoint);
    let output = study.output("train", &["--json"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("checkpoint.safetensors` is damaged") && told.contains("begins anew"), "{told}");
    let again: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(again["runs"][0]["trained"]["model"], whole["runs"][0]["trained"]["model"]);
    assert_eq!(again["runs"][0]["trained"]["outcome"]["resumed_from"], 0);
}

#[test]
fn lost_or_changed_answers_are_written_again() {
    let study = Study::new();
    run_all(&study, &[]);
    let logits = only_file(&study, "test_logits.npy");
    let sound = fs::read(&logits).unwrap();
    fs::remove_file(&logits).unwrap();
    assert!(study.run("fmstudy", &["status"]).contains("eval fm3 seed 0: missing"));
    study.run("eval", &[]);
    assert_eq!(fs::read(&logits).unwrap(), sound);
    fs::write(only_file(&study, "test_predictions.csv"), "image,label\n").unwrap();
    assert!(!study.run("eval", &[]).contains("nothing to do"));
    assert!(study.run("eval", &[]).contains("nothing to do"));
}

#[test]
fn a_damaged_plan_is_written_again() {
    let study = Study::new();
    study.run("extract", &[]);
    let plan = study.features().join("plan");
    let sound = fs::read(&plan).unwrap();
    fs::write(&plan, "shard\n").unwrap();
    assert!(study.output("fmstudy", &["verify"]).status.code() == Some(1));
    assert_eq!(study.json("extract", &[])["shards_written"], 0, "no shard is lost with it");
    assert_eq!(fs::read(&plan).unwrap(), sound);
    fs::remove_file(&plan).unwrap();
    assert_eq!(study.json("extract", &[])["shards_written"], 0);
    assert_eq!(fs::read(&plan).unwrap(), sound);
    assert!(study.run("extract", &[]).contains("nothing to do"));
}

#[test]
fn damaged_metrics_make_the_run_begin_anew() {
    let study = Study::new();
    run_all(&study, &[]);
    let sound = study.results();
    flip_a_bit(&only_file(&study, "metrics.jsonl"));
    let output = study.output("fmstudy", &["verify"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("metrics.jsonl` "));
    let output = study.output("train", &[]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("metrics.jsonl` is damaged") && told.contains("begins anew"), "{told}");
    assert!(study.run("eval", &[]).contains("nothing to do"), "the same model has the same evaluation");
    assert!(study.results() == sound);
}

#[test]
fn labels_and_weights_that_are_not_what_they_were_are_named() {
    let study = Study::new();
    run_all(&study, &[]);
    for name in ["faces/fer2013new.csv", "resnet18.safetensors"] {
        let path = study.path(name);
        let sound = fs::read(&path).unwrap();
        // The last vote, and the last value of the weights.
        let mut changed = sound.clone();
        let last = changed.len() - if name.ends_with("csv") { 2 } else { 1 };
        changed[last] ^= 1;
        fs::write(&path, &changed).unwrap();
        let found = String::from_utf8(study.output("fmstudy", &["verify"]).stdout).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(found.contains(name) && found.contains("has content hash"), "{found}");
        let told = String::from_utf8(study.output("fmstudy", &["status"]).stderr).unwrap();
        assert!(name.ends_with("safetensors") || told.contains(name), "{told}");
        fs::write(&path, &sound).unwrap();
        study.run("fmstudy", &["verify"]);
        assert!(study.run("eval", &[]).contains("nothing to do"));
    }
}

#[test]
fn verify_reads_what_other_configurations_made_and_misses_what_is_gone() {
    let study = Study::new();
    study.run("extract", &["extract.dtype=f32"]);
    let other = study.features();
    study.run("extract", &[]);
    study.run("fmstudy", &["verify"]);
    let flipped = other.join("fm3/00002.safetensors");
    let sound = fs::read(&flipped).unwrap();
    flip_a_bit(&flipped);
    let told = String::from_utf8(study.output("fmstudy", &["verify"]).stdout).unwrap();
    assert!(told.contains("fm3/00002.safetensors` has content hash"), "{told}");
    fs::write(&flipped, &sound).unwrap();
    study.run("fmstudy", &["verify"]);

    // And if the plan is lost as well.
    for lost in [&["fm3/00001.safetensors", "fm3/00001.record.json"][..], &["plan"]] {
        lost.iter().for_each(|name| fs::remove_file(other.join(name)).unwrap());
        let output = study.output("fmstudy", &["verify"]);
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(!output.status.success() && told.contains("fm3/00001.safetensors"), "{told}");
    }
}

#[test]
fn a_value_that_is_not_finite_is_traced_to_its_image() {
    let study = Study::new();
    study.run("extract", &[]);
    let shard = study.features().join("fm3/00001.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    // The last value of the last image of the second shard becomes NaN behind an unchanged size and time.
    let length = bytes.len();
    bytes[length - 1] = 0x7e;
    write_unnoticed(&shard, &bytes);
    let refused = study.fails("train", &["recipe.batch=48", "train.checkpoint_every=1"], 1);
    let image = "FER2013Train/";
    assert!(refused.contains(&format!("fm3 of image `{image}")) && refused.contains("holds NaN"), "{refused}");
    assert!(refused.contains("in batch 1") && refused.contains("just verify"), "{refused}");
    assert!(!study.output("fmstudy", &["verify"]).status.success());
    assert_eq!(study.json("extract", &[])["shards_written"], 1, "only the damaged shard is made anew");
    study.run("train", &["recipe.batch=48", "train.checkpoint_every=1"]);
}
