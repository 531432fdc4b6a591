//! Scaled dot-product attention of one image (Vaswani et al. 2017, section 3.2.1, <https://arxiv.org/abs/1706.03762>),
//! head by head, forward and backward. The weights (N, N) live in the cache of one core only and are computed again in
//! the backward pass.
//!
//! Shapes: N tokens, H heads, D width.

use crate::{
    Begin, Isa, MatrixMut, Panels, Precision, Rows,
    functions::exp_of_negative,
    layer_norm::{add_row_gradient, normalise_row},
    matmul::{multiply, multiply_rows},
    vector::{Vector, for_each_isa},
};

/// As in PyTorch's `LayerNorm`.
const NORM_EPSILON: f32 = 1e-5;

/// Attention over sequences of one length, and its memory.
#[derive(Clone, Debug)]
pub struct Attention {
    isa: Isa,
    tokens: usize,
    heads: usize,
    head_width: usize,
    /// Queries (scaled), keys and values of one head: (N, D/H).
    q: Rows,
    k: Rows,
    v: Rows,
    /// 1 / standard deviation of every query and key, with norms.
    inverse_std: [Vec<f32>; 2],
    /// Keys or values as right factor: (D/H, N).
    panels: Panels,
    /// (N, N).
    weights: Rows,
    weights_grad: Rows,
    /// Gradient of the head's result, and of its queries or keys: (N, D/H).
    grad: Rows,
    part_grad: Rows,
}

impl Attention {
    /// For sequences of `tokens` tokens of `width`, in `heads` heads.
    pub fn new(isa: Isa, tokens: usize, width: usize, heads: usize) -> Self {
        let head_width = width / heads;
        let (part, square) = (Rows::zeros(tokens, head_width), Rows::zeros(tokens, tokens));
        Self {
            isa,
            tokens,
            heads,
            head_width,
            q: part.clone(),
            k: part.clone(),
            v: part.clone(),
            inverse_std: [vec![0.0; tokens], vec![0.0; tokens]],
            panels: Panels::new(isa, Precision::F32, head_width, tokens),
            weights: square.clone(),
            weights_grad: square,
            grad: part.clone(),
            part_grad: part,
        }
    }

    /// Of queries, keys and values, the N rows of `qkv` (…, 3D) from `first` on, into the same rows of `y` (…, D). With
    /// `gains` (D/H) queries and keys are normalised first, and the queries multiplied by the gains.
    pub fn forward(&mut self, qkv: &Rows, first: usize, gains: Option<&[f32]>, y: &mut Rows) {
        for head in 0..self.heads {
            self.load(qkv, first, head, gains);
            self.weigh();
            let y = part_mut(y, first, self.tokens, head * self.head_width, self.head_width);
            multiply_rows(self.isa, self.weights.matrix(), self.v.matrix(), Begin::Zero, y);
        }
    }

    /// From the gradient `grad` (…, D) of what [`forward`](Self::forward) computed, rows `first` and following, to that of
    /// `qkv`, in the same rows of `qkv_grad` (…, 3D). What the gains receive is added to `gains_grad` (D/H).
    pub fn backward(
        &mut self,
        qkv: &Rows,
        first: usize,
        gains: Option<&[f32]>,
        grad: &Rows,
        qkv_grad: &mut Rows,
        gains_grad: &mut [f32],
    ) {
        let width = self.heads * self.head_width;
        for head in 0..self.heads {
            self.load(qkv, first, head, gains);
            self.weigh();
            for n in 0..self.tokens {
                let begin = head * self.head_width;
                self.grad.row_mut(n).copy_from_slice(&grad.row(first + n)[begin..begin + self.head_width]);
            }
            self.panels.pack(self.v.matrix().transposed());
            multiply(self.grad.matrix(), &self.panels, Begin::Zero, self.weights_grad.matrix_mut());
            for n in 0..self.tokens {
                // SAFETY: the rows have the same length; the instruction set comes from `Isa::available`.
                unsafe { softmax_gradient(self.isa, self.weights.row(n), self.weights_grad.row_mut(n)) }
            }

            let (weights, scores_grad) = (self.weights.matrix().transposed(), self.weights_grad.matrix());
            let place = |part: usize| part * width + head * self.head_width;
            let v_grad = part_mut(qkv_grad, first, self.tokens, place(2), self.head_width);
            multiply_rows(self.isa, weights, self.grad.matrix(), Begin::Zero, v_grad);

            multiply_rows(self.isa, scores_grad, self.k.matrix(), Begin::Zero, self.part_grad.matrix_mut());
            let scale = self.scale();
            for n in 0..self.tokens {
                let q_grad = self.part_grad.row_mut(n);
                q_grad.iter_mut().for_each(|value| *value *= scale);
                let to = &mut qkv_grad.row_mut(first + n)[place(0)..place(0) + self.head_width];
                let Some(gains) = gains else {
                    to.copy_from_slice(q_grad);
                    continue;
                };
                // The queries as they were before scale and gains.
                let inverse_std = self.inverse_std[0][n];
                let normal = self.grad.row_mut(n);
                let from = &qkv.row(first + n)[place(0)..place(0) + self.head_width];
                // SAFETY: the rows have the same length; the instruction set comes from `Isa::available`.
                unsafe { normalise_row(self.isa, from, NORM_EPSILON, normal) };
                for (i, gain) in gains.iter().enumerate() {
                    gains_grad[i] += q_grad[i] * normal[i];
                    q_grad[i] *= gain;
                }
                to.fill(0.0);
                // SAFETY: as above.
                unsafe { add_row_gradient(self.isa, normal, inverse_std, q_grad, to) };
            }

            if gains.is_none() {
                let k_grad = part_mut(qkv_grad, first, self.tokens, place(1), self.head_width);
                multiply_rows(self.isa, scores_grad.transposed(), self.q.matrix(), Begin::Zero, k_grad);
                continue;
            }
            let k_grad = self.part_grad.matrix_mut();
            multiply_rows(self.isa, scores_grad.transposed(), self.q.matrix(), Begin::Zero, k_grad);
            for n in 0..self.tokens {
                let to = &mut qkv_grad.row_mut(first + n)[place(1)..place(1) + self.head_width];
                to.fill(0.0);
                let (k, k_grad) = (self.k.row(n), self.part_grad.row(n));
                // SAFETY: the rows have the same length; the instruction set comes from `Isa::available`.
                unsafe { add_row_gradient(self.isa, k, self.inverse_std[1][n], k_grad, to) };
            }
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_width as f32).sqrt()
    }

