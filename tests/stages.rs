//! Each stage re-runs only what changed.

use fs_err as fs;
use harness::{SHARD_IMAGES, Study, files_below, write_unnoticed};
use serde_json::Value;

#[test]
fn touching_nothing_makes_every_command_a_no_op() {
    let study = Study::new();
    for stage in ["extract", "train", "eval"] {
        assert!(!study.run(stage, &[]).contains("nothing to do"), "{stage} has something to do at first");
    }
    let before = study.changed();
    for stage in ["extract", "train", "eval"] {
        assert!(study.run(stage, &[]).contains("nothing to do"), "{stage}");
    }
    assert_eq!(study.json("extract", &[])["shards_written"], 0);
    assert_eq!(study.json("train", &[])["runs"][0]["before"]["state"], "fresh");
    assert_eq!(study.json("eval", &[])["runs"][0]["was_fresh"], true);
    let after = study.changed();
    for (path, time) in &before {
        let rewritten = after[path] != *time && !path.ends_with("audit.json");
        assert!(!rewritten, "{} was written again", path.display());
    }
    let status = study.run("fmstudy", &["status"]);
    assert_eq!(status.trim(), "extract: fresh\ntrain fm3 seed 0: fresh\neval fm3 seed 0: fresh");
}

#[test]
fn another_learning_rate_trains_and_evaluates_only() {
    let study = Study::new();
    for stage in ["extract", "train", "eval"] {
        study.run(stage, &[]);
    }
    let lr = "recipe.lr=0.001";
    assert!(study.run("extract", &[lr]).contains("nothing to do"));
    assert!(study.run("fmstudy", &["status", lr]).contains("train fm3 seed 0: stale (recipe.lr 0.005 → 0.001)"));
    let trained = study.json("train", &[lr]);
    assert_eq!(trained["runs"][0]["before"]["state"], "stale");
    assert_eq!(trained["runs"][0]["before"]["changes"][0]["key"], "recipe.lr");
    assert_eq!(study.json("eval", &[lr])["runs"][0]["was_fresh"], false);
    // Both runs are kept: going back costs nothing.
    assert_eq!(study.json("train", &[])["runs"][0]["before"]["state"], "fresh");
    assert_eq!(study.json("eval", &[])["runs"][0]["was_fresh"], true);

    let listed = study.run("fmstudy", &["clean-stale", "--yes"]);
    assert!(listed.contains("another configuration") && listed.contains("1 leftover,"), "{listed}");
    assert_eq!(study.json("train", &[])["runs"][0]["before"]["state"], "fresh");
    assert_eq!(study.json("fmstudy", &["status", lr])["runs"][0]["train"]["state"], "stale");
}

#[test]
fn runs_of_the_same_configuration_are_no_leftovers_whatever_the_study_names() {
    let study = Study::new();
    study.run("extract", &["features=fm3+fm4"]);
    for more in [&["combo=fm4"], &["seed=5"], &["recipe.lr=0.001"]] {
        study.run("train", more);
    }
    let listed = study.run("fmstudy", &["clean-stale", "--yes"]);
    assert!(listed.contains("another configuration") && listed.contains("1 leftover,"), "{listed}");
    for kept in ["combo=fm4", "seed=5"] {
        assert_eq!(study.json("train", &[kept])["runs"][0]["before"]["state"], "fresh", "{kept}");
    }
}

#[test]
fn a_replaced_test_image_is_nothing_to_training() {
    let study = Study::new();
    for stage in ["extract", "train", "eval"] {
        study.run(stage, &[]);
    }
    let test = files_below(&study.path("faces/FER2013Test"));
    let mut images = test.iter().filter(|path| path.extension().is_some_and(|ending| ending == "png"));
    fs::copy(images.next().unwrap(), images.next().unwrap()).unwrap();
    assert_eq!(study.json("extract", &[])["shards_written"], 1);
    let status = study.run("fmstudy", &["status"]);
    assert!(status.contains("train fm3 seed 0: fresh\neval fm3 seed 0: stale (data.copies"), "{status}");
    assert_eq!(study.json("eval", &[])["runs"][0]["was_fresh"], false);
}

#[test]
fn other_classes_need_no_extraction() {
    let study = Study::new();
    study.run("extract", &[]);
    study.run("train", &[]);
    assert!(study.run("extract", &["classes=8"]).contains("nothing to do"));
    let status = study.run("fmstudy", &["status", "classes=8"]);
    assert!(status.contains("extract: fresh"), "{status}");
    assert!(status.contains("data.classes 6 → 8"), "{status}");
}

#[test]
fn a_replaced_image_re_does_its_shard_alone() {
    let study = Study::new();
    study.run("extract", &["features=fm3+fm4"]);
    study.run("train", &[]);
    let before = study.feature_files();
    fs::copy(study.path("faces/FER2013Train/fer0000001.png"), study.path("faces/FER2013Train/fer0000020.png")).unwrap();

    let status = study.run("fmstudy", &["status", "features=fm3+fm4"]);
    assert!(status.contains("extract: partial (8 of 10 shards)"), "{status}");
    let refused = study.fails("train", &[], 1);
    assert!(refused.contains("are stale") && refused.contains("just extract"), "{refused}");

    let report = study.json("extract", &["features=fm3+fm4"]);
    assert_eq!((&report["shards_written"], &report["images_computed"]), (&2.into(), &SHARD_IMAGES.into()));
    let after = study.feature_files();
    let changed: Vec<String> = before
        .iter()
        .filter(|(path, bytes)| path.extension().is_some_and(|e| e == "safetensors") && after[*path] != **bytes)
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_eq!(changed, ["fm3/00001.safetensors", "fm4/00001.safetensors"]);
    let status = study.run("fmstudy", &["status"]);
    assert!(status.contains("train fm3 seed 0: stale (data.train"), "{status}");
}

