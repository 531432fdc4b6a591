//! Every kernel between pages that must not be touched, natively: valgrind (`just memcheck`) knows no AVX-512.
//!
//! All memory of this program begins right behind such a page, or ends right before one: one step too far and the
//! program is killed.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout},
    ptr::null_mut,
    sync::atomic::{AtomicBool, Ordering},
};

use half::{bf16, f16};
use kernels::{
    Activations, Algorithm, Attention, Begin, Conv2d, ConvShape, Element, Isa, Matrix, MatrixMut, Multiplier, Outputs,
    Panels, Patches, Precision, QuantisedConv2d, QuantisedInput, Rows, Scratch, Standardise, gelu, gelu_backward,
    max_pool_3x3_stride_2, multiply_rows, normalise, normalise_backward, quantise, row_padding,
};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use support::{fill, values};

const PAGE_BYTES: usize = 4096;

/// Whether memory is put right behind a forbidden page, instead of right before one.
static AT_THE_START: AtomicBool = AtomicBool::new(false);

/// Puts every piece of memory between two forbidden pages.
struct BetweenPages;

#[global_allocator]
static ALLOCATOR: BetweenPages = BetweenPages;

// SAFETY: a piece lies wholly within its own readable and writable pages, at an offset that is a multiple of its alignment,
// which is at most a page's. Where it begins tells the mapping's extent: the forbidden page in front begins one page below
// the page that it begins in.
unsafe impl GlobalAlloc for BetweenPages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let inner = layout.size().next_multiple_of(PAGE_BYTES);
        if layout.align() > PAGE_BYTES {
            return null_mut();
        }
        // SAFETY: new memory, of which only the two outer pages are protected.
        unsafe {
            let flags = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
            let Ok(start) = mmap_anonymous(null_mut(), inner + 2 * PAGE_BYTES, flags.0, flags.1) else {
                return null_mut();
            };
            for page in [start, start.add(PAGE_BYTES + inner)] {
                if mprotect(page, PAGE_BYTES, MprotectFlags::empty()).is_err() {
                    return null_mut();
                }
            }
            let slack = (inner - layout.size()) / layout.align() * layout.align();
            let offset = if AT_THE_START.load(Ordering::Relaxed) { 0 } else { slack };
            start.cast::<u8>().add(PAGE_BYTES + offset)
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let inner = layout.size().next_multiple_of(PAGE_BYTES);
        // SAFETY: the mapping that `alloc` made for this piece.
        unsafe {
            let start = piece.sub(piece.addr() % PAGE_BYTES + PAGE_BYTES);
            munmap(start.cast(), inner + 2 * PAGE_BYTES).unwrap();
        }
    }
}

fn filled<E: Element>(images: usize, side: usize, border: usize, channels: usize) -> Activations<E> {
    let mut activations = Activations::zeros(images, side, border, channels);
    for (image, y) in (0..images).flat_map(|image| (0..side).map(move |y| (image, y))) {
        let row: &mut [E] = activations.row_mut(image, y);
        let random = values(row.len(), (image * 1000 + y) as u64);
        row.iter_mut().zip(random).for_each(|(to, value)| *to = E::round(value.abs()));
    }
    activations
}

/// Convolves in the tightest memory that the kernel accepts, and gives a value of each corner.
fn convolve<E: Element>(isa: Isa, algorithm: Algorithm, shape: ConvShape, in_side: usize, images: usize) {
    let ConvShape { in_channels, out_channels, kernel, stride, padding } = shape;
    let weights = values(out_channels * in_channels * kernel * kernel, 1);
    let out_side = (in_side + 2 * padding - kernel) / stride + 1;
    let conv = Conv2d::<E>::new(isa, algorithm, shape, &weights, &values(out_channels, 2), true).unwrap();
    let input = filled(images, in_side, algorithm.border(in_side, padding), in_channels);
    let residual = filled(images, out_side, 0, out_channels);
    let mut output = Activations::zeros(images, out_side, 0, out_channels);
    conv.run(&input, Some(&residual), &mut output, &mut Scratch::default()).unwrap();
    let last = output.row(images - 1, out_side - 1);
    assert!(last.iter().any(|value| bytemuck::bytes_of(value).iter().any(|byte| *byte != 0)), "something came out");
}

fn convolve_quantised(isa: Isa, shape: ConvShape, in_side: usize, images: usize) {
    let ConvShape { in_channels, out_channels, kernel, stride, padding } = shape;
    let weights = values(out_channels * in_channels * kernel * kernel, 1);
    let out_side = (in_side + 2 * padding - kernel) / stride + 1;
    let input = QuantisedInput { steps: vec![1.0 / 255.0; in_channels], means: vec![0.5; in_channels] };
    let conv = QuantisedConv2d::new(isa, shape, &weights, &values(out_channels, 2), true, &input).unwrap();
    let mut integers = Activations::zeros(images, in_side, padding, in_channels);
    quantise(&filled(images, in_side, 0, in_channels), &vec![255.0; in_channels], &mut integers);
    let mut floats = Activations::zeros(images, out_side, 0, out_channels);
    fill(&mut floats, 3);
    let residual = floats.clone();
    let (mut quantised, factors) = (Activations::zeros(images, out_side, 0, out_channels), vec![50.0; out_channels]);
    let outputs = Outputs { floats: Some(&mut floats), quantised: Some((&mut quantised, &factors)) };
    conv.run(&integers, Some(&residual), outputs).unwrap();
    assert!(quantised.row(images - 1, out_side - 1).iter().any(|value| *value > 0), "something came out");
}

