use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, SystemTime},
};

use demo::SplitCounts;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Results, binary, files::copy_folder, files_below, only_folder, results_below};

/// Images per shard of the tests' studies.
pub const SHARD_IMAGES: usize = 16;

/// A small study: 48 training, 16 validation and 16 test faces, three steps of a tiny model.
pub const CONFIGURATION: &str = r#"
[data]
dir = "faces"

[extract]
weights = "resnet18.safetensors"
features = "fm3"
shard_images = 16
batch = 8

[model]
width = 16
depth = 1
heads = 1

[recipe]
steps = 6
batch = 16

[train]
validate_every = 3
checkpoint_every = 2

[study]
combos = ["fm3"]
"#;

/// How long after a change a file's hash is remembered, and a little more.
const SETTLED: Duration = Duration::from_millis(80);

/// A folder with a configuration, faces and weights.
pub struct Study {
    folder: TempDir,
}

impl Study {
    /// A new one with [`CONFIGURATION`].
    #[allow(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// The same in a folder below `parent`.
    pub fn below(parent: &Path) -> Self {
        let study = Self { folder: tempfile::tempdir_in(parent).unwrap() };
        copy_folder(&template().join("faces"), &study.path("faces"));
        fs_err::copy(template().join("resnet18.safetensors"), study.path("resnet18.safetensors")).unwrap();
        fs_err::write(study.path("study.toml"), CONFIGURATION).unwrap();
        // Hashes of what has changed a moment ago are not remembered.
        sleep(SETTLED);
        study
    }

    /// A path below the study's folder.
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The binary `name` with `arguments`, to be run in the study's folder.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary(name));
        command.current_dir(self.folder.path()).args(arguments).env("RAYON_NUM_THREADS", "2").stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn output(&self, name: &str, arguments: &[&str]) -> Output {
        self.command(name, arguments).output().unwrap()
    }

    /// Runs it, which must succeed, and gives its stdout.
    pub fn run(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.output(name, arguments);
        assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it with `--json`, and gives the one JSON value on its stdout.
    pub fn json(&self, name: &str, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.run(name, &arguments)).unwrap()
    }

    /// Runs it, which must fail with `code`, and gives its stderr.
    pub fn fails(&self, name: &str, arguments: &[&str], code: i32) -> String {
        let output = self.output(name, arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name} {arguments:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr
    }

    /// Starts it in the background, silently.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Child {
        self.command(name, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The feature cache's folder.
    pub fn features(&self) -> PathBuf {
        only_folder(&self.path("cache/faces/features-v2"))
    }

    /// What the study has come to.
    pub fn results(&self) -> Results {
        results_below(&self.path("cache/faces"))
    }

    /// Bytes of every file of the feature cache.
    pub fn feature_files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = files_below(&self.features());
        files
            .into_iter()
            .map(|path| (path.strip_prefix(self.features()).unwrap().to_owned(), path))
            .map(|(name, path)| (name, fs_err::read(path).unwrap()))
            .collect()
    }

    /// When every file of the cache was changed last.
    pub fn changed(&self) -> BTreeMap<PathBuf, SystemTime> {
        let files = files_below(&self.path("cache")).into_iter();
        files.map(|path| (path.clone(), fs_err::metadata(path).unwrap().modified().unwrap())).collect()
    }
}

/// Kills `child` as soon as `reached` holds; false if it finished before.
pub fn kill_when(mut child: Child, reached: impl Fn() -> bool) -> bool {
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

/// Faces and weights, made once per test program.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    TEMPLATE
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let counts = SplitCounts { train: 48, valid: 16, test: 16 };
            demo::write_faces(&folder.path().join("faces"), 1, counts).unwrap();
            let calibration: Vec<Vec<u8>> = vec![vec![128; demo::FACE_SIZE_PX * demo::FACE_SIZE_PX]; 1]
                .into_iter()
                .chain((0..3).map(|i| (0..48 * 48).map(|p| (p * (i + 3) % 251) as u8).collect()))
                .collect();
            demo::write_weights(&folder.path().join("resnet18.safetensors"), 1, &calibration).unwrap();
            folder
        })
        .path()
}