    /// Takes one head's queries, keys and values; scaling the queries touches fewer numbers than scaling the scores.
    fn load(&mut self, qkv: &Rows, first: usize, head: usize, gains: Option<&[f32]>) {
        let (width, scale) = (self.heads * self.head_width, self.scale());
        for n in 0..self.tokens {
            let parts = [0, 1, 2].map(|part| {
                let begin = part * width + head * self.head_width;
                &qkv.row(first + n)[begin..begin + self.head_width]
            });
            self.v.row_mut(n).copy_from_slice(parts[2]);
            let (q, k) = (self.q.row_mut(n), self.k.row_mut(n));
            if let Some(gains) = gains {
                for (part, to, inverse_std) in [(0, &mut *q, 0), (1, &mut *k, 1)] {
                    // SAFETY: the rows have the same length; the instruction set comes from `Isa::available`.
                    self.inverse_std[inverse_std][n] =
                        unsafe { normalise_row(self.isa, parts[part], NORM_EPSILON, to) };
                }
                q.iter_mut().zip(gains).for_each(|(value, gain)| *value *= gain * scale);
            } else {
                q.iter_mut().zip(parts[0]).for_each(|(to, from)| *to = from * scale);
                k.copy_from_slice(parts[1]);
            }
        }
    }

    /// The weights: softmax(q kᵀ) along each row.
    fn weigh(&mut self) {
        self.panels.pack(self.k.matrix().transposed());
        multiply(self.q.matrix(), &self.panels, Begin::Zero, self.weights.matrix_mut());
        for n in 0..self.tokens {
            // SAFETY: the instruction set comes from `Isa::available`.
            unsafe { softmax(self.isa, self.weights.row_mut(n)) }
        }
    }
}

/// `columns` columns from `column` on of `rows` rows from `first` on.
fn part_mut(matrix: &mut Rows, first: usize, rows: usize, column: usize, columns: usize) -> MatrixMut<'_> {
    let row_step = matrix.stride();
    MatrixMut { values: &mut matrix.values_mut()[first * row_step + column..], rows, columns, row_step }
}

for_each_isa! {
    fn softmax = softmax_of(scores: &mut [f32])
}

for_each_isa! {
    /// Turns the gradient of softmax into that of its scores.
    fn softmax_gradient = softmax_gradient_of(weights: &[f32], grad: &mut [f32])
}

#[inline(always)]
unsafe fn softmax_of<V: Vector>(scores: &mut [f32]) {
    let count = scores.len();
    // SAFETY: all places are within the slice.
    unsafe {
        let load = |scores: &[f32], i: usize| V::load_some(scores.as_ptr().add(i), count - i, f32::MIN);
        let mut largest = V::splat(f32::MIN);
        for i in (0..count).step_by(V::LANES) {
            largest = largest.max(load(scores, i));
        }
        let largest = V::splat(largest.largest());
        let mut sum = V::splat(0.0);
        for i in (0..count).step_by(V::LANES) {
            let power = exp_of_negative(load(scores, i).sub(largest));
            sum = sum.add(power);
            power.store_some(scores.as_mut_ptr().add(i), count - i);
        }
        let rate = V::splat(1.0 / sum.sum());
        for i in (0..count).step_by(V::LANES) {
            load(scores, i).mul(rate).store_some(scores.as_mut_ptr().add(i), count - i);
        }
    }
}

#[inline(always)]
unsafe fn softmax_gradient_of<V: Vector>(weights: &[f32], grad: &mut [f32]) {
    let count = weights.len();
    // SAFETY: all places are within the slices.
    unsafe {
        let load = |from: &[f32], i: usize| V::load_some(from.as_ptr().add(i), count - i, 0.0);
        let mut total = V::splat(0.0);
        for i in (0..count).step_by(V::LANES) {
            total = load(weights, i).mul_add(load(grad, i), total);
        }
        let total = V::splat(total.sum());
        for i in (0..count).step_by(V::LANES) {
            let score_grad = load(weights, i).mul(load(grad, i).sub(total));
            score_grad.store_some(grad.as_mut_ptr().add(i), count - i);
        }
    }
}