/// A product of (m, k) and (k, n) in all its ways, in the tightest memory that each accepts.
fn multiply(isa: Isa, m: usize, n: usize, k: usize) {
    let (a, b) = (values(m * k, 1), values(k * n, 2));
    let a_rows = Matrix::rows(&a, m, k, k);
    let product = |c: &[f32]| assert!(c.iter().any(|value| *value != 0.0), "something came out");
    for precision in [Precision::F32, Precision::Bf16] {
        let mut multiplier = Multiplier::new(isa, precision);
        let mut panels = Panels::new(isa, precision, k, n);
        for columns in [false, true] {
            // The same numbers as rows, or as columns one behind the other.
            let right = if columns { Matrix::rows(&b, n, k, k).transposed() } else { Matrix::rows(&b, k, n, n) };
            panels.pack(right);
            let mut c = vec![0.0; m * n];
            let to = MatrixMut { values: &mut c, rows: m, columns: n, row_step: n };
            multiplier.multiply(a_rows, &panels, Begin::Zero, to);
            product(&c);
        }
        // Rows of B have room for whole panels; A is (k, m).
        let stride = n.next_multiple_of(row_padding());
        let padded = values(k * stride, 3);
        let mut c = vec![0.0; m * n];
        let to = MatrixMut { values: &mut c, rows: m, columns: n, row_step: n };
        let (left, right) = (Matrix::rows(&a, k, m, m), Matrix::rows(&padded, k, n, stride));
        multiplier.multiply_transposed(left, right, Begin::Present, to);
        product(&c);
        let to = MatrixMut { values: &mut c, rows: m, columns: n, row_step: n };
        multiply_rows(isa, a_rows, right, Begin::Zero, to);
        product(&c);
    }
}

fn rows(count: usize, columns: usize) -> Rows {
    let mut rows = Rows::zeros(count, columns);
    (0..count).for_each(|row| rows.row_mut(row).copy_from_slice(&values(columns, row as u64)));
    rows
}

/// The other kernels of a training step, on rows that fill no register.
fn train(isa: Isa) {
    let (x, grad, mut y, mut x_grad) = (rows(3, 37), rows(3, 37), Rows::zeros(3, 37), Rows::zeros(3, 37));
    let mut inverse_std = vec![0.0; 3];
    normalise(isa, &x, 1e-5, &mut y, &mut inverse_std);
    normalise_backward(isa, &y, &inverse_std, &grad, &mut x_grad);

    let (x, mut grad, mut y) = (values(37, 1), values(37, 2), vec![0.0; 37]);
    gelu(isa, &x, &mut y);
    gelu_backward(isa, &x, &mut grad, &mut y);

    let (tokens, width) = (7, 10);
    let (qkv, mut attended, mut qkv_grad) =
        (rows(tokens, 3 * width), Rows::zeros(tokens, width), rows(tokens, 3 * width));
    let mut attention = Attention::new(isa, tokens, width, 2);
    for gains in [None, Some(values(width / 2, 3))] {
        attention.forward(&qkv, 0, gains.as_deref(), &mut attended);
        let mut gains_grad = vec![0.0; width / 2];
        attention.backward(&qkv, 0, gains.as_deref(), &attended, &mut qkv_grad, &mut gains_grad);
    }

    let patches = Patches { side: 6, grid: 2, patch_side: 3, channels: 5 };
    let map: Vec<f16> = values(patches.values_per_map(), 4).into_iter().map(f16::from_f32).collect();
    let standardise = Standardise::new(&[[0.1, 1.4]; 5], patches, true);
    let mut token = vec![0.0; patches.token_width()];
    let moments = standardise.moments(isa, &map, 3);
    standardise.part(isa, &map, 3, 0, moments, &mut token);
    assert!(token.iter().all(|value| value.is_finite()));
}

#[test]
fn nothing_is_read_or_written_outside() {
    let shape = |in_channels, out_channels, kernel, stride| ConvShape {
        in_channels,
        out_channels,
        kernel,
        stride,
        padding: kernel / 2,
    };
    for at_the_start in [false, true] {
        AT_THE_START.store(at_the_start, Ordering::Relaxed);
        for isa in Isa::available() {
            for (shape, side, images) in [
                (shape(64, 64, 3, 1), 14, 1),
                (shape(64, 128, 3, 2), 28, 1),
                (shape(64, 128, 1, 2), 28, 1),
                (shape(12, 32, 3, 1), 7, 3),
            ] {
                convolve::<f32>(isa, Algorithm::Direct, shape, side, images);
                convolve::<bf16>(isa, Algorithm::Direct, shape, side, images);
                convolve_quantised(isa, shape, side, images);
            }
            for (m, n, k) in [(1, 1, 1), (15, 33, 7), (14, 64, 40), (5, 31, 3)] {
                multiply(isa, m, n, k);
            }
            train(isa);
            convolve::<f32>(isa, Algorithm::Direct, shape(1, 64, 7, 2), 56, 1);
            convolve::<f32>(isa, Algorithm::Direct, shape(3, 64, 7, 2), 56, 1);
            for algorithm in [Algorithm::Winograd2, Algorithm::Winograd4] {
                for (side, images) in [(1, 1), (6, 1), (7, 3), (14, 2)] {
                    convolve::<f32>(isa, algorithm, shape(16, 32, 3, 1), side, images);
                    convolve::<bf16>(isa, algorithm, shape(16, 32, 3, 1), side, images);
                    convolve::<f32>(isa, algorithm, shape(192, 64, 3, 1), side, images);
                }
            }
        }
        let mut pooled = Activations::<bf16>::zeros(2, 14, 0, 48);
        max_pool_3x3_stride_2(&filled(2, 28, 0, 48), &mut pooled, &mut Scratch::default());
    }
}
