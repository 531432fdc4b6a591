//! The kernels beside their twins.

use candle_core::DType;
use gpu::{Array, OnCpu, PassKernel, Program};

use super::*;
use crate::channels_last::tests::{compare, image, there, wave};

/// Runs `kernel` with the address of an output like `expected`, which it must give.
fn check(machine: &OnCpu, expected: &Tensor, kernel: impl FnOnce(u64) -> PassKernel) {
    let out = Array::<f32>::zeros(machine, expected.elem_count()).unwrap();
    compare(machine, &kernel(out.address()), &out, expected);
}

/// [`wave`] with values between two numbers of TF32, more than there is, and no numbers among them.
fn rough_wave(dims: [usize; 4]) -> Tensor {
    let mut values = wave(dims.as_slice(), 1.5).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let rough = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-42, -0.0];
    let between = [0x3f80_1000, 0x3f80_3000, 0xbf80_1000].map(f32::from_bits);
    values.iter_mut().skip(1).step_by(7).zip(rough.iter().chain(&between)).for_each(|(value, rough)| *value = *rough);
    Tensor::from_vec(values, dims.as_slice(), &Device::Cpu).unwrap()
}

#[test]
fn kernels_give_the_bits_of_their_twins() {
    let Some(machine) = OnCpu::new(&Program::pass()).unwrap() else {
        eprintln!("skipped: there is no C++ compiler to run the GPU's kernels with");
        return;
    };
    let kernels = Kernels::default;
    let there = |tensor: &Tensor| there::<f32>(&machine, tensor);
    for colours in [1, 3] {
        let images: Vec<f32> = [0, 1].into_iter().flat_map(|number| image(colours, number)).collect();
        let images = Tensor::from_vec(images, (2, 224, 224, colours), &Device::Cpu).unwrap();
        let normalise = Normalise::new(colours);
        let (rates, offsets) = (normalise.rates, normalise.offsets);
        let expected = images.apply_op1_no_bwd(&Split { normalise, kernels: kernels() }).unwrap();
        let from = there(&images);
        check(&machine, &expected, |out| {
            PassKernel::split([from.address(), out], 2 * 224 * 224, colours, rates, offsets)
        });
    }

    let (sums, biases) = (rough_wave([2, 112, 112, 64]), wave((EDGES, EDGES, 64), 1.5));
    let expected = sums.apply_op1_no_bwd(&Pool { biases: biases.clone(), kernels: kernels() }).unwrap();
    let (sums, biases) = (there(&sums), there(&biases));
    check(&machine, &expected, |out| PassKernel::pool([sums.address(), biases.address(), out], 2));

    let (sums, bias) = (rough_wave([3, 10, 10, 16]), wave(16, 2.5));
    let finish = |relu| Finish { bias: bias.clone(), relu, kernels: kernels() };
    let shortcut = rough_wave([3, 10, 10, 16]).apply_op1_no_bwd(&finish(false)).unwrap();
    let (count, from) = (sums.elem_count(), [&sums, &bias, &shortcut].map(there));
    let [sums_at, bias_at, shortcut_at] = [0, 1, 2].map(|which| from[which].address());
    let expected = sums.apply_op2_no_bwd(&shortcut, &finish(true)).unwrap();
    check(&machine, &expected, |out| PassKernel::finish_pairs([sums_at, bias_at, shortcut_at, out], count, 16, true));
    let expected = sums.apply_op1_no_bwd(&finish(false)).unwrap();
    check(&machine, &expected, |out| PassKernel::finish_pairs([sums_at, bias_at, 0, out], count, 16, false));

    let expected = shortcut.apply_op1_no_bwd(&Join { kernels: kernels() }).unwrap();
    assert_eq!(expected.dims(), [3, 10, 10, 16]);
    assert_eq!(expected.dtype(), DType::F32);
    check(&machine, &expected, |out| PassKernel::join_pairs([shortcut_at, out], count, 16));
}
