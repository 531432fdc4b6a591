use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::DType;
use stage::ContentHash;

use crate::{
    formats::{read_npz, read_safetensors, read_state_dict},
    quiet_panic,
};

/// Named tensors of a pretrained network, in 32-bit floats, with torchvision's names
/// (`layer1.0.conv1.weight`), which are timm's as well.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    arrays: BTreeMap<String, Array>,
    hash: ContentHash,
}

#[derive(Debug)]
struct Array {
    shape: Vec<usize>,
    /// Row-major.
    values: Vec<f32>,
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

impl Weights {
    /// Reads a `.safetensors`, `.npz`, `.pth` or `.pt` file. Pickles are parsed, never executed.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        if !path.is_file() {
            return Err(WeightsError::NotFound { path: path.to_owned() });
        }
        // A reader that panics over a foreign file has found it unreadable, too.
        quiet_panic::catch(|| Self::read_by_extension(path)).unwrap_or_else(|| {
            let reason = "its reader gave up on what it found, expected named tensors of ResNet-18\n\n\
                          hint: fetch it anew, or save it as .safetensors";
            Err(WeightsError::Unreadable { path: path.to_owned(), reason: reason.to_owned() })
        })
    }

    fn read_by_extension(path: &Path) -> Result<Self, WeightsError> {
        let unreadable = |reason: String| WeightsError::Unreadable { path: path.to_owned(), reason: shortened(reason) };
        let no_state_dict =
            |reason: String| WeightsError::NoStateDict { path: path.to_owned(), reason: shortened(reason) };
        let named = match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
            "safetensors" => read_safetensors(path).map_err(unreadable)?,
            "npz" => read_npz(path).map_err(unreadable)?,
            "pth" | "pt" => read_state_dict(path).map_err(no_state_dict)?,
            _ => return Err(WeightsError::Format { path: path.to_owned() }),
        };
        let mut arrays = BTreeMap::new();
        // Counters and other integers have no part in inference.
        for (name, tensor) in named.into_iter().filter(|(_, tensor)| tensor.dtype().is_float()) {
            let values = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1());
            let values = values.map_err(|error| unreadable(error.to_string()))?;
            arrays.insert(name, Array { shape: tensor.dims().to_vec(), values });
        }
        Ok(Self { path: path.to_owned(), hash: content_hash(&arrays), arrays })
    }

    /// The values of tensor `name`, row-major, if it has `shape`.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let (path, name) = (self.path.clone(), name.to_owned());
        let Some(array) = self.arrays.get(&name) else { return Err(WeightsError::Missing { path, name }) };
        if array.shape != shape {
            return Err(WeightsError::Shape { path, name, got: array.shape.clone(), expected: shape.to_vec() });
        }
        if !array.values.iter().all(|value| value.is_finite()) {
            return Err(WeightsError::NotFinite { path, name });
        }
        Ok(array.values.clone())
    }

    /// Hash of names, shapes and values: the same for the same weights in any of the file formats.
    ///
    /// The classifier `fc` is left out, since no feature map depends on it.
    pub const fn content_hash(&self) -> ContentHash {
        self.hash
    }
}

/// A reason that a person can read: a damaged file's names may be megabytes long.
fn shortened(mut reason: String) -> String {
    const MOST_BYTES: usize = 400;
    if reason.len() > MOST_BYTES {
        reason.truncate(reason.floor_char_boundary(MOST_BYTES));
        reason.push('…');
    }
    reason
}

fn content_hash(arrays: &BTreeMap<String, Array>) -> ContentHash {
    let arrays = arrays.iter().filter(|(name, _)| !name.starts_with("fc."));
    ContentHash::of_parts(arrays.flat_map(|(name, Array { shape, values })| {
        let head = format!("{name} {shape:?}").into_bytes();
        // As they lie in memory: like the shards', these are a little-endian machine's.
        [Cow::Owned(head), Cow::Borrowed(bytemuck::cast_slice(values))]
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    fn zipped(ending: &str, entries: &[(&str, &[u8])]) -> Result<Weights, WeightsError> {
        let mut file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
        let mut zip = ZipWriter::new(file.as_file_mut());
        for (name, content) in entries {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
        Weights::read(file.path())
    }

    fn refusal(ending: &str, entry: &str, content: &[u8]) -> WeightsError {
        zipped(ending, &[(entry, content)]).unwrap_err()
    }

    /// A state dict of `names` for one storage of 1,000 floats.
    fn shared(names: usize) -> Result<Weights, WeightsError> {
        let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
        let storage = [
            b"(".to_vec(),
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
            text("0"),
            text("cpu"),
            b"M\xe8\x03tQ".to_vec(),
        ];
        let rest = b"K\x00M\xe8\x03\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs";
        let tensor = |name: usize| {
            let call = b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
            [text(&format!("layer{name}.weight")), call, storage.concat(), rest.to_vec()].concat()
        };
        let tensors: Vec<u8> = (0..names).flat_map(tensor).collect();
        let pickle = [&b"\x80\x02}"[..], &tensors, b"."].concat();
        zipped(".pth", &[("archive/data.pkl", &pickle), ("archive/data/0", &[0; 4000])])
    }

    #[test]
    fn names_that_share_a_storage_are_read_unless_they_would_fill_the_memory() {
        assert_eq!(shared(2).unwrap().get("layer1.weight", &[1000]).unwrap(), [0.0; 1000]);
        let error = shared(300).unwrap_err().to_string();
        assert!(error.contains("its tensors claim 1200000 bytes of the"), "{error}");
    }

    #[test]
    fn reasons_are_short() {
        let error =
            refusal(".pth", "archive/data.pkl", &[&b"\x80\x02c"[..], &b"x".repeat(100_000), b"\ny\n."].concat());
        assert!(error.to_string().len() < 1000, "{} bytes", error.to_string().len());
    }

    fn npz(header: &str) -> String {
        let array = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
        match refusal(".npz", "a.npy", &array) {
            WeightsError::Unreadable { reason, .. } => reason,
            other => other.to_string(),
        }
    }

    #[test]
    fn arrays_that_claim_more_than_they_hold_are_refused_before_memory_is_taken() {
        for shape in ["1099511627776,", "4294967296, 4294967296,", "0, 9223372036854775808, 4,"] {
            let reason = npz(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}"));
            assert!(reason.contains("cannot hold F32"), "{reason}");
        }
        match refusal(".npz", "a.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff") {
            WeightsError::Unreadable { reason, .. } => assert!(reason.contains("a header of 4294967295"), "{reason}"),
            other => panic!("{other}"),
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    fn a_panic_of_a_reader_is_a_fault_of_the_file() {
        // candle shifts by more than the 64 bits that its integers have.
        let error = refusal(".pth", "archive/data.pkl", &[b"\x8a\xff".as_slice(), &[0xff; 255], b"."].concat());
        assert!(matches!(error, WeightsError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn a_pickle_that_would_fill_the_memory_or_the_stack_is_refused() {
        let doubling = [b"]K\x00a".as_slice(), &b"q\x00](h\x00h\x00e".repeat(40), b"."].concat();
        let nested = [b")".as_slice(), &b"\x85".repeat(1_000_000), b"."].concat();
        for pickle in [doubling, nested] {
            let error = refusal(".pth", "archive/data.pkl", &pickle);
            assert!(matches!(error, WeightsError::NoStateDict { .. }), "{error}");
        }
    }
}
