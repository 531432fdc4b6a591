use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use stage::ContentHash;

/// Named tensors of a pretrained network, in 32-bit floats, with torchvision's names
/// (`layer1.0.conv1.weight`), which are timm's as well.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

/// What is wrong with a file of weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// There is no such file.
    #[error("no weights at `{path}`; give a .safetensors, .npz or .pth file or a Hub model in `extract.weights`")]
    NotFound {
        /// The configured path.
        path: PathBuf,
    },
    /// The extension names no known format.
    #[error("weights `{path}`: unknown format, expected .safetensors, .npz, .pth or .pt")]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read as what its extension says.
    #[error("weights `{path}` cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        reason: String,
    },
    /// A `.pth` or `.pt` file is no zip archive, or holds no tensors by name.
    #[error(
        "weights `{path}`: {reason}, expected a state dict as PyTorch has saved it since 1.6\n\n\
         hint: save it anew: `torch.save(model.state_dict(), \"resnet18.pth\")`"
    )]
    NoStateDict {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// A tensor is not there.
    #[error("weights `{path}` have no tensor `{name}`; expected torchvision's or timm's ResNet-18")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape.
    #[error("weights `{path}`: tensor `{name}` has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// The shape that ResNet-18 has there.
        expected: Vec<usize>,
    },
    /// A tensor holds NaN or infinity.
    #[error("weights `{path}`: tensor `{name}` holds a value that is not finite")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The Hub gave nothing.
    #[error(
        "cannot fetch `{file}` of `{repo}` from the Hugging Face Hub: {reason}\n\nhint: connect to the Internet once \
         (the file is then kept), or set `extract.weights` to a local .safetensors, .npz or .pth file of ResNet-18"
    )]
    Hub {
        /// Repository on the Hub.
        repo: String,
        /// File in it.
        file: String,
        /// What the client says.
        reason: String,
    },
}

/// The tensors of a state dict, which may lie under a key of a training script's checkpoint.
fn read_pickle(path: &Path) -> Result<Vec<(String, Tensor)>, WeightsError> {
    let found = |reason: String| WeightsError::NoStateDict { path: path.to_owned(), reason };
    let bare = candle_core::pickle::read_all(path).map_err(|error| found(error.to_string()))?;
    if !bare.is_empty() {
        return Ok(bare);
    }
    ["state_dict", "model"]
        .into_iter()
        .filter_map(|key| candle_core::pickle::read_all_with_key(path, Some(key)).ok())
        .find(|tensors| !tensors.is_empty())
        .ok_or_else(|| found("it holds no tensors by name".to_owned()))
}

impl Weights {
    /// Reads a `.safetensors`, `.npz`, `.pth` or `.pt` file. Pickles are parsed, never executed.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        if !path.is_file() {
            return Err(WeightsError::NotFound { path: path.to_owned() });
        }
        let unreadable =
            |error: candle_core::Error| WeightsError::Unreadable { path: path.to_owned(), reason: error.to_string() };
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let named: Vec<(String, Tensor)> = match extension {
            "safetensors" => {
                candle_core::safetensors::load(path, &Device::Cpu).map_err(unreadable)?.into_iter().collect()
            }
            "npz" => Tensor::read_npz(path).map_err(unreadable)?,
            "pth" | "pt" => read_pickle(path)?,
            _ => return Err(WeightsError::Format { path: path.to_owned() }),
        };
        let mut tensors = BTreeMap::new();
        for (name, tensor) in named {
            // Counters and other integers have no part in inference.
            if tensor.dtype().is_float() {
                tensors.insert(name, tensor.to_dtype(DType::F32).map_err(unreadable)?);
            }
        }
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// The values of tensor `name`, row-major, if it has `shape`.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| WeightsError::Missing { path: self.path.clone(), name: name.to_owned() })?;
        if tensor.dims() != shape {
            return Err(WeightsError::Shape {
                path: self.path.clone(),
                name: name.to_owned(),
                got: tensor.dims().to_vec(),
                expected: shape.to_vec(),
            });
        }
        let values = self.values(tensor)?;
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(WeightsError::NotFinite { path: self.path.clone(), name: name.to_owned() })
        }
    }

    /// Hash of names, shapes and values: the same for the same weights in any of the file formats.
    ///
    /// The classifier `fc` is left out, since no feature map depends on it.
    pub fn content_hash(&self) -> Result<ContentHash, WeightsError> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for (name, tensor) in self.tensors.iter().filter(|(name, _)| !name.starts_with("fc.")) {
            parts.push(format!("{name} {:?}", tensor.dims()).into_bytes());
            parts.push(self.values(tensor)?.iter().flat_map(|value| value.to_le_bytes()).collect());
        }
        Ok(ContentHash::of_parts(parts.iter().map(Vec::as_slice)))
    }

    fn values(&self, tensor: &Tensor) -> Result<Vec<f32>, WeightsError> {
        tensor
            .flatten_all()
            .and_then(|flat| flat.to_vec1())
            .map_err(|error| WeightsError::Unreadable { path: self.path.clone(), reason: error.to_string() })
    }
}
