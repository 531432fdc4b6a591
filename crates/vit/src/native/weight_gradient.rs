//! Gradients of the linear layers' weights: dYᵀ X over all rows of a batch.

use kernels::{Begin, Isa, Matrix, MatrixMut, Rows, multiply_rows};
use rayon::prelude::*;

use super::{Chunk, Linear, embed::Embed, linear::GRADIENT_BLOCK};
use crate::Tokens;

/// Outputs that one task sums the gradients of: a multiple of a tile's rows, few enough for many threads.
const TASK_OUTPUTS: usize = 224;

/// Which matrix of a chunk, for a block.
pub(crate) type Pick = fn(&Chunk, usize) -> &Rows;

/// One layer's gradients, those of its outputs (R, O) and its inputs (R, I) in each chunk.
pub(crate) struct Layer<'a> {
    pub(crate) linear: &'a mut Linear,
    pub(crate) block: usize,
    pub(crate) output_grad: Pick,
    pub(crate) input: Pick,
}

/// A part of one layer's: some inputs × some outputs.
struct Task<'a> {
    block: usize,
    output_grad: Pick,
    input: Pick,
    first_input: usize,
    inputs: usize,
    first_output: usize,
    weight_grad: &'a mut [f32],
    /// Of the same outputs; empty but for the first inputs.
    bias_grad: &'a mut [f32],
}

/// Sums the gradients of all `layers` over `chunks`, in their order.
pub(crate) fn sum(isa: Isa, layers: Vec<Layer<'_>>, chunks: &[Chunk]) {
    let tasks: Vec<Task<'_>> = layers.into_iter().flat_map(tasks).collect();
    tasks.into_par_iter().with_max_len(1).for_each(|task| task.run(isa, chunks));
}

fn tasks(layer: Layer<'_>) -> Vec<Task<'_>> {
    let Layer { linear, block, output_grad, input } = layer;
    let (inputs, outputs) = (linear.inputs(), linear.outputs());
    let mut bias_grads = linear.bias_grad.chunks_mut(TASK_OUTPUTS);
    let mut tasks = Vec::new();
    for (column, weight_grad) in linear.weight_grad.chunks_mut(GRADIENT_BLOCK * outputs).enumerate() {
        let first_input = column * GRADIENT_BLOCK;
        let inputs = GRADIENT_BLOCK.min(inputs - first_input);
        for (part, weight_grad) in weight_grad.chunks_mut(TASK_OUTPUTS * inputs).enumerate() {
            let bias_grad = if column == 0 { bias_grads.next().unwrap_or_default() } else { &mut [] };
            let first_output = part * TASK_OUTPUTS;
            tasks.push(Task { block, output_grad, input, first_input, inputs, first_output, weight_grad, bias_grad });
        }
    }
    tasks
}

impl Task<'_> {
    fn run(self, isa: Isa, chunks: &[Chunk]) {
        let Self { first_input, inputs, first_output, .. } = self;
        let outputs = self.weight_grad.len() / inputs;
        self.bias_grad.fill(0.0);
        for (index, chunk) in chunks.iter().enumerate() {
            let (grad, input) = ((self.output_grad)(chunk, self.block), (self.input)(chunk, self.block));
            let rows = grad.rows();
            let left = Matrix::rows(&grad.values()[first_output..], rows, outputs, grad.stride());
            let right = Matrix::rows(&input.values()[first_input..], rows, inputs, input.stride());
            let begin = if index == 0 { Begin::Zero } else { Begin::Present };
            let to = MatrixMut { values: &mut *self.weight_grad, rows: outputs, columns: inputs, row_step: inputs };
            multiply_rows(isa, left.transposed(), right, begin, to);
            if !self.bias_grad.is_empty() {
                for row in 0..rows {
                    let grads = &grad.row(row)[first_output..first_output + outputs];
                    self.bias_grad.iter_mut().zip(grads).for_each(|(sum, grad)| *sum += grad);
                }
            }
        }
    }
}

/// Sums the gradients of the projections' weights over `chunks`, in their order, for the batch's `tokens`.
pub(crate) fn sum_projections(isa: Isa, embed: &mut Embed, tokens: &[Tokens], chunks: &[Chunk]) {
    let pieces: Vec<(usize, usize)> = chunks.iter().map(|chunk| embed.pieces(chunk.images)).collect();
    let (sequence, places) = (embed.tokens(), embed.places);
    let firsts: Vec<usize> = (0..embed.sources.len()).map(|index| embed.first_token(index)).collect();
    let mut tasks = Vec::new();
    for (source, ((linear, _), tokens)) in embed.sources.iter_mut().zip(tokens).enumerate() {
        let (width, outputs) = (linear.inputs(), linear.outputs());
        let rows = pieces.iter().map(|piece| piece.1).max().unwrap_or(0);
        linear.token_blocks.resize_with(width.div_ceil(GRADIENT_BLOCK), || Rows::zeros(rows, GRADIENT_BLOCK));
        let parts = linear.weight_grad.chunks_mut(GRADIENT_BLOCK * outputs).zip(&mut linear.token_blocks);
        for (block, (weight_grad, part)) in parts.enumerate() {
            if part.rows() < rows {
                *part = Rows::zeros(rows, GRADIENT_BLOCK);
            }
            tasks.push((source, tokens, width, outputs, block * GRADIENT_BLOCK, weight_grad, part));
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(
        |(source, tokens, width, outputs, first_input, weight_grad, part)| {
            let inputs = GRADIENT_BLOCK.min(width - first_input);
            let mut begin = Begin::Zero;
            for (chunk, (pieces, rows)) in chunks.iter().zip(&pieces) {
                for piece in 0..*pieces {
                    for row in 0..*rows {
                        let in_chunk = piece * rows + row;
                        let place = (chunk.first * places + in_chunk) * width + first_input;
                        let to = &mut part.row_mut(row)[..inputs];
                        match tokens {
                            Tokens::Ready(values) => to.copy_from_slice(&values[place..place + inputs]),
                            Tokens::Stored(values, standardise) => {
                                let moments = chunk.token_moments[source][in_chunk];
                                standardise.part(isa, &values[place..place + inputs], first_input, moments, to);
                            }
                        }
                    }
                    let stride = chunk.grad.stride();
                    let grads = &chunk.grad.values()[(piece * sequence + firsts[source]) * stride..];
                    let left = Matrix::rows(grads, *rows, outputs, stride).transposed();
                    let right = Matrix::rows(part.values(), *rows, inputs, part.stride());
                    let to = MatrixMut { values: &mut *weight_grad, rows: outputs, columns: inputs, row_step: inputs };
                    multiply_rows(isa, left, right, begin, to);
                    begin = Begin::Present;
                }
            }
        },
    );
}
