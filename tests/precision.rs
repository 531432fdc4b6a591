//! Features of other precisions than f32: never mixed with others, and good to train from.

use std::path::PathBuf;

use harness::Study;
use serde_json::Value;

fn below(study: &Study, folder: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs_err::read_dir(study.path(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn caches(study: &Study) -> Vec<PathBuf> {
    below(study, "cache/faces/features-v2")
}

fn calibration(study: &Study) -> PathBuf {
    let is_calibration = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("calibration-");
    below(study, "cache/faces").into_iter().find(is_calibration).unwrap()
}

/// Changes the last digit of the file.
fn damage(path: &PathBuf) {
    let mut bytes = fs_err::read(path).unwrap();
    let digit = bytes.iter().rposition(u8::is_ascii_digit).unwrap();
    bytes[digit] = if bytes[digit] == b'7' { b'8' } else { b'7' };
    fs_err::write(path, bytes).unwrap();
}

#[test]
fn every_precision_has_a_cache_of_its_own() {
    let study = Study::new();
    let report = study.json("extract", &["extract.precision=int8", "limit=12"]);
    assert!(report["engine"].as_str().unwrap().contains("8-bit integers"));
    let [cache] = &caches(&study)[..] else { panic!("one cache") };
    let manifest: Value = serde_json::from_slice(&fs_err::read(cache.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["calibration"]["stages"].as_array().unwrap().len(), 4, "what the integers stood for");
    assert_eq!(manifest["fingerprint"]["extract.precision"], "int8");
    let status = |precision| study.run("fmstudy", &["status", "limit=12", precision]);
    assert!(status("extract.precision=int8").starts_with("extract: fresh"));
    assert!(status("extract.precision=f32").starts_with("extract: missing"));
    study.run("train", &["extract.precision=int8", "limit=12"]);
    let error = study.fails("extract", &["extract.precision=int8", "extract.engine=candle"], 1);
    assert!(
        error.contains("computes in f32, and on GPUs in bf16, not in int8") && error.contains("extract.engine = auto"),
        "{error}"
    );
    let error = study.fails("extract", &["extract.precision=int8", "extract.engine=cudnn"], 1);
    assert!(error.contains("computes in f32 and bf16, not in int8"), "{error}");
    let error = study.fails("extract", &["device=cpu", "limit=12", "extract.engine=cudnn"], 1);
    assert!(error.contains("NVIDIA GPUs") && error.contains("extract.engine = native"), "{error}");
    assert!(study.fails("extract", &["extract.precision=int9"], 2).contains("did you mean `int8`?"));
    let error = study.fails("train", &["precision=bf16"], 2);
    assert!(error.contains("extract.precision") && error.contains("train.precision"), "{error}");
}

#[test]
fn a_calibration_stays_and_another_one_never_mixes() {
    let study = Study::new();
    let few = ["extract.precision=int8", "limit=12"];
    study.run("extract", &few);
    let measured = fs_err::read(calibration(&study)).unwrap();
    let before = study.feature_files();
    // Interrupted before the manifest: the next one goes on with the same calibration.
    fs_err::remove_file(caches(&study)[0].join("manifest.json")).unwrap();
    assert_eq!(study.json("extract", &few)["shards_written"], 0);
    assert_eq!(study.feature_files(), before);

    let more = ["extract.precision=int8", "limit=18"];
    study.run("extract", &more);
    assert_eq!(fs_err::read(calibration(&study)).unwrap(), measured, "more images change no calibration");
    assert_eq!(caches(&study).len(), 1);

    damage(&calibration(&study));
    let status = study.output("fmstudy", &[&["status"], &more[..]].concat());
    assert!(String::from_utf8_lossy(&status.stderr).contains("is damaged"));
    assert!(String::from_utf8_lossy(&status.stdout).starts_with("extract: missing"));
    // Measured anew, on other images than the first.
    study.run("extract", &more);
    assert_ne!(fs_err::read(calibration(&study)).unwrap(), measured);
    assert_eq!(caches(&study).len(), 2);
}