#[test]
fn another_feature_writes_its_own_files_only() {
    let study = Study::new();
    study.run("extract", &["features=fm4"]);
    let before = study.changed();
    let report = study.json("extract", &["features=fm3+fm4"]);
    assert_eq!(report["shards_written"], 5);
    let after = study.changed();
    for (path, time) in before.iter().filter(|(path, _)| path.to_string_lossy().contains("/fm4/")) {
        assert_eq!(after[path], *time, "{}", path.display());
    }
    assert!(study.run("extract", &["features=fm3"]).contains("nothing to do"), "fewer features stay fresh");
    assert!(study.run("extract", &["features=fm4", "limit=10"]).contains("nothing to do"), "so do fewer images");
}

#[test]
fn damaged_shards_are_found_and_made_anew() {
    let study = Study::new();
    study.run("extract", &[]);
    let sound = study.feature_files();
    let shard = |number: usize| study.features().join(format!("fm3/{number:05}.safetensors"));

    fs::remove_file(shard(0)).unwrap();
    let bytes = fs::read(shard(1)).unwrap();
    fs::write(shard(1), &bytes[..bytes.len() - 1]).unwrap();
    let mut bytes = fs::read(shard(2)).unwrap();
    bytes[5000] ^= 1;
    fs::write(shard(2), &bytes).unwrap();
    assert_eq!(study.json("extract", &[])["shards_written"], 3);
    assert_eq!(study.feature_files(), sound, "what is made anew is the same, byte for byte");

    // A flipped bit behind an unchanged size and time passes the quick look, not `verify`.
    let mut bytes = fs::read(shard(3)).unwrap();
    bytes[70_000] ^= 0x10;
    write_unnoticed(&shard(3), &bytes);
    assert!(study.run("extract", &[]).contains("nothing to do"));
    let output = study.output("fmstudy", &["verify"]);
    assert_eq!(output.status.code(), Some(1));
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(found.contains("fm3/00003.safetensors` has content hash") && found.contains("1 damaged"), "{found}");
    assert_eq!(study.json("extract", &[])["shards_written"], 1, "what verify found is made anew");
    assert_eq!(study.feature_files(), sound);
    study.run("fmstudy", &["verify"]);
}

#[test]
fn removed_and_added_images_keep_the_others_in_place() {
    let study = Study::new();
    study.run("extract", &[]);
    let image = "faces/FER2013Train/fer0000000.png";
    let kept = fs::read(study.path(image)).unwrap();
    fs::remove_file(study.path(image)).unwrap();
    let missing = study.fails("extract", &[], 1);
    assert!(missing.contains("fer0000000.png"), "a label row without its image is named: {missing}");
    assert_eq!(study.json("extract", &["skip_bad=true"])["shards_written"], 1);
    fs::write(study.path(image), kept).unwrap();
    let report = study.json("extract", &[]);
    assert_eq!((&report["shards_written"], &report["images"]), (&1.into(), &80.into()));
}

#[test]
fn exported_features_are_the_stored_ones_transposed() {
    let study = Study::new();
    study.run("extract", &["features=fm4", "export.npy=out", "extract.dtype=f32"]);
    let exported: ndarray::Array4<f32> = ndarray_npy::read_npy(study.path("out/fm4.npy")).unwrap();
    assert_eq!(exported.shape(), [80, 512, 7, 7]);
    let ids = fs::read_to_string(study.path("out/ids.txt")).unwrap();
    assert_eq!(ids.lines().next(), Some("FER2013Train/fer0000000.png"));
    // The first shard begins with the same image; its values are (7, 7, 512) behind the header.
    let bytes = fs::read(study.features().join("fm4/00000.safetensors")).unwrap();
    let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let stored = |y: usize, x: usize, c: usize| {
        let at = header + ((y * 7 + x) * 512 + c) * 4;
        f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    };
    for (y, x, c) in [(0, 0, 0), (3, 5, 100), (6, 6, 511)] {
        assert_eq!(exported[[0, c, y, x]], stored(y, x, c));
    }
}

#[test]
fn evaluation_leaves_logits_labels_and_predictions() {
    let study = Study::new();
    for stage in ["extract", "train"] {
        study.run(stage, &["combo=orig+fm3"]);
    }
    let report = study.json("eval", &["combo=orig+fm3"]);
    let run = &report["runs"][0];
    assert_eq!(run["paper_test"], 75.44);
    let alone = study.json("eval", &["combo=orig+fm3", "study.paper=false"]);
    assert_eq!((&alone["runs"][0]["was_fresh"], &alone["runs"][0]["paper_test"]), (&true.into(), &Value::Null));
    let folder = study.path(run["folder"].as_str().unwrap()).join("evaluation");
    let logits: ndarray::Array2<f32> = ndarray_npy::read_npy(folder.join("test_logits.npy")).unwrap();
    let labels: ndarray::Array1<i64> = ndarray_npy::read_npy(folder.join("test_labels.npy")).unwrap();
    let largest = |row: ndarray::ArrayView1<f32>| (0..6).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as i64;
    let correct = logits.rows().into_iter().zip(&labels).filter(|(row, label)| largest(*row) == **label).count();
    let overall = &run["evaluation"]["test"]["overall"];
    assert_eq!(
        (overall["correct"].as_u64(), overall["images"].as_u64()),
        (Some(correct as u64), Some(labels.len() as u64))
    );
    let predictions = fs::read_to_string(folder.join("test_predictions.csv")).unwrap();
    assert_eq!(predictions.lines().count(), labels.len() + 1);
    assert!(predictions.starts_with("image,label,prediction,p_neutral,"));
    assert!(files_below(&folder).len() >= 10);
}
