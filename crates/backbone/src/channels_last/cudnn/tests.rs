//! What cuDNN itself says of GPUs that need not be there; and what it computes, where one is.

use std::ffi::c_char;

use candle_core::{
    DType, Device, Tensor,
    cuda_backend::cudarc::cudnn::sys::{
        cudnnBackendAttributeName_t::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
        cudnnBackendDescriptorType_t::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR,
    },
};
use serde_json::json;
use sources::Source;

use super::{
    descriptor::Descriptor,
    has_kernel,
    plan::{Epilogue, Purpose, Target, Work},
};
use crate::{
    FeatureBatch, Network, Weights,
    backbone::Arithmetic,
    channels_last::{
        ChannelsLast, Kernels, Pass,
        convolve::{Convolve, Extent},
        fused::Fused,
        pairs::Pairs,
        stem::Stem,
        tests::{image, relative_error, wave},
    },
    preprocess::IMAGE_SIDE,
};

/// A GPU, or what stands in for one; none, with a message, where there is neither.
fn first_gpu() -> Option<Device> {
    Device::new_cuda(0).inspect_err(|error| eprintln!("skipped: there is no GPU: {error}")).ok()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let here = tensor.to_device(&Device::Cpu).unwrap();
    here.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

#[test]
fn fused_convolutions_give_what_their_twins_give() {
    const SIDE: usize = 8;
    let Some(gpu) = first_gpu() else { return };
    let there = |tensor: &Tensor| tensor.to_device(&gpu).unwrap();
    for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 2, 0)] {
        let in_bf16 = |tensor: Tensor| tensor.to_dtype(DType::BF16).unwrap();
        let of = |dims: &[usize], offset, scale: f64| in_bf16((wave(dims, offset) * scale).unwrap());
        let out_side = (SIDE + 2 * padding - kernel) / stride + 1;
        let mut input = values(&of(&[2, SIDE, SIDE, 16], 0.5, 1.0));
        // What is no number stays.
        input[(2 * SIDE + 2) * 16 + 3] = f32::NAN;
        let input = in_bf16(Tensor::from_vec(input, (2, SIDE, SIDE, 16), &Device::Cpu).unwrap());
        let (filters, bias) = (of(&[32, kernel, kernel, 16], 1.5, 1.0), of(&[32], 2.5, 4.0));
        let shortcut = of(&[2, out_side, out_side, 32], 3.5, 4.0);
        let epilogues = [(false, false), (false, true), (true, true)];
        for (has_shortcut, relu) in epilogues {
            let fused = |there: &dyn Fn(&Tensor) -> Tensor| Fused {
                convolve: Convolve { stride, padding },
                filters: there(&filters),
                bias: there(&bias),
                relu,
            };
            let run = |there: &dyn Fn(&Tensor) -> Tensor| match has_shortcut {
                true => there(&input).apply_op2_no_bwd(&there(&shortcut), &fused(there)),
                false => there(&input).apply_op1_no_bwd(&fused(there)),
            };
            if !has_kernel(&fused(&there), there(&input).layout(), has_shortcut, gpu.as_cuda_device().unwrap()).unwrap()
            {
                eprintln!("skipped: this GPU's cuDNN has no such kernel: {kernel} by {kernel}");
                continue;
            }
            let (got, expected) = (values(&run(&there).unwrap()), values(&run(&Tensor::clone).unwrap()));
            let what = format!("{kernel} by {kernel} at every {stride}, {has_shortcut} {relu}");
            assert_eq!(got.len(), expected.len(), "{what}");
            assert!(expected.iter().any(|value| value.is_nan()), "{what}");
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                // Two roundings next to each other; sums in another order where they nearly cancel.
                let is_near = (got - expected).abs() <= expected.abs() / 128.0 + 1e-4;
                assert!(is_near || got.is_nan() && expected.is_nan(), "{what}: {got} instead of {expected} at {at}");
            }
        }
    }
}

