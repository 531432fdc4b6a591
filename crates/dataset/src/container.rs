//! What an image file's structure says without decoding it: which format it is, and whether all of it is
//! there. Decoders cannot be relied on for the latter: some fill the missing part of a JPEG with grey.

use crate::fault::Fault;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG: &[u8] = b"\xff\xd8\xff";
const BMP: &[u8] = b"BM";

/// Name, first bytes, and whether a file that begins with them is all there.
type Format = (&'static str, &'static [u8], fn(&[u8]) -> bool);

const FORMATS: [Format; 3] = [
    ("PNG", PNG, png_is_complete),
    ("JPEG", JPEG, jpeg_is_complete),
    // A cut BMP has no mark to miss; its decoder notices.
    ("BMP", BMP, |_| true),
];

/// Refuses what is empty, no image, or cut off.
pub(crate) fn check(bytes: &[u8]) -> Result<(), Fault> {
    if bytes.is_empty() {
        return Err(Fault::Empty);
    }
    for (format, magic, is_complete) in FORMATS {
        if bytes.starts_with(magic) && is_complete(bytes) {
            return Ok(());
        }
        if bytes.starts_with(magic) || magic.starts_with(bytes) {
            return Err(Fault::Truncated { format: format.to_owned() });
        }
    }
    Err(Fault::NotAnImage)
}

/// Walks the chunks (length, type, data, checksum) to the last one, IEND.
fn png_is_complete(bytes: &[u8]) -> bool {
    let mut rest = &bytes[PNG.len()..];
    while let Some((header, after)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, kind @ ..] = *header;
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some(next) = after.get(size.saturating_add(4)..) else { return false };
        if kind == *b"IEND" {
            return true;
        }
        rest = next;
    }
    false
}

/// Walks the segments to the end-of-image marker. A search from the back would find the marker of an
/// embedded thumbnail.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut rest = &bytes[2..];
    loop {
        // Between segments, and after a scan's header, come data until the next 0xFF that is neither
        // stuffed (00), nor padding (FF), nor a restart marker (D0–D7).
        let marker = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff | 0xd0..=0xd7));
        let Some(marker) = marker else { return false };
        if rest[marker + 1] == 0xd9 {
            return true;
        }
        let segment = &rest[marker + 2..];
        let Some(size) = segment.first_chunk::<2>() else { return false };
        let Some(next) = segment.get(usize::from(u16::from_be_bytes(*size))..) else { return false };
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, RgbImage};

    use super::*;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let image = RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, (x ^ y) as u8]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn whole_images_pass_and_every_cut_is_noticed() {
        for (format, name) in [(ImageFormat::Png, "PNG"), (ImageFormat::Jpeg, "JPEG")] {
            let bytes = encoded(format);
            assert_eq!(check(&bytes), Ok(()));
            for length in 1..bytes.len() {
                assert_eq!(
                    check(&bytes[..length]),
                    Err(Fault::Truncated { format: name.to_owned() }),
                    "{name} {length}"
                );
            }
        }
        assert_eq!(check(&encoded(ImageFormat::Bmp)), Ok(()));
    }

    #[test]
    fn a_thumbnails_end_is_not_the_images_end() {
        let jpeg = encoded(ImageFormat::Jpeg);
        let thumbnail = [b"\xff\xd8\xff\xd9".as_slice(), &[0; 4]].concat();
        let size = u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes();
        let whole = [&jpeg[..2], b"\xff\xe1", &size, &thumbnail, &jpeg[2..]].concat();
        assert_eq!(check(&whole), Ok(()));
        assert!(check(&whole[..whole.len() - 2]).is_err());
    }

    #[test]
    fn what_is_no_image_is_called_so() {
        assert_eq!(check(b""), Err(Fault::Empty));
        assert_eq!(check(b"<html>not found</html>"), Err(Fault::NotAnImage));
        assert!(matches!(check(b"\x89PN"), Err(Fault::Truncated { .. })));
    }
}
