use gpu::{Array, Factors, GpuError, Machine, Source};
use half::f16;
use kernels::Patches;

use crate::Tokens;

/// The tokens of one source of some images in a machine's memory: of those of a batch, or of all that training shows.
#[derive(Debug)]
pub(super) struct Stock {
    images: usize,
    /// Of stored maps; none where tokens are ready.
    patches: Option<Patches>,
    maps: Array<f16>,
    ready: Array<f32>,
    rate: Array<f32>,
    offset: Array<f32>,
}

impl Stock {
    /// Room for the tokens of `images` images that are like `tokens`, those of `like` images.
    pub(super) fn new(machine: &dyn Machine, images: usize, tokens: &Tokens, like: usize) -> Result<Self, GpuError> {
        let zeros = |len| Array::zeros(machine, len);
        let per_image = tokens.len() / like;
        Ok(match tokens {
            Tokens::Ready(_) => Self {
                images,
                patches: None,
                maps: Array::zeros(machine, 0)?,
                ready: zeros(images * per_image)?,
                rate: zeros(0)?,
                offset: zeros(0)?,
            },
            Tokens::Stored(_, standardise) => Self {
                images,
                patches: Some(standardise.patches()),
                maps: Array::zeros(machine, images * per_image)?,
                ready: zeros(0)?,
                rate: Array::from(machine, standardise.rates())?,
                offset: Array::from(machine, standardise.offsets())?,
            },
        })
    }

    /// How many images there is room for.
    pub(super) const fn images(&self) -> usize {
        self.images
    }

    /// Whether it is just what a batch of `tokens` needs.
    pub(super) fn fits(&self, tokens: &Tokens) -> bool {
        match tokens {
            Tokens::Ready(values) => self.patches.is_none() && self.ready.len() == values.len(),
            Tokens::Stored(maps, _) => self.patches.is_some() && self.maps.len() == maps.len(),
        }
    }

    /// Takes `tokens` for the images from `first` on, which are `count`.
    ///
    /// # Panics
    /// If there is no room for them.
    pub(super) fn write(
        &mut self,
        machine: &dyn Machine,
        first: usize,
        tokens: &Tokens,
        count: usize,
    ) -> Result<(), GpuError> {
        let at = first * (tokens.len() / count);
        match tokens {
            Tokens::Ready(values) => self.ready.write(machine, at, values),
            Tokens::Stored(maps, _) => self.maps.write(machine, at, maps),
        }
    }

    /// What kernels are told of it: tokens are `width` wide, `images` says which of them those of the batch are, and `tokens` is
    /// room for those.
    pub(super) fn source(&self, width: usize, images: Option<&Array<i32>>, tokens: &Factors) -> Source {
        let address = |is_there: bool, address: u64| if is_there { address } else { 0 };
        let [side, channels, patch] = self.patches.map_or([0; 3], |of| [of.side, of.channels, of.patch_side]);
        Source {
            maps: address(self.patches.is_some(), self.maps.address()),
            ready: address(self.patches.is_none(), self.ready.address()),
            rate: self.rate.address(),
            offset: self.offset.address(),
            tokens: tokens.address(),
            images: images.map_or(0, Array::address),
            width: width as i32,
            side: side as i32,
            channels: channels as i32,
            patch: patch as i32,
        }
    }
}