#[test]
fn the_stem_gives_what_its_twin_gives() {
    let (Some(gpu), Some(weights)) = (first_gpu(), testdata::real_weights()) else { return };
    let network = Network::read(&Weights::read(&weights).unwrap()).unwrap();
    for colours in [1, 3] {
        let images: Vec<f32> = (0..3).flat_map(|number| image(colours, number)).collect();
        let images = Tensor::from_vec(images, (3, IMAGE_SIDE, IMAGE_SIDE, colours), &Device::Cpu).unwrap();
        let pooled = |device: &Device| {
            let stem = Stem::new(&network.stem, colours, device, Kernels::on(device).unwrap()).unwrap();
            values(&images.to_device(device).unwrap().apply_op1_no_bwd(&stem).unwrap())
        };
        let (got, expected) = (pooled(&gpu), pooled(&Device::Cpu));
        // Tensor cores add less exactly where sums cancel, so that more are rounded to their neighbour.
        let error = relative_error(&got, &expected);
        println!("the stem of images of {colours} colours is off by {error:.1e}");
        assert!(error < 1e-3, "{colours} colours: off by {error}");
        for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!((got - expected).abs() <= expected.abs() / 128.0 + 1e-3, "{got} instead of {expected} at {at}");
        }
    }
}

#[test]
fn passes_are_fused_or_just_as_without() {
    let (Some(gpu), Some(weights)) = (first_gpu(), testdata::real_weights()) else { return };
    let network = Network::read(&Weights::read(&weights).unwrap()).unwrap();
    let maps = |engine: &ChannelsLast| {
        let mut maps = FeatureBatch::default();
        engine.run(&[image(1, 0)], &mut maps.sinks(1, &[Source::Fm1, Source::Fm4])).unwrap();
        maps
    };
    let [asked, unfused] = [true, false].map(|fused| {
        let engine = ChannelsLast::new(&network, &gpu, Arithmetic::Halves { fused }).unwrap();
        let maps = maps(&engine);
        (engine, maps)
    });
    let [arithmetic, unfused_arithmetic] = [&asked.0, &unfused.0].map(ChannelsLast::arithmetic);
    let times = asked.0.take_fastest_kernels(&[image(1, 0)], 1).unwrap();
    // The stem, two in each of eight blocks, and three on shortcuts.
    assert_eq!(times.len(), if arithmetic == unfused_arithmetic { 0 } else { 20 });
    assert!(times.iter().all(|of| of.seconds.first().is_some_and(Option::is_some)), "{times:?}");
    for ((source, asked_for), (_, without)) in asked.1.maps.iter().zip(&unfused.1.maps) {
        let error = relative_error(asked_for, without);
        println!("{arithmetic:?}: {source} is off by {error:.1e}");
        match arithmetic == unfused_arithmetic {
            true => assert!(asked_for == without, "{source}"),
            false => assert!(error > 0.0 && error < 3e-2, "{source} is off by {error}"),
        }
    }
    // The fastest kernels may add in another order.
    for ((source, with_fastest), (_, asked_for)) in maps(&asked.0).maps.iter().zip(&asked.1.maps) {
        let error = relative_error(with_fastest, asked_for);
        assert!(error < 3e-2, "{source} is off by {error} with the fastest kernels");
    }
}

#[test]
fn pairs_give_what_their_twins_give() {
    let (Some(gpu), Some(weights)) = (first_gpu(), testdata::real_weights()) else { return };
    let network = Network::read(&Weights::read(&weights).unwrap()).unwrap();
    println!("cuDNN has kernels for pairs: {}", Pairs::has_kernels(&network, &gpu).unwrap());
    let maps = |device: &Device| {
        let pairs = Pass::Pairs(Box::new(Pairs::new(&network, device).unwrap()));
        let engine = ChannelsLast::of(pairs, device);
        let mut maps = FeatureBatch::default();
        engine.run(&[image(1, 0), image(3, 1)], &mut maps.sinks(2, &Source::FEATURE_MAPS)).unwrap();
        maps
    };
    for ((source, got), (_, expected)) in maps(&gpu).maps.iter().zip(&maps(&Device::Cpu).maps) {
        let error = relative_error(got, expected);
        println!("{source} in pairs is off its twin by {error:.1e}");
        // Tensor cores cut off what they add where the twin rounds: 8e-6 and more on an H200, the deeper the more.
        assert!(error < 1e-4, "{source} is off by {error}");
    }
}

