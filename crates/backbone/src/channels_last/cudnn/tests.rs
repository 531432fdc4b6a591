//! What cuDNN itself says of GPUs that need not be there.

use std::ffi::c_char;

use candle_core::{
    DType,
    cuda_backend::cudarc::cudnn::sys::{
        cudnnBackendAttributeName_t::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
        cudnnBackendDescriptorType_t::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR,
    },
};
use serde_json::json;
use sources::Source;

use super::{
    descriptor::Descriptor,
    plan::{Epilogue, Target, Work},
};
use crate::{
    channels_last::convolve::{Convolve, Extent},
    preprocess::IMAGE_SIDE,
};

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

/// All that the network has cuDNN do to so many images.
fn network(images: usize) -> Vec<Work> {
    let work = |dtype, side, channels, kernel, out_channels, stride, padding, epilogue| {
        let out_side = (side + 2 * padding - kernel) / stride + 1;
        let extent = Extent { images, side, channels, kernel, out_channels, out_side };
        Work { convolve: Convolve { stride, padding }, extent, dtype, epilogue }
    };
    let cells_along = IMAGE_SIDE / 2 + 3;
    let mut works: Vec<Work> =
        [8, 16].map(|channels| work(DType::F16, cells_along, channels, 4, 64, 1, 0, Epilogue::default())).to_vec();
    let (mut side, mut channels) = (IMAGE_SIDE / 4, 64);
    for map in Source::FEATURE_MAPS {
        let (out, stride) = (map.channels(), side / map.side());
        let [bias, inner, last] = [(false, false), (false, true), (true, true)].map(|(shortcut, relu)| Epilogue {
            shortcut,
            bias: true,
            relu,
        });
        let mut bf16 = |side, channels, kernel, stride, padding, epilogue| {
            works.push(work(DType::BF16, side, channels, kernel, out, stride, padding, epilogue));
        };
        bf16(side, channels, 3, stride, 1, inner);
        bf16(map.side(), out, 3, 1, 1, inner);
        bf16(map.side(), out, 3, 1, 1, last);
        if channels != out {
            bf16(side, channels, 1, stride, 0, bias);
        }
        (side, channels) = (map.side(), out);
    }
    works
}

#[test]
#[ignore = "asks cuDNN itself, whose libraries the GPU build alone does not need: crates/gpu/stand-in/rehearse.py"]
fn all_convolutions_have_fused_kernels() {
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
        for work in [256, 128, 37, 1].into_iter().flat_map(network) {
            let plan = work.plan(Target::Properties(gpu)).unwrap();
            assert!(plan.is_some(), "{gpu:?} has none for {work:?}");
        }
    }
    // Tensor cores of that generation know no bfloat16.
    let turing = gpu("Tesla T4", 750, 40, 65536, 4 << 20);
    let works = network(256).into_iter().filter(|work| work.dtype == DType::BF16);
    for work in works {
        assert!(work.plan(Target::Properties(&turing)).unwrap().is_none(), "{work:?}");
    }
}
