//! The pass on the CPU's twins beside the native engine, and the kernels themselves beside the twins.

use candle_core::{DType, WithDType};
use dataset::{Dataset, OpenOptions};
use gpu::{Array, Machine as _, OnCpu, PassKernel, Program};
use half::{bf16, f16};
use stage::HashMemo;

use super::{exact_biases::with_exact_biases, finish::Finish, stem::Stem, *};
use crate::{Backbone, FeatureBatch, Weights, preprocess::resize};

/// Multiplied as they are.
const FLOATS: Arithmetic = Arithmetic::Floats { pairs: false };

pub(super) fn image(colours: usize, number: usize) -> Vec<f32> {
    let value = |at: usize| ((at as f32 * 0.013 + number as f32).sin() + (at as f32 * 0.0007).cos() + 2.0) / 4.0;
    (0..IMAGE_SIDE * IMAGE_SIDE * colours).map(value).collect()
}

/// Real ones spread over the data set, resized; fewer where it is not there.
fn faces() -> Vec<Vec<f32>> {
    let Some(dir) = testdata::real_ferplus() else { return vec![image(1, 3)] };
    let scratch = tempfile::tempdir().unwrap();
    let memo = HashMemo::open(&scratch.path().join("memo"));
    let dataset = Dataset::open(&dir, &OpenOptions::new(scratch.path()), &memo).unwrap();
    let face = |number: usize| {
        let pixels = dataset.decode(100 + 2000 * number).unwrap();
        resize(&pixels.data, pixels.width, pixels.height, pixels.channels).unwrap()
    };
    (0..16).map(face).collect()
}

pub(super) fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(got, expected)| got - expected)) / norm(&mut expected.iter().copied())
}

#[test]
fn maps_are_those_of_the_native_engine_within_rounding() {
    let Some(weights) = testdata::real_weights() else { return };
    let weights = Weights::read(&weights).unwrap();
    let native = Backbone::new(&weights, crate::Engine::Native, &Device::Cpu).unwrap();
    let [fused, unfused] = [true, false].map(|fused| Arithmetic::Halves { fused });
    let (pairs, faces) = (Arithmetic::Floats { pairs: true }, faces());
    for (arithmetic, most) in [(pairs, 1e-5), (FLOATS, 1e-5), (fused, 2e-2), (unfused, 2e-2)] {
        let engine = ChannelsLast::new(&Network::read(&weights).unwrap(), &Device::Cpu, arithmetic).unwrap();
        // Pairs are three times the work.
        let faces = faces.chunks(if arithmetic == pairs { 5 } else { 16 }).next().unwrap_or_default().to_vec();
        for images in [vec![image(1, 0)], vec![image(3, 1), image(1, 2)], faces] {
            let mut got = FeatureBatch::default();
            engine.run(&images, &mut got.sinks(images.len(), &Source::FEATURE_MAPS)).unwrap();
            let expected = native.feature_maps(&images, &Source::FEATURE_MAPS).unwrap();
            for ((source, got), (_, expected)) in got.maps.iter().zip(&expected.maps) {
                let error = relative_error(got, expected);
                println!("{arithmetic:?}, {} images: {source} is off by {error:.1e}", images.len());
                assert!(error < most, "{arithmetic:?}: {source} is off by {error}");
            }
        }
    }
}

#[test]
fn biases_between_two_convolutions_are_exact_and_the_network_is_the_same() {
    let Some(weights) = testdata::real_weights() else { return };
    let network = Network::read(&Weights::read(&weights).unwrap()).unwrap();
    let exact = with_exact_biases(&network);
    for block in exact.stages.iter().flatten() {
        assert!(block.conv1.bias.iter().all(|bias| bf16::from_f32(*bias).to_f32() == *bias));
    }
    let maps = |network: &Network<FoldedConv>| {
        let (engine, mut maps) = (ChannelsLast::new(network, &Device::Cpu, FLOATS).unwrap(), FeatureBatch::default());
        engine.run(&[image(1, 0)], &mut maps.sinks(1, &Source::FEATURE_MAPS)).unwrap();
        maps
    };
    for ((source, got), (_, expected)) in maps(&exact).maps.iter().zip(&maps(&network).maps) {
        let error = relative_error(got, expected);
        assert!(error < 1e-5, "{source} is off by {error}");
    }
}

/// `sin(offset + 0.37 i)` for element i.
pub(super) fn wave(dims: impl Into<candle_core::Shape>, offset: f64) -> Tensor {
    let dims = dims.into();
    let values: Vec<f32> = (0..dims.elem_count()).map(|index| (offset + 0.37 * index as f64).sin() as f32).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// A tensor in the machine's memory.
pub(super) fn there<T: WithDType + bytemuck::Pod>(machine: &OnCpu, tensor: &Tensor) -> Array<T> {
    Array::from(machine, &tensor.flatten_all().unwrap().to_vec1::<T>().unwrap()).unwrap()
}

/// Runs `kernel`, whose output is `out`, and compares with `expected`: bit for bit, but for those of what is no number.
pub(super) fn compare<T: WithDType + bytemuck::Pod>(
    machine: &OnCpu,
    kernel: &PassKernel,
    out: &Array<T>,
    expected: &Tensor,
) {
    // SAFETY: the test gives it what its functions ask for.
    unsafe { machine.launch(kernel.name, [kernel.blocks, 1, 1], kernel.threads, &kernel.arguments) }.unwrap();
    let (got, expected) = (out.to_vec(machine).unwrap(), expected.flatten_all().unwrap().to_vec1::<T>().unwrap());
    assert_eq!(got.len(), expected.len(), "{}", kernel.name);
    for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let is_same = bytemuck::bytes_of(got) == bytemuck::bytes_of(expected)
            || got.to_f64().is_nan() && expected.to_f64().is_nan();
        assert!(is_same, "{}: {got} instead of {expected} at {at}", kernel.name);
    }
}

