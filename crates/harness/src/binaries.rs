use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// A binary of the workspace, built if need be with the profile of the program that asks.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        // target/PROFILE/program or target/PROFILE/deps/test
        let program = std::env::current_exe().unwrap();
        let folder = program.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).unwrap().to_owned();
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(workspace);
        if folder.ends_with("release") {
            build.arg("--release");
        } else {
            // With the features that tests ask of libraries, of which all is compiled already; without them much would be again.
            build.arg("--tests");
        }
        assert!(build.status().unwrap().success(), "the binaries do not build");
        folder
    });
    folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}
