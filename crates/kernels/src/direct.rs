use crate::{
    Activations, ConvShape, Element, Isa,
    aligned::Aligned,
    tile::{Places, SEGMENT, Tile, TileFn},
};

/// The convolution as it is defined, register-tiled.
#[derive(Debug)]
pub(crate) struct Direct<E> {
    shape: ConvShape,
    relu: bool,
    block: usize,
    tile: TileFn<E, E>,
    /// (out_channels / block, kernel, kernel × in_channels / group, block, group)
    weights: Aligned<E>,
    bias: Aligned<f32>,
}

impl<E: Element> Direct<E> {
    /// Packs `weights` (out, in, kernel, kernel) for `isa`, which the processor has.
    pub(crate) fn new(isa: Isa, shape: ConvShape, weights: &[f32], bias: &[f32], relu: bool) -> Self {
        let ConvShape { in_channels, out_channels, kernel, stride, .. } = shape;
        let block = E::block_channels(isa);
        let run = kernel * in_channels;
        let mut packed = Vec::with_capacity(weights.len());
        for first in (0..out_channels).step_by(block) {
            for (ky, group) in (0..kernel).flat_map(|ky| (0..run / E::GROUP).map(move |group| (ky, group))) {
                for out in first..first + block {
                    packed.extend((group * E::GROUP..(group + 1) * E::GROUP).map(|at| {
                        let (kx, c) = (at / in_channels, at % in_channels);
                        E::round(weights[((out * in_channels + c) * kernel + ky) * kernel + kx])
                    }));
                }
            }
        }
        Self {
            shape,
            relu,
            block,
            tile: E::tile(isa, stride * in_channels),
            weights: packed.as_slice().into(),
            bias: bias.into(),
        }
    }

    /// Convolves. The activations fit the shape, and their side is a multiple of [`SEGMENT`].
    pub(crate) fn run(&self, input: &Activations<E>, residual: Option<&Activations<E>>, output: &mut Activations<E>) {
        let ConvShape { in_channels, out_channels, kernel, stride, padding } = self.shape;
        let side = output.side();
        let segments = output.images() * side * (side / SEGMENT);
        let inset = input.border() - padding;
        let (run, block_weights) = (kernel * in_channels, kernel * kernel * in_channels * self.block);
        // Weights of one block stay in the cache while all pixels of all images pass.
        for block in 0..out_channels / self.block {
            let channel = block * self.block;
            let mut places = Places::new(side);
            for first in (0..segments).step_by(2) {
                let one = places.next_segment();
                // The last segment of an odd number is computed twice, to the same result.
                let place = [one, if first + 1 < segments { places.next_segment() } else { one }];
                // SAFETY: `check` compared all shapes: the kernel's window of every output pixel lies within the
                // input's padded rows, residual and output have a whole block of channels at every pixel, and the
                // packed weights hold `out_channels / block` blocks. The tile function was chosen for an
                // instruction set that `new` found available.
                unsafe {
                    (self.tile)(&Tile {
                        input: place.map(|(image, y, x)| {
                            let (row, column) = (y * stride + inset, x * stride + inset);
                            let at = image * input.image_stride() + row * input.row_stride() + column * in_channels;
                            input.as_ptr().add(at)
                        }),
                        weights: self.weights.as_ptr().add(block * block_weights),
                        bias: self.bias.as_ptr().add(channel),
                        residual: place.map(|(image, y, x)| {
                            residual.map_or(std::ptr::null(), |residual| {
                                let image = image.min(residual.images() - 1);
                                residual.as_ptr().add(residual.interior(image, y, x) + channel)
                            })
                        }),
                        output: place.map(|(image, y, x)| {
                            let at = output.interior(image, y, x) + channel;
                            output.as_mut_ptr().add(at)
                        }),
                        kernel_rows: kernel,
                        run,
                        input_row: input.row_stride(),
                        input_step: stride * in_channels,
                        residual_step: out_channels,
                        output_step: out_channels,
                        relu: self.relu,
                    });
                }
            }
        }
    }
}
