use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use serde_json::Value;

use crate::files_below;

/// What a study has come to, by file: two studies of one configuration have the same, however often either was
/// interrupted.
pub type Results = BTreeMap<PathBuf, Vec<u8>>;

/// Members of JSON objects that tell how long something took or where it went on, and hashes of such.
const TIMES: [&str; 5] = ["wall_s", "seconds", "resumed_from", "metrics", "trained_at"];

/// The results below the folder `cache` of a data set: shards, models and answers byte by byte; of checkpoints the tensors; of
/// JSON files what says nothing about time. Without the report, which speaks about time, and remembered hashes.
pub fn results_below(cache: &Path) -> Results {
    files_below(cache)
        .into_iter()
        .map(|path| (path.strip_prefix(cache).unwrap().to_owned(), path))
        .filter(|(name, _)| {
            !name.starts_with("report") && !name.ends_with("hashes") && !name.ends_with("recent-hashes")
        })
        .map(|(name, path)| (name, timeless(&path, fs_err::read(&path).unwrap())))
        .collect()
}

fn timeless(path: &Path, bytes: Vec<u8>) -> Vec<u8> {
    let name = path.file_name().unwrap().to_string_lossy();
    if name == "checkpoint.safetensors" {
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors = file.tensors();
        tensors.sort_by(|one, other| one.0.cmp(&other.0));
        return tensors.iter().flat_map(|(name, tensor)| [name.as_bytes(), tensor.data()].concat()).collect();
    }
    if name.ends_with(".json") {
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        // The seal at its end is that of the times as well.
        value.as_object_mut().map(|members| members.remove("blake3"));
        return without_times(value).to_string().into_bytes();
    }
    if name.ends_with(".jsonl") {
        let lines = String::from_utf8(bytes).unwrap();
        let lines = lines.lines().map(|line| without_times(serde_json::from_str(line).unwrap()).to_string() + "\n");
        return lines.collect::<String>().into_bytes();
    }
    bytes
}

fn without_times(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(name, _)| !TIMES.contains(&name.as_str()));
            Value::Object(kept.map(|(name, value)| (name, without_times(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_times).collect()),
        other => other,
    }
}
