use std::{io::Cursor, path::Path};

use image::{DynamicImage, ImageDecoder, ImageReader};

use crate::{
    container,
    error::DatasetError,
    fault::{BadInput, Fault},
    image_file,
};

/// Largest image that is decoded, a photograph of 6,000 × 4,000. A few bytes of a hostile file can promise more memory than
/// there is; with as many pixels it is 256 MiB at most, for 16 bits with transparency and for a progressive JPEG.
const MAX_PIXELS: u64 = 24_000_000;

/// A decoded image: height × width × channels, one byte each, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// `height × width × channels` values.
    pub data: Vec<u8>,
}

impl Pixels {
    /// Reads a PNG, JPEG or BMP file, going by content rather than by name.
    ///
    /// # Errors
    ///
    /// [`DatasetError::Bad`] if it cannot be read or decoded.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let at_file = |fault| DatasetError::Bad(BadInput::file(path, fault));
        let bytes = image_file::read(path).map_err(at_file)?;
        Self::decode(&bytes).map_err(at_file)
    }

    /// Decodes a PNG, JPEG or BMP file's bytes, going by content rather than by name. Grey stays grey,
    /// sixteen bits become eight, transparency is dropped.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        container::check(bytes)?;
        let undecodable = |error: image::ImageError| match error {
            image::ImageError::Limits(error) => {
                Fault::Undecodable { reason: format!("{error}; an image may have {MAX_PIXELS} pixels") }
            }
            error => Fault::Undecodable { reason: error.to_string() },
        };
        let reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|error| Fault::Undecodable { reason: error.to_string() })?;
        let decoder = reader.into_decoder().map_err(undecodable)?;
        let (width, height) = decoder.dimensions();
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(Fault::TooLarge { width, height, limit: MAX_PIXELS });
        }
        let image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
        let (channels, data) = if image.color().has_color() {
            (3, image.into_rgb8().into_raw())
        } else {
            (1, image.into_luma8().into_raw())
        };
        Ok(Self { width: width as usize, height: height as usize, channels, data })
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayAlphaImage, GrayImage, ImageBuffer, ImageFormat, Luma, RgbaImage};

    use super::*;

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn grey_stays_grey_and_transparency_goes() {
        let grey = encoded(GrayImage::from_fn(3, 2, |x, y| Luma([(10 * y + x) as u8])), ImageFormat::Png);
        let expected = Pixels { width: 3, height: 2, channels: 1, data: vec![0, 1, 2, 10, 11, 12] };
        assert_eq!(Pixels::decode(&grey).unwrap(), expected);
        let grey_alpha = encoded(GrayAlphaImage::from_pixel(1, 1, image::LumaA([7, 0])), ImageFormat::Png);
        assert_eq!(Pixels::decode(&grey_alpha).unwrap().data, [7]);
        let colour_alpha = encoded(RgbaImage::from_pixel(1, 1, image::Rgba([1, 2, 3, 0])), ImageFormat::Png);
        assert_eq!(Pixels::decode(&colour_alpha).unwrap().data, [1, 2, 3]);
        let deep = encoded(ImageBuffer::<Luma<u16>, _>::from_pixel(1, 1, Luma([0xffff])), ImageFormat::Png);
        assert_eq!(Pixels::decode(&deep).unwrap().data, [255]);
    }

    #[test]
    fn a_file_that_promises_too_much_is_refused_unread() {
        let mut bomb = encoded(image::RgbImage::new(1, 1), ImageFormat::Bmp);
        bomb[18..22].copy_from_slice(&10_000u32.to_le_bytes());
        bomb[22..26].copy_from_slice(&10_000u32.to_le_bytes());
        let fault = Pixels::decode(&bomb).unwrap_err();
        assert_eq!(fault, Fault::TooLarge { width: 10_000, height: 10_000, limit: MAX_PIXELS });
    }

    #[test]
    fn a_cut_bmp_and_a_damaged_png_cannot_be_decoded() {
        let bmp = encoded(image::RgbImage::new(8, 8), ImageFormat::Bmp);
        assert!(matches!(Pixels::decode(&bmp[..bmp.len() - 30]), Err(Fault::Undecodable { .. })));
        let mut png = encoded(GrayImage::new(48, 48), ImageFormat::Png);
        let middle = png.len() - 20;
        png[middle] ^= 0xff;
        assert!(matches!(Pixels::decode(&png), Err(Fault::Undecodable { .. })));
    }
}
