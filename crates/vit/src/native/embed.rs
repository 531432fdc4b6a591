use half::f16;
use kernels::{Begin, Isa, Matrix, MatrixMut, Multiplier, Precision, Rows, Standardise, TokenMoments};

use super::{Layout, Linear, Slot, chunk::Images, layout::Parts, linear::Sums};
use crate::{Fuse, Input, ModelConfig, Pool, Tokens, VitError};

/// Numbers of standardised tokens that a product takes at a time: 256 KiB, which stay in the second-level cache beside the weights.
const TOKEN_NUMBERS: usize = 1 << 16;

/// Columns of a chunk's tokens that a product takes at a time in the backward pass: the second-level cache holds them, too.
const TOKEN_COLUMNS: usize = 512;

/// A chunk's tokens before they are embedded.
#[derive(Debug, Default)]
pub(crate) struct TokenMemory {
    /// Standardised tokens of one source, a few rows or columns of them.
    rows: Rows,
    /// Moments of all stored tokens of each source.
    moments: Vec<Vec<TokenMoments>>,
}

/// Tokens of all sources to one sequence: projection, source embedding, position embedding, fusion. With `fuse = sum` k
/// sources cost k products: each is summed onto the others in the registers.
#[derive(Debug)]
pub(crate) struct Embed {
    isa: Isa,
    pub(crate) sources: Vec<(Linear, Slot)>,
    position: Slot,
    class_token: Option<Slot>,
    fuse: Fuse,
    /// Tokens of one source.
    pub(crate) places: usize,
    width: usize,
    /// What the products are added to: bias, source and position embedding of each token, (N, D).
    begin: Vec<f32>,
    /// Where the gradient of the embedded tokens (N, D) lies in a group's sums.
    token_sums: Slot,
}

impl Embed {
    pub(crate) fn new(
        (isa, precision): (Isa, Precision),
        layout: &Layout,
        sums: &mut Sums,
        config: &ModelConfig,
        inputs: &[Input],
    ) -> Result<Self, VitError> {
        let sources = inputs
            .iter()
            .map(|input| {
                let name = input.source.name();
                let shape = (input.token_width, config.width);
                let (computed, placed) = ((isa, precision), (layout, &mut *sums));
                let projection = Linear::new(computed, placed, config, &format!("embed.{name}"), shape)?.of_data();
                Ok((projection, layout.slot(&format!("source_embed.{name}"))?))
            })
            .collect::<Result<Vec<_>, VitError>>()?;
        let class_token = (config.pool == Pool::Cls).then(|| layout.slot("cls_token")).transpose()?;
        let (places, width) = (config.tokens_per_source(), config.width);
        let mut embed = Self {
            isa,
            sources,
            position: layout.slot("pos_embed")?,
            class_token,
            fuse: config.fuse,
            places,
            width,
            begin: Vec::new(),
            token_sums: Slot::new(0, 0),
        };
        embed.begin = vec![0.0; embed.tokens() * width];
        embed.token_sums = sums.place(embed.begin.len());
        Ok(embed)
    }

    /// Tokens in the sequence.
    pub(crate) fn tokens(&self) -> usize {
        let grids = if self.fuse == Fuse::Seq { self.sources.len() } else { 1 };
        usize::from(self.class_token.is_some()) + grids * self.places
    }

    /// Where the tokens of source `index` begin in the sequence.
    pub(crate) fn first_token(&self, index: usize) -> usize {
        let grids = if self.fuse == Fuse::Seq { index } else { 0 };
        usize::from(self.class_token.is_some()) + grids * self.places
    }

    /// Takes the present `weights`, those of the projections apart.
    pub(crate) fn prepare(&mut self, weights: &[f32]) {
        self.begin.fill(0.0);
        if let Some(class_token) = self.class_token {
            self.begin[..self.width].copy_from_slice(class_token.of(weights));
        }
        for (index, (projection, source)) in self.sources.iter().enumerate() {
            let first = self.first_token(index) * self.width;
            let tokens = self.begin[first..].chunks_exact_mut(self.width);
            for (token, position) in tokens.zip(self.position.of(weights).chunks_exact(self.width)) {
                let parts = position.iter().zip(source.of(weights)).zip(projection.bias());
                token
                    .iter_mut()
                    .zip(parts)
                    .for_each(|(to, ((position, source), bias))| *to += position + source + bias);
            }
        }
    }