#[test]
fn kernels_give_the_bits_of_their_twins() {
    let Some(machine) = OnCpu::new(&Program::pass()).unwrap() else {
        eprintln!("skipped: there is no C++ compiler to run the GPU's kernels with");
        return;
    };
    let kernels = Kernels::default;
    let zeros = |tensor: &Tensor| Array::<bf16>::zeros(&machine, tensor.elem_count()).unwrap();
    let sums = wave((3, 10, 10, 16), 1.5).to_dtype(DType::BF16).unwrap();
    let (bias, shortcut) = (wave(16, 2.5), wave((3, 10, 10, 16), 3.5).to_dtype(DType::BF16).unwrap());
    let [sums_there, shortcut_there] = [&sums, &shortcut].map(|tensor| there::<bf16>(&machine, tensor));
    let bias_there = there::<f32>(&machine, &bias);
    let finish = |relu| Finish { relu, kernels: kernels() };
    let places =
        |shortcut: u64, out: &Array<bf16>| [sums_there.address(), bias_there.address(), shortcut, out.address()];
    let expected = sums.apply_op3_no_bwd(&bias, &shortcut, &finish(true)).unwrap();
    let out = zeros(&expected);
    let kernel = PassKernel::finish(places(shortcut_there.address(), &out), sums.elem_count(), 16, true);
    compare(&machine, &kernel, &out, &expected);
    let expected = sums.apply_op2_no_bwd(&bias, &finish(false)).unwrap();
    let kernel = PassKernel::finish(places(0, &out), sums.elem_count(), 16, false);
    compare(&machine, &kernel, &out, &expected);
}

#[test]
fn the_stems_kernel_gives_what_its_twin_gives() {
    let (Some(weights), Some(machine)) = (testdata::real_weights(), OnCpu::new(&Program::pass()).unwrap()) else {
        eprintln!("skipped: it needs the real weights, and a C++ compiler to run the GPU's kernels with");
        return;
    };
    let network = Network::read(&Weights::read(&weights).unwrap()).unwrap();
    for colours in [1, 3] {
        let mut pixels: Vec<f32> = [0, 1].into_iter().flat_map(|number| image(colours, number)).collect();
        // What is no number stays, in the second image: in an odd column, which no filter's eighth tap of zero reads.
        pixels[(IMAGE_SIDE * IMAGE_SIDE + 100 * IMAGE_SIDE + 51) * colours] = f32::NAN;
        let images = Tensor::from_vec(pixels, (2, IMAGE_SIDE, IMAGE_SIDE, colours), &Device::Cpu).unwrap();
        let stem = Stem::new(&network.stem, colours, &Device::Cpu, Kernels::default()).unwrap();
        let expected = images.apply_op1_no_bwd(&stem).unwrap();
        let (from, filters, biases) = (
            there::<f32>(&machine, &images),
            there::<f16>(&machine, &stem.in_lanes),
            there::<f32>(&machine, &stem.biases),
        );
        for order in [1, 2] {
            machine.arrange(order).unwrap();
            let out = Array::<bf16>::zeros(&machine, expected.elem_count()).unwrap();
            let places = [from.address(), filters.address(), biases.address(), out.address()];
            let kernel = stem.kernel(places, 2).unwrap();
            // SAFETY: all arrays are as large as the stem's tensors.
            unsafe { machine.launch(kernel.name, [kernel.blocks, 1, 1], kernel.threads, &kernel.arguments) }.unwrap();
            let expected = expected.flatten_all().unwrap().to_vec1::<bf16>().unwrap();
            let (mut others, mut numberless) = (0, 0);
            for (at, (got, expected)) in out.to_vec(&machine).unwrap().into_iter().zip(expected).enumerate() {
                let (got, expected) = (got.to_f32(), expected.to_f32());
                numberless += usize::from(expected.is_nan());
                others += usize::from(got != expected && !expected.is_nan());
                // The same sums in another order: at times they are rounded to the neighbour.
                let is_near = (got - expected).abs() <= expected.abs() / 128.0 + 1e-5;
                assert!(is_near || got.is_nan() && expected.is_nan(), "{got} instead of {expected} at {at}");
            }
            println!("{colours} colours: {others} are the neighbours, {numberless} are no numbers");
            assert!(numberless > 0 && others * 100 < out.len());
        }
    }
}
