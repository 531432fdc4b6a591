use std::path::PathBuf;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// There is no such file.
    #[error("no configuration at `{path}`\n\nhint: run in the project's folder, or name one with --config")]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is no TOML.
    #[error("`{path}` is not valid TOML: {reason}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// No such key.
    #[error("unknown key `{key}` in {place}{hint}\n\nvalid keys: {valid}")]
    UnknownKey {
        /// The key.
        key: String,
        /// The file, or the command line.
        place: String,
        /// A likely key, or nothing.
        hint: String,
        /// All keys.
        valid: String,
    },
    /// A shortened key fits several.
    #[error("key `{key}` in {place} is ambiguous: {candidates}")]
    Ambiguous {
        /// The key.
        key: String,
        /// The file, or the command line.
        place: String,
        /// What it could mean.
        candidates: String,
    },
    /// An argument without `=`.
    #[error("`{argument}` is no override, expected `key=value`, for example `recipe.lr=0.001`")]
    NoOverride {
        /// The argument.
        argument: String,
    },
    /// A value that its key cannot have.
    #[error("`{key}` cannot be `{got}`: {reason}{place}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        got: String,
        /// What is wrong with it.
        reason: String,
        /// Where it was set, ` (in …)`; nothing where it was not.
        place: String,
    },
    /// A GPU is asked for, but the program cannot use any.
    #[error(
        "device `{device}` cannot be used: this program was built without CUDA\n\n\
         hint: use device=cpu, or build with `cargo build --release --features cudnn` where a CUDA toolkit is"
    )]
    BuiltWithoutCuda {
        /// The device.
        device: String,
    },
    /// The device cannot be used.
    #[error("device `{device}` cannot be used: {reason}\n\nhint: use device=cpu")]
    Device {
        /// The device.
        device: String,
        /// The reason.
        reason: String,
    },
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
