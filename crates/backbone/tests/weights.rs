//! Reading weights: the three file formats, and what each fault is called.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up has failed")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use backbone::{Backbone, BackboneError, Engine, Weights, WeightsError};
use candle_core::{Device, Tensor};
use half::f16;
use tempfile::TempDir;

fn tensor<T: candle_core::WithDType>(values: &[T], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// What `fixtures/make_state_dict.py` puts into `fixtures/state_dict.pth`.
fn small() -> HashMap<String, Tensor> {
    let named = [
        ("conv.weight", tensor(&[-0.25f32, -0.125, 0.0, 0.125, 0.25, 0.375], &[3, 2, 1, 1])),
        ("bn.weight", tensor(&[1.0f32; 3], &[3])),
        ("bn.bias", tensor(&[0.0f32; 3], &[3])),
        ("bn.running_mean", tensor(&[0.0f32; 3], &[3])),
        ("bn.running_var", tensor(&[0.5f32, 1.5, 2.5], &[3])),
        ("bn.num_batches_tracked", tensor(&[0i64], &[])),
    ];
    named.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

/// A convolution and batch norm with which the first layer is complete.
fn stem() -> HashMap<String, Tensor> {
    let mut named = HashMap::from([("conv1.weight".to_owned(), tensor(&[0.5f32; 64 * 3 * 49], &[64, 3, 7, 7]))]);
    for part in ["weight", "bias", "running_mean", "running_var"] {
        named.insert(format!("bn1.{part}"), tensor(&[1.0f32; 64], &[64]));
    }
    named
}

fn write(tensors: &HashMap<String, Tensor>, folder: &TempDir, name: &str) -> PathBuf {
    let path = folder.path().join(name);
    if name.ends_with("npz") {
        let named: Vec<_> = tensors.iter().collect();
        Tensor::write_npz(&named, &path).unwrap();
    } else {
        candle_core::safetensors::save(tensors, &path).unwrap();
    }
    path
}

/// The archive `from`, as `numpy.savez_compressed` writes it.
fn compressed(from: &Path, to: &Path) -> PathBuf {
    let mut from = zip::ZipArchive::new(fs::File::open(from).unwrap()).unwrap();
    let mut zip = zip::ZipWriter::new(fs::File::create(to).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for index in 0..from.len() {
        let mut entry = from.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        zip.start_file(name, options).unwrap();
        std::io::copy(&mut entry, &mut zip).unwrap();
    }
    zip.finish().unwrap();
    to.to_owned()
}

/// The error of building the network from `tensors`, and the path it should name.
fn refusal(tensors: &HashMap<String, Tensor>) -> (WeightsError, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = write(tensors, &folder, "resnet18.safetensors");
    let weights = Weights::read(&path).unwrap();
    match Backbone::new(&weights, Engine::Auto, &Device::Cpu) {
        Err(BackboneError::Weights(error)) => (error, path.display().to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_formats_read_equal() {
    let folder = tempfile::tempdir().unwrap();
    let pth = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/state_dict.pth");
    let pt = folder.path().join("state_dict.pt");
    fs::copy(&pth, &pt).unwrap();
    // As training scripts save it: `{"epoch": 3, "state_dict": …}`.
    let checkpoint = pth.with_file_name("checkpoint.pth");
    let (safetensors, npz) = (write(&small(), &folder, "small.safetensors"), write(&small(), &folder, "small.npz"));
    let compressed = compressed(&npz, &folder.path().join("compressed.npz"));
    let paths = [safetensors, npz, compressed, pth, pt, checkpoint];
    let files = paths.map(|path| Weights::read(&path).unwrap());
    for weights in &files {
        let conv = weights.get("conv.weight", &[3, 2, 1, 1]).unwrap();
        assert_eq!(conv, [-0.25, -0.125, 0.0, 0.125, 0.25, 0.375], "{weights:?}");
        assert_eq!(weights.get("bn.running_var", &[3]).unwrap(), [0.5, 1.5, 2.5], "{weights:?}");
        assert_eq!(weights.content_hash(), files[0].content_hash(), "{weights:?}");
        let counter = weights.get("bn.num_batches_tracked", &[]).unwrap_err();
        assert!(matches!(counter, WeightsError::Missing { .. }), "counters are no weights: {counter}");
    }
}

#[test]
fn the_real_weights_have_one_hash_in_both_writable_formats() {
    let Some(path) = testdata::real_weights() else { return };
    let folder = tempfile::tempdir().unwrap();
    let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let npz = write(&tensors, &folder, "resnet18.npz");
    let hash = |path: &Path| Weights::read(path).unwrap().content_hash();
    assert_eq!(hash(&npz), hash(&path));
}

#[test]
fn the_hash_is_of_names_shapes_and_values_but_not_of_the_classifier() {
    let folder = tempfile::tempdir().unwrap();
    let hash = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut tensors = small();
        change(&mut tensors);
        Weights::read(&write(&tensors, &folder, "changed.safetensors")).unwrap().content_hash()
    };
    let unchanged = hash(&|_| ());
    let with_classifier = hash(&|tensors| {
        tensors.insert("fc.weight".into(), tensor(&[1.0f32], &[1, 1]));
    });
    assert_eq!(with_classifier, unchanged);
    let in_half_precision = hash(&|tensors| {
        let values = [-0.25, -0.125, 0.0, 0.125, 0.25, 0.375].map(f16::from_f32);
        tensors.insert("conv.weight".into(), tensor(&values, &[3, 2, 1, 1]));
    });
    assert_eq!(in_half_precision, unchanged, "the values are the same");
    let another_value = hash(&|tensors| {
        tensors.insert("bn.bias".into(), tensor(&[0.0f32, 0.0, 1e-30], &[3]));
    });
    let another_shape = hash(&|tensors| {
        let flat = tensors["conv.weight"].reshape((2, 3, 1, 1)).unwrap();
        tensors.insert("conv.weight".into(), flat);
    });
    let another_name = hash(&|tensors| {
        let bias = tensors.remove("bn.bias").unwrap();
        tensors.insert("bn.shift".into(), bias);
    });
    for changed in [another_value, another_shape, another_name] {
        assert_ne!(changed, unchanged);
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let (error, path) = refusal(&stem());
    assert_eq!(
        error.to_string(),
        format!("weights `{path}` have no tensor `layer1.0.conv1.weight`; expected torchvision's or timm's ResNet-18")
    );
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let mut tensors = stem();
    tensors.insert("conv1.weight".into(), tensor(&[0.5f32; 64 * 49], &[64, 1, 7, 7]));
    let (error, path) = refusal(&tensors);
    assert_eq!(
        error.to_string(),
        format!("weights `{path}`: tensor `conv1.weight` has shape [64, 1, 7, 7], expected [64, 3, 7, 7]")
    );
}

#[test]
fn a_tensor_that_is_not_finite_is_named() {
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        let mut values = [1.0; 64];
        values[63] = bad;
        let mut tensors = stem();
        tensors.insert("bn1.running_var".into(), tensor(&values, &[64]));
        let (error, path) = refusal(&tensors);
        assert_eq!(
            error.to_string(),
            format!("weights `{path}`: tensor `bn1.running_var` holds a value that is not finite")
        );
    }
}

#[test]
fn no_file_unknown_format_and_damage_have_errors_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let absent = Weights::read(&at("absent.pth")).unwrap_err();
    assert!(matches!(absent, WeightsError::NotFound { .. }), "{absent}");
    assert_eq!(
        absent.to_string(),
        format!(
            "no weights at `{}`; give a .safetensors, .npz or .pth file or a Hub model in `extract.weights`",
            at("absent.pth").display()
        )
    );
    for name in ["resnet18.onnx", "resnet18"] {
        fs::write(at(name), "weights").unwrap();
        let unknown = Weights::read(&at(name)).unwrap_err();
        assert!(matches!(unknown, WeightsError::Format { .. }), "{unknown}");
        assert!(unknown.to_string().contains(&at(name).display().to_string()), "{unknown}");
        assert!(unknown.to_string().ends_with("expected .safetensors, .npz, .pth or .pt"), "{unknown}");
    }
    let whole = write(&small(), &folder, "whole.safetensors");
    let bytes = fs::read(whole).unwrap();
    for name in ["cut.safetensors", "cut.npz", "cut.pth"] {
        fs::write(at(name), &bytes[..bytes.len() - 1]).unwrap();
        let damaged = Weights::read(&at(name)).unwrap_err();
        match &damaged {
            WeightsError::NoStateDict { .. } => assert!(damaged.to_string().contains("save it anew"), "{damaged}"),
            _ => assert!(matches!(damaged, WeightsError::Unreadable { .. }), "{damaged}"),
        }
        assert!(damaged.to_string().contains(&at(name).display().to_string()), "{damaged}");
    }
}