/// A GPU that need not be there, with what cuDNN looks at.
fn gpu(
    name: &str,
    compute_capability: u32,
    multiprocessors: u32,
    shared_memory_bytes_per_block: u32,
    l2_cache_bytes: u32,
) -> Descriptor {
    let few = matches!(compute_capability, 860 | 890 | 1200);
    let properties = json!({
        "deviceName": name, "deviceVer": compute_capability, "driverVer": 13000, "multiProcessorCount": multiprocessors,
        "maxSharedMemoryPerBlockOptin": shared_memory_bytes_per_block, "l2CacheSize": l2_cache_bytes,
        "maxThreadsPerSM": if few { 1536 } else { 2048 }, "maxCtasPerSM": if few { 24 } else { 32 },
        "totalGlobalMem": 24_u64 << 30, "smClockRateKHz": 1_980_000, "memClockRateKHz": 3_201_000, "memoryBusWidth": 6144,
        "maxGridSize": [2_147_483_647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536,
        "maxRegistersPerSM": 65536, "maxThreadsPerBlock": 1024, "warpSize": 32, "maxSharedMemoryPerBlock": 49152,
        "reservedSharedMemoryPerBlock": 1024, "oversizedSharedMemoryPerBlock": 0, "smCountOrigin": 0, "pciDeviceId": 0,
        "isTccDriver": 0, "supportCoopLaunch": 1, "cudaDeviceId": 0,
    });
    let json: Vec<c_char> = properties.to_string().bytes().map(|byte| byte as c_char).collect();
    let properties = Descriptor::new(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR).unwrap();
    properties.with(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, &json).unwrap().finalised().unwrap()
}

/// All that the network has cuDNN do to so many images: fused, and as sums of pairs.
fn network(images: usize) -> Vec<Work> {
    let work = |side, channels, kernel, out_channels, stride, padding, purpose| {
        let out_side = (side + 2 * padding - kernel) / stride + 1;
        let extent = Extent { images, side, channels, kernel, out_channels, out_side };
        Work { convolve: Convolve { stride, padding }, extent, purpose }
    };
    let mut works: Vec<Work> = Vec::new();
    let (mut side, mut channels) = (IMAGE_SIDE / 4, 64);
    for map in Source::FEATURE_MAPS {
        let (out, stride) = (map.channels(), side / map.side());
        let [bias, inner, last] = [(false, false), (false, true), (true, true)]
            .map(|(shortcut, relu)| Purpose::Fused(Epilogue { shortcut, relu }));
        works.push(work(side, channels, 3, out, stride, 1, inner));
        works.push(work(map.side(), out, 3, out, 1, 1, inner));
        works.push(work(map.side(), out, 3, out, 1, 1, last));
        if channels != out {
            works.push(work(side, channels, 1, out, stride, 0, bias));
        }
        (side, channels) = (map.side(), out);
    }
    let in_pairs = |fused: &Work| {
        let Extent { side, channels, kernel, out_channels, .. } = fused.extent;
        let Convolve { stride, padding } = fused.convolve;
        work(side, 3 * channels, kernel, out_channels, stride, padding, Purpose::Sums)
    };
    let sums: Vec<Work> = works.iter().map(in_pairs).collect();
    let stems = [4, 12].map(|channels| work(IMAGE_SIDE, channels, 7, 64, 2, 3, Purpose::Sums));
    [works, sums, stems.to_vec()].concat()
}

#[test]
#[ignore = "asks cuDNN itself, whose libraries the GPU build alone does not need: crates/gpu/stand-in/rehearse.py"]
fn cudnn_has_kernels_for_all_convolutions() {
    let with_tensor_cores = [
        gpu("NVIDIA A100", 800, 108, 166_912, 40 << 20),
        gpu("NVIDIA GeForce RTX 3090", 860, 82, 101_376, 6 << 20),
        gpu("NVIDIA GeForce RTX 4090", 890, 128, 101_376, 72 << 20),
        gpu("NVIDIA H100 80GB HBM3", 900, 132, 232_448, 50 << 20),
        gpu("NVIDIA H200", 900, 132, 232_448, 60 << 20),
        gpu("NVIDIA B200", 1000, 148, 232_448, 126 << 20),
        gpu("NVIDIA GeForce RTX 5090", 1200, 170, 101_376, 96 << 20),
    ];
    for gpu in &with_tensor_cores {
        for work in [256, 255, 128, 64, 37, 32, 16, 8, 4, 2, 1].into_iter().flat_map(network) {
            let plan = work.plan(Target::Properties(gpu)).unwrap();
            assert!(plan.is_some(), "{gpu:?} has none for {work:?}");
        }
    }
    // Tensor cores of that generation know neither bfloat16 nor TF32.
    let turing = gpu("Tesla T4", 750, 40, 65536, 4 << 20);
    for work in network(256) {
        assert!(work.plan(Target::Properties(&turing)).unwrap().is_none(), "{work:?}");
    }
}
