use bytemuck::Pod;

use crate::aligned::Aligned;

/// Activations of a few images, floats or 8-bit integers, channels-last with a border of zeros: (images, side + 2·border,
/// side + 2·border, channels).
///
/// The border is what convolutions read as padding. It is zero from the start and kernels write the interior
/// only, so that buffers are reused from batch to batch without clearing.
#[derive(Clone, Debug)]
pub struct Activations<T = f32> {
    /// How many images there are now; the memory may hold more.
    images: usize,
    side: usize,
    border: usize,
    channels: usize,
    data: Aligned<T>,
}

impl<T: Pod> Activations<T> {
    /// Zeros for `images` images of `side`×`side` pixels.
    pub fn zeros(images: usize, side: usize, border: usize, channels: usize) -> Self {
        let padded = side + 2 * border;
        Self { images, side, border, channels, data: Aligned::zeros(images * padded * padded * channels) }
    }

    /// Takes the first `images` of the images that it was made for.
    ///
    /// # Panics
    /// If it was made for fewer.
    pub fn set_images(&mut self, images: usize) {
        assert!(images * self.image_stride() <= self.data.len(), "the activations hold fewer than {images} images");
        self.images = images;
    }

    /// Copies image `from` of `other`, which has the same side and channels, to image `to`.
    pub fn copy_image(&mut self, to: usize, other: &Self, from: usize) {
        assert!(self.side == other.side && self.channels == other.channels, "shapes differ");
        for y in 0..self.side {
            self.row_mut(to, y).copy_from_slice(other.row(from, y));
        }
    }

    /// Number of images.
    pub const fn images(&self) -> usize {
        self.images
    }

    /// Height and width of the interior in pixels.
    pub const fn side(&self) -> usize {
        self.side
    }

    /// Width of the zero border in pixels.
    pub const fn border(&self) -> usize {
        self.border
    }

    /// Number of channels.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Interior row `y` of image `image`: side × channels values.
    pub fn row(&self, image: usize, y: usize) -> &[T] {
        let start = self.offset(image, y);
        &self.data[start..start + self.side * self.channels]
    }

    /// The same, to be written.
    pub fn row_mut(&mut self, image: usize, y: usize) -> &mut [T] {
        let start = self.offset(image, y);
        &mut self.data[start..start + self.side * self.channels]
    }

    /// Whether the border is zero, as every kernel leaves it.
    pub fn border_is_zero(&self) -> bool {
        let is_interior = |at: usize| (self.border..self.border + self.side).contains(&at);
        let padded = self.side + 2 * self.border;
        let pixels = self.data[..self.images * self.image_stride()].chunks_exact(self.channels).enumerate();
        pixels
            .filter(|(at, _)| !(is_interior(at % padded) && is_interior(at / padded % padded)))
            .all(|(_, pixel)| bytemuck::cast_slice::<T, u8>(pixel).iter().all(|byte| *byte == 0))
    }

    /// Values from one row to the next.
    pub(crate) const fn row_stride(&self) -> usize {
        (self.side + 2 * self.border) * self.channels
    }

    /// Values from one image to the next.
    pub(crate) const fn image_stride(&self) -> usize {
        (self.side + 2 * self.border) * self.row_stride()
    }

    /// Where the interior's pixel (y, x) of image `image` begins.
    pub(crate) const fn interior(&self, image: usize, y: usize, x: usize) -> usize {
        image * self.image_stride() + (y + self.border) * self.row_stride() + (x + self.border) * self.channels
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.data.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.data.as_mut_ptr()
    }

    const fn offset(&self, image: usize, y: usize) -> usize {
        assert!(image < self.images && y < self.side, "row outside the activations");
        self.interior(image, y, 0)
    }
}