    /// Of the tokens of some images: their rows of the sequence, `x` (R, D). Leaves the moments of stored tokens in `memory`.
    pub(crate) fn forward(
        &self,
        multiplier: &mut Multiplier,
        images: &Images<'_>,
        memory: &mut TokenMemory,
        x: &mut Rows,
    ) {
        let TokenMemory { rows: token_rows, moments } = memory;
        moments.resize(self.sources.len(), Vec::new());
        let (tokens, stride) = (self.tokens(), x.stride());
        for (row, begin) in x.values_mut().chunks_exact_mut(stride).zip(self.begin.chunks_exact(self.width).cycle()) {
            row[..self.width].copy_from_slice(begin);
        }
        for (index, (projection, _)) in self.sources.iter().enumerate() {
            let width = projection.inputs();
            let first = self.first_token(index);
            let (pieces, rows) = self.pieces(images.count);
            moments[index].clear();
            for piece in 0..pieces {
                let mut done = 0;
                while done < rows {
                    let count = (TOKEN_NUMBERS / width).max(1).min(rows - done);
                    let source_row = images.first * self.places + piece * rows + done;
                    let row = piece * tokens + first + done;
                    let y = MatrixMut {
                        values: &mut x.values_mut()[row * stride..],
                        rows: count,
                        columns: self.width,
                        row_step: stride,
                    };
                    let from = source_row * width..(source_row + count) * width;
                    let x = match images.tokens[index] {
                        Tokens::Ready(values) => Matrix::rows(&values[from], count, width, width),
                        Tokens::Stored(maps, standardise) => {
                            token_rows.reshape(count, width);
                            for row in 0..count {
                                let (map, token) = self.stored(maps, standardise, source_row + row);
                                let of_token = standardise.moments(self.isa, map, token);
                                standardise.part(self.isa, map, token, 0, of_token, token_rows.row_mut(row));
                                moments[index].push(of_token);
                            }
                            token_rows.matrix()
                        }
                    };
                    projection.forward(multiplier, x, Begin::Present, y);
                    done += count;
                }
            }
        }
    }

    /// The map that a row of a source's tokens lies in, and which of its tokens it is.
    fn stored<'a>(&self, maps: &'a [f16], standardise: &Standardise, row: usize) -> (&'a [f16], usize) {
        let values = standardise.patches().values_per_map();
        (&maps[row / self.places * values..][..values], row % self.places)
    }

    /// How many stretches the tokens of one source make in the sequence of `images` images, and their length: those of all
    /// images are one if nothing else is in the sequence.
    pub(crate) fn pieces(&self, images: usize) -> (usize, usize) {
        if self.tokens() == self.places { (1, images * self.places) } else { (images, self.places) }
    }

    /// In a group's `sums`: begin + the gradients of the projections' weights and of the embedded tokens, from that of a
    /// chunk's embedded tokens, `grad` (R, D), and what the forward pass left in `memory`.
    pub(crate) fn sum_gradients(
        &self,
        multiplier: &mut Multiplier,
        images: &Images<'_>,
        memory: &mut TokenMemory,
        grad: &Rows,
        begin: Begin<'_>,
        sums: &mut [f32],
    ) {
        let TokenMemory { rows: token_rows, moments } = memory;
        let (sequence, stride) = (self.tokens(), grad.stride());
        let token_sums = self.token_sums.of_mut(sums);
        if matches!(begin, Begin::Zero) {
            token_sums.fill(0.0);
        }
        for row in 0..grad.rows() {
            let sum = &mut token_sums[row % sequence * self.width..][..self.width];
            sum.iter_mut().zip(grad.row(row)).for_each(|(sum, grad)| *sum += grad);
        }
        for (index, (projection, _)) in self.sources.iter().enumerate() {
            let width = projection.inputs();
            let (pieces, rows) = self.pieces(images.count);
            for first in (0..width).step_by(TOKEN_COLUMNS) {
                let columns = TOKEN_COLUMNS.min(width - first);
                token_rows.reshape(rows, columns);
                let mut begin = begin;
                for piece in 0..pieces {
                    for row in 0..rows {
                        let row_of_chunk = piece * rows + row;
                        let source_row = images.first * self.places + row_of_chunk;
                        let to = token_rows.row_mut(row);
                        match images.tokens[index] {
                            Tokens::Ready(values) => {
                                to.copy_from_slice(&values[source_row * width + first..][..columns])
                            }
                            Tokens::Stored(maps, standardise) => {
                                let (map, token) = self.stored(maps, standardise, source_row);
                                standardise.part(self.isa, map, token, first, moments[index][row_of_chunk], to);
                            }
                        }
                    }
                    let grads = &grad.values()[(piece * sequence + self.first_token(index)) * stride..];
                    let grads = Matrix::rows(grads, rows, self.width, stride);
                    projection.sum_weight_gradient(multiplier, grads, token_rows.matrix(), first, begin, sums);
                    begin = Begin::Present;
                }
            }
        }
    }

    /// From the gradient of the embedded tokens, in `sums`, to those of positions, sources, class token and, in `sums`, the
    /// projections' biases.
    pub(crate) fn finish(&self, sums: &mut [f32], gradient: &mut Parts<'_>) {
        let positions = gradient.take(self.position);
        positions.fill(0.0);
        for (index, (projection, source)) in self.sources.iter().enumerate() {
            let tokens = &self.token_sums.of(sums)[self.first_token(index) * self.width..][..self.places * self.width];
            positions.iter_mut().zip(tokens).for_each(|(sum, token)| *sum += token);
            let source = gradient.take(*source);
            source.fill(0.0);
            for token in tokens.chunks_exact(self.width) {
                source.iter_mut().zip(token).for_each(|(sum, token)| *sum += token);
            }
            projection.bias_sums().of_mut(sums).copy_from_slice(source);
        }
        if let Some(class_token) = self.class_token {
            gradient.take(class_token).copy_from_slice(&self.token_sums.of(sums)[..self.width]);
        }
    }
}
