use crate::aligned::AlignedFloats;

/// Activations of a few images, channels-last with a border of zeros: (images, side + 2·border,
/// side + 2·border, channels).
///
/// The border is what convolutions read as padding. It is zero from the start and kernels write the interior
/// only, so that buffers are reused from batch to batch without clearing.
#[derive(Clone, Debug)]
pub struct Activations {
    /// How many images there are now; the memory may hold more.
    images: usize,
    side: usize,
    border: usize,
    channels: usize,
    data: AlignedFloats,
}

impl Activations {
    /// Zeros for `images` images of `side`×`side` pixels.
    pub fn zeros(images: usize, side: usize, border: usize, channels: usize) -> Self {
        let padded = side + 2 * border;
        Self { images, side, border, channels, data: AlignedFloats::zeros(images * padded * padded * channels) }
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

    /// Interior row `y` of image `image`: side × channels floats.
    pub fn row(&self, image: usize, y: usize) -> &[f32] {
        let start = self.offset(image, y);
        &self.data[start..start + self.side * self.channels]
    }

    /// The same, to be written.
    pub fn row_mut(&mut self, image: usize, y: usize) -> &mut [f32] {
        let start = self.offset(image, y);
        &mut self.data[start..start + self.side * self.channels]
    }

    /// Whether the border is zero, as every kernel leaves it.
    pub fn border_is_zero(&self) -> bool {
        let interior: f64 = (0..self.images)
            .flat_map(|image| (0..self.side).map(move |y| (image, y)))
            .flat_map(|(image, y)| self.row(image, y))
            .map(|value| f64::from(value.abs()))
            .sum();
        let all: f64 = self.data[..self.images * self.image_stride()].iter().map(|value| f64::from(value.abs())).sum();
        interior == all
    }

    /// Floats from one row to the next.
    pub(crate) const fn row_stride(&self) -> usize {
        (self.side + 2 * self.border) * self.channels
    }

    /// Floats from one image to the next.
    pub(crate) const fn image_stride(&self) -> usize {
        (self.side + 2 * self.border) * self.row_stride()
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.data.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.data.as_mut_ptr()
    }

    const fn offset(&self, image: usize, y: usize) -> usize {
        assert!(image < self.images && y < self.side, "row outside the activations");
        image * self.image_stride() + (y + self.border) * self.row_stride() + self.border * self.channels
    }
}
