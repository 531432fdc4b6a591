//! What an image is compared by: the differences between neighbouring parts of it. Where a face ends and its shadows fall differs from
//! photograph to photograph; brightness, contrast, compression and a watermark change little of it.

/// Parts of an image along each side.
const PARTS: usize = 24;

/// Numbers of an outline: one part to the next on its right and to the next below. An image whose width is a multiple of
/// [`PARTS`] and its mirror image have the same ones, but for their order and signs.
pub(super) const LENGTH: usize = 2 * PARTS * (PARTS - 1);

/// The outline of a grey image (`height`, `width`), [`LENGTH`] numbers of norm 1, so that the sum of two outlines' products is their
/// likeness; zeros if the image has none.
pub(super) fn outline(grey: &[f32], width: usize, height: usize) -> Vec<f32> {
    let parts = means(grey, width, height);
    let right = parts.chunks_exact(PARTS).flat_map(|row| row.windows(2).map(|two| two[1] - two[0]));
    let below = parts.iter().zip(&parts[PARTS..]).map(|(one, below)| below - one);
    let mut outline: Vec<f32> = right.chain(below).collect();
    normalise(&mut outline);
    outline
}

/// Takes out of each of `outlines` what images of a data set have in common, as the `mean` of many has it: where faces have their eyes,
/// a caption, a frame.
pub(super) fn remove(mean: &[f32], outlines: &mut [f32]) {
    for outline in outlines.chunks_exact_mut(LENGTH).filter(|outline| outline.iter().any(|value| *value != 0.0)) {
        outline.iter_mut().zip(mean).for_each(|(value, mean)| *value -= mean);
        normalise(outline);
    }
}

/// The mean of `outlines`.
pub(super) fn mean(outlines: &[f32]) -> Vec<f32> {
    let mut mean = vec![0.0_f64; LENGTH];
    for outline in outlines.chunks_exact(LENGTH) {
        mean.iter_mut().zip(outline).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let count = (outlines.len() / LENGTH).max(1) as f64;
    mean.into_iter().map(|sum| (sum / count) as f32).collect()
}

fn normalise(outline: &mut [f32]) {
    let norm = outline.iter().map(|value| value * value).sum::<f32>().sqrt();
    // Far below one grey level in a single part.
    if norm < 1e-4 {
        outline.fill(0.0);
    } else {
        outline.iter_mut().for_each(|value| *value /= norm);
    }
}

/// The means of the image's parts, row by row.
fn means(grey: &[f32], width: usize, height: usize) -> Vec<f32> {
    // At least one pixel, where the image has fewer than there are parts.
    let range = |part: usize, side: usize| {
        let first = part * side / PARTS;
        first..((part + 1) * side / PARTS).max(first + 1)
    };
    let mean = |(row, column)| {
        let (rows, columns) = (range(row, height), range(column, width));
        let count = rows.len() * columns.len();
        let sum: f32 = rows.map(|row| grey[row * width..][columns.clone()].iter().sum::<f32>()).sum();
        sum / count as f32
    };
    (0..PARTS).flat_map(|row| (0..PARTS).map(move |column| (row, column))).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing(side: usize) -> Vec<f32> {
        let value = |i: usize| {
            let (x, y) = ((i % side) as f32 / side as f32, (i / side) as f32 / side as f32);
            (9.0 * x * (1.0 + y)).sin() + (5.0 * y).cos()
        };
        (0..side * side).map(value).collect()
    }

    fn mirrored(grey: &[f32], width: usize) -> Vec<f32> {
        grey.chunks(width).flat_map(|row| row.iter().rev().copied()).collect()
    }

    fn likeness(one: &[f32], other: &[f32]) -> f32 {
        one.iter().zip(other).map(|(one, other)| one * other).sum()
    }

    #[test]
    fn brightness_contrast_and_size_change_no_outline() {
        let plain = outline(&drawing(48), 48, 48);
        assert_eq!(plain.len(), LENGTH);
        assert!((likeness(&plain, &plain) - 1.0).abs() < 1e-4);
        let darker: Vec<f32> = drawing(48).iter().map(|value| 0.3 * value - 2.0).collect();
        assert!(likeness(&plain, &outline(&darker, 48, 48)) > 0.9999);
        for side in [96, 100, 224] {
            assert!(likeness(&plain, &outline(&drawing(side), side, side)) > 0.97, "{side}");
        }
        assert!(likeness(&plain, &outline(&mirrored(&drawing(48), 48), 48, 48)) < 0.7);
    }

    #[test]
    fn mirror_images_are_as_like_each_other_as_the_images_are() {
        let paler: Vec<f32> = drawing(48).iter().enumerate().map(|(i, value)| value + (i as f32 * 0.3).sin()).collect();
        let plain = likeness(&outline(&drawing(48), 48, 48), &outline(&paler, 48, 48));
        let both = [drawing(48), paler].map(|image| outline(&mirrored(&image, 48), 48, 48));
        assert!((plain - likeness(&both[0], &both[1])).abs() < 1e-5);
    }

    #[test]
    fn one_colour_has_no_outline_and_a_small_image_has_one() {
        assert_eq!(outline(&[0.4; 30 * 20], 30, 20), vec![0.0; LENGTH]);
        let small = outline(&drawing(7), 7, 7);
        assert!((likeness(&small, &small) - 1.0).abs() < 1e-4);
    }

    #[test]
    fn what_all_images_share_makes_none_alike() {
        // Noise with the same frame around it.
        let image = |seed: usize| -> Vec<f32> {
            let noise = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0;
            let value = |i: usize| if i / 48 < 8 || i % 48 < 8 { (i % 5) as f32 * 9.0 } else { noise(i) };
            (0..48 * 48).map(value).collect()
        };
        let mut all: Vec<f32> = (0..50).flat_map(|seed| outline(&image(seed), 48, 48)).collect();
        assert!(likeness(&all[..LENGTH], &all[LENGTH..2 * LENGTH]) > 0.9);
        remove(&mean(&all), &mut all);
        assert!(likeness(&all[..LENGTH], &all[LENGTH..2 * LENGTH]) < 0.5);
    }
}
