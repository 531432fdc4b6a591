/// Activations of a few images, channels-last with a border of zeros: (images, side + 2·border,
/// side + 2·border, channels).
///
/// The border is what convolutions read as padding. It is zero from the start and kernels write the interior
/// only, so that buffers are reused from batch to batch without clearing.
#[derive(Clone, Debug)]
pub struct Activations {
    images: usize,
    side: usize,
    border: usize,
    channels: usize,
    data: Vec<f32>,
}

impl Activations {
    /// Zeros for `images` images of `side`×`side` pixels.
    pub fn zeros(images: usize, side: usize, border: usize, channels: usize) -> Self {
        let padded = side + 2 * border;
        Self { images, side, border, channels, data: vec![0.0; images * padded * padded * channels] }
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

    /// Floats from one row to the next.
    pub(crate) const fn row_stride(&self) -> usize {
        (self.side + 2 * self.border) * self.channels
    }

    /// Floats from one image to the next.
    pub(crate) const fn image_stride(&self) -> usize {
        (self.side + 2 * self.border) * self.row_stride()
    }

    pub(crate) const fn as_ptr(&self) -> *const f32 {
        self.data.as_ptr()
    }

    pub(crate) const fn as_mut_ptr(&mut self) -> *mut f32 {
        self.data.as_mut_ptr()
    }

    const fn offset(&self, image: usize, y: usize) -> usize {
        assert!(image < self.images && y < self.side, "row outside the activations");
        image * self.image_stride() + (y + self.border) * self.row_stride() + self.border * self.channels
    }
}
