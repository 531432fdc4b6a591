use kernels::{Begin, Isa, Matrix, MatrixMut, Rows, TokenMoments};

use super::{Layout, Linear, Slot, chunk::Images};
use crate::{Fuse, Input, ModelConfig, Pool, Tokens, VitError};

/// Numbers of standardised tokens that a product takes at a time: 1 MiB, which the second-level cache holds.
const TOKEN_ROWS: usize = 1 << 18;

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
}

impl Embed {
    pub(crate) fn new(isa: Isa, layout: &Layout, config: &ModelConfig, inputs: &[Input]) -> Result<Self, VitError> {
        let sources = inputs
            .iter()
            .map(|input| {
                let name = input.source.name();
                let shape = (input.token_width, config.width);
                let projection = Linear::new(isa, layout, config, &format!("embed.{name}"), shape)?.of_data();
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
        };
        embed.begin = vec![0.0; embed.tokens() * width];
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

    /// Of the tokens of some images: their rows of the sequence, `x` (R, D). Leaves the moments of stored tokens in `moments`.
    pub(crate) fn forward(
        &self,
        images: &Images<'_>,
        token_rows: &mut Vec<f32>,
        moments: &mut Vec<Vec<TokenMoments>>,
        x: &mut Rows,
    ) {
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
                    let count = (TOKEN_ROWS / width).max(1).min(rows - done);
                    let source_row = images.first * self.places + piece * rows + done;
                    let row = piece * tokens + first + done;
                    let y = MatrixMut {
                        values: &mut x.values_mut()[row * stride..],
                        rows: count,
                        columns: self.width,
                        row_step: stride,
                    };
                    let source = match &images.tokens[index] {
                        Tokens::Ready(values) => &values[source_row * width..],
                        Tokens::Stored(values, standardise) => {
                            token_rows.resize(token_rows.len().max(count * width), 0.0);
                            let stored = values[source_row * width..].chunks_exact(width);
                            for (stored, ready) in stored.take(count).zip(token_rows.chunks_exact_mut(width)) {
                                moments[index].push(standardise.stored(self.isa, stored, ready));
                            }
                            &*token_rows
                        }
                    };
                    projection.forward(Matrix::rows(source, count, width, width), Begin::Present, y);
                    done += count;
                }
            }
        }
    }

    /// How many stretches the tokens of one source make in the sequence of `images` images, and their length: those of all
    /// images are one if nothing else is in the sequence.
    pub(crate) fn pieces(&self, images: usize) -> (usize, usize) {
        if self.tokens() == self.places { (1, images * self.places) } else { (images, self.places) }
    }

    /// From the gradient of the embedded tokens, one matrix (R, D) per chunk, to those of positions, sources and class
    /// token. Those of the projections' weights are computed elsewhere.
    pub(crate) fn backward<'a>(&mut self, grads: impl Iterator<Item = &'a Rows>, gradients: &mut [f32]) {
        let (tokens, width) = (self.tokens(), self.width);
        // Sum over all images, for each token of the sequence.
        let sums = &mut self.begin;
        sums.fill(0.0);
        for grad in grads {
            for row in 0..grad.rows() {
                let sum = &mut sums[row % tokens * width..][..width];
                sum.iter_mut().zip(grad.row(row)).for_each(|(sum, grad)| *sum += grad);
            }
        }
        self.position.of_mut(gradients).fill(0.0);
        for index in 0..self.sources.len() {
            let first = self.first_token(index) * width;
            let (projection, source) = &mut self.sources[index];
            let source = source.of_mut(gradients);
            source.fill(0.0);
            let tokens = || self.begin[first..][..self.places * width].chunks_exact(width);
            for token in tokens() {
                source.iter_mut().zip(token).for_each(|(sum, grad)| *sum += grad);
            }
            projection.bias_grad.copy_from_slice(source);
            let positions = self.position.of_mut(gradients).chunks_exact_mut(width);
            for (position, token) in positions.zip(tokens()) {
                position.iter_mut().zip(token).for_each(|(sum, grad)| *sum += grad);
            }
        }
        if let Some(class_token) = self.class_token {
            class_token.of_mut(gradients).copy_from_slice(&self.begin[..width]);
        }
    }
}
