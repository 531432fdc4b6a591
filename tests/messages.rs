//! Errors name what is wrong and the next step; exit codes tell failure from wrong use.

use std::process::Stdio;

use harness::Study;
use stage::Lock;

#[test]
fn wrong_use_exits_with_2_and_names_the_nearest() {
    let study = Study::new();
    let unknown = study.fails("train", &["recipe.lrr=1"], 2);
    assert!(unknown.contains("did you mean `recipe.lr`?") && unknown.contains("valid keys:"), "{unknown}");
    assert!(study.fails("train", &["combo=fm1+fm7"], 2).contains("unknown source `fm7`"));
    assert!(study.fails("eval", &["labels=majorty"], 2).contains("did you mean `majority`?"));
    assert!(study.fails("extract", &["--config", "absent.toml"], 2).contains("no configuration at `absent.toml`"));
    study.fails("extract", &["--no-such-flag"], 2);
    assert!(study.fails("fmstudy", &["demo-data", "data.dir=x"], 2).contains("unexpected argument 'data.dir=x'"));
}

#[test]
fn a_stage_before_its_input_says_what_to_run() {
    let study = Study::new();
    assert!(study.fails("train", &[], 1).contains("hint: run `just extract`"));
    study.run("extract", &[]);
    assert!(study.fails("eval", &[], 1).contains("hint: run `just train"));
    assert!(study.fails("train", &["combo=fm4"], 1).contains("extract.features=fm4"));
    assert!(study.fails("extract", &["data.dir=absent"], 1).contains("no data set at `absent`"));
    assert!(study.fails("extract", &["weights=absent.safetensors"], 1).contains("no weights at `absent.safetensors`"));
    // A number that no machine has, so that it fails with and without CUDA.
    let no_gpu = study.fails("extract", &["device=cuda:99", "dtype=f32"], 2);
    assert!(no_gpu.contains("device `cuda:99` cannot be used") && no_gpu.contains("device=cpu"), "{no_gpu}");
}

#[test]
fn bad_images_stop_the_run_or_are_listed() {
    let study = Study::new();
    let bad = study.path("faces/FER2013Train/fer0000003.png");
    let bytes = fs_err::read(&bad).unwrap();
    fs_err::write(&bad, &bytes[..bytes.len() / 2]).unwrap();
    assert!(study.fails("extract", &[], 1).contains("fer0000003.png"));
    let report = study.json("extract", &["data.skip_bad=true"]);
    assert_eq!(report["images"], 79);
    let audit = fs_err::read_to_string(study.path("cache/faces/audit.json")).unwrap();
    assert!(audit.contains("fer0000003.png"), "what was left out is in the audit");
    study.run("train", &["data.skip_bad=true"]);
}

#[test]
fn a_cache_in_use_is_not_written_by_a_second_process() {
    let study = Study::new();
    study.run("extract", &["limit=10"]);
    let lock = Lock::acquire(&study.features()).unwrap();
    let refused = study.fails("extract", &[], 1);
    assert!(refused.contains("is in use by process"), "{refused}");
    drop(lock);
    study.run("extract", &[]);
}

#[test]
fn another_data_set_of_the_same_name_destroys_nothing() {
    let study = Study::new();
    study.run("extract", &[]);
    let before = study.feature_files();
    let other = study.path("other/faces");
    demo::write_faces(&other, 5, demo::SplitCounts { train: 20, valid: 10, test: 10 }).unwrap();
    // Its images bear names that the first set does not have.
    for split in ["FER2013Train", "FER2013Valid", "FER2013Test"] {
        for entry in fs_err::read_dir(other.join(split)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "png") {
                let name = path.file_name().unwrap().to_str().unwrap().replace("fer", "new");
                fs_err::rename(&path, path.with_file_name(name)).unwrap();
            }
        }
        let table = other.join(split).join("label.csv");
        fs_err::write(&table, fs_err::read_to_string(&table).unwrap().replace("fer", "new")).unwrap();
    }
    let table = other.join("fer2013new.csv");
    let text = fs_err::read_to_string(&table).unwrap().replace(",fer0", ",new0");
    fs_err::write(&table, text).unwrap();
    let refused = study.fails("extract", &["data.dir=other/faces"], 1);
    assert!(refused.contains("another data set of the same name?"), "{refused}");
    assert_eq!(study.feature_files(), before);
}

#[test]
fn missing_features_are_named_all_at_once() {
    let study = Study::new();
    study.run("extract", &[]);
    let refused = study.fails("train", &["combo=all"], 1);
    assert!(refused.contains("28 combinations need fm1+fm2+fm4, not extracted yet"), "{refused}");
    assert!(refused.contains("just extract extract.features=fm1+fm2+fm4"), "{refused}");
    let status = study.run("fmstudy", &["status", "combo=all"]);
    assert!(status.contains("train orig+fm3 seed 0: missing"), "the others are shown: {status}");
    assert!(status.contains("28 combinations need"), "{status}");
    study.run("train", &["combo=fm3"]);
    assert!(study.run("eval", &[]).contains("eval: 1 run, 0 of them fresh"));
}

#[test]
fn values_beyond_all_sense_are_refused_before_they_fill_the_memory() {
    let study = Study::new();
    for key in
        ["width=1000000000", "depth=100000", "recipe.batch=1000000000", "extract.batch=10000000", "threads=99999"]
    {
        let refused = study.fails("train", &[key], 2);
        assert!(refused.contains("expected"), "{key}: {refused}");
    }
}

#[test]
fn repeated_runs_are_one_and_another_seed_is_no_change() {
    let study = Study::new();
    study.run("extract", &[]);
    assert_eq!(study.json("train", &["combo=fm3,fm3", "study.seeds=0,0"])["runs"].as_array().unwrap().len(), 1);
    let status = study.run("fmstudy", &["status", "seed=9"]);
    assert!(status.contains("train fm3 seed 9: missing"), "{status}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let study = Study::new();
    for arguments in [["status", "--json"], ["status", "--quiet"]] {
        let mut child = study.command("fmstudy", &arguments).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert!(child.wait().unwrap().success(), "{arguments:?}");
    }
}

#[test]
fn the_engine_that_made_the_features_is_the_one_that_counts() {
    let study = Study::new();
    let by_candle = ["extract.engine=candle", "features=fm4", "limit=12"];
    study.run("extract", &by_candle);
    let auto = study.run("fmstudy", &["status", "features=fm4", "limit=12"]);
    assert!(auto.starts_with("extract: fresh"), "{auto}");
    let native = study.run("fmstudy", &["status", "extract.engine=native", "features=fm4", "limit=12"]);
    assert!(native.starts_with("extract: missing"), "{native}");
    study.run("extract", &["extract.engine=native", "features=fm4", "limit=12"]);
    let caches = std::fs::read_dir(study.path("cache/faces/features-v2")).unwrap().count();
    assert_eq!(caches, 2, "each has its own");
}

#[test]
fn help_explains_the_keys_of_its_stage() {
    let study = Study::new();
    for (binary, key) in [("extract", "extract.features"), ("train", "recipe.lr"), ("eval", "model.collapse")] {
        let help = study.run(binary, &["--help"]);
        assert!(help.contains(key), "{binary}: {help}");
    }
    assert!(!study.run("extract", &["--help"]).contains("recipe.lr"));
    for command in ["study", "status", "verify", "clean-stale"] {
        let help = study.run("fmstudy", &[command, "--help"]);
        assert!(help.contains("extract.shard_images") && help.contains("recipe.lr"), "{command}: {help}");
    }
}
