//! What an image is compared by: the differences between neighbouring parts of it. Where a face ends and its shadows fall differs from
//! photograph to photograph; brightness, contrast, compression and a watermark change little of it.

/// Parts of an image along each side.
const PARTS: usize = 24;

/// Numbers of an outline: one part to the next on its right and to the next below.
pub(super) const LENGTH: usize = 2 * (PARTS - 1) * (PARTS - 1);

/// The outline of a grey image (`height`, `width`), [`LENGTH`] numbers of mean 0 and norm 1, so that the sum of two outlines' products is
/// their correlation; zeros if the image has none.
pub(super) fn outline(grey: &[f32], width: usize, height: usize) -> Vec<f32> {
    let parts = means(grey, width, height);
    let at = |row: usize, column: usize| parts[row * PARTS + column];
    let places = || (0..PARTS - 1).flat_map(|row| (0..PARTS - 1).map(move |column| (row, column)));
    let right = places().map(|(row, column)| at(row, column + 1) - at(row, column));
    let below = places().map(|(row, column)| at(row + 1, column) - at(row, column));
    let mut outline: Vec<f32> = right.chain(below).collect();
    let mean = outline.iter().sum::<f32>() / LENGTH as f32;
    outline.iter_mut().for_each(|value| *value -= mean);
    let norm = outline.iter().map(|value| value * value).sum::<f32>().sqrt();
    // Far below one grey level in a single part.
    if norm < 1e-4 {
        return vec![0.0; LENGTH];
    }
    outline.iter_mut().for_each(|value| *value /= norm);
    outline
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

    fn correlation(one: &[f32], other: &[f32]) -> f32 {
        one.iter().zip(other).map(|(one, other)| one * other).sum()
    }

    #[test]
    fn brightness_contrast_and_size_change_no_outline() {
        let plain = outline(&drawing(48), 48, 48);
        assert_eq!(plain.len(), LENGTH);
        assert!((correlation(&plain, &plain) - 1.0).abs() < 1e-4);
        let darker: Vec<f32> = drawing(48).iter().map(|value| 0.3 * value - 2.0).collect();
        assert!(correlation(&plain, &outline(&darker, 48, 48)) > 0.9999);
        for side in [96, 100, 224] {
            assert!(correlation(&plain, &outline(&drawing(side), side, side)) > 0.97, "{side}");
        }
        let mirrored: Vec<f32> = drawing(48).chunks(48).flat_map(|row| row.iter().rev().copied()).collect();
        assert!(correlation(&plain, &outline(&mirrored, 48, 48)) < 0.7);
    }

    #[test]
    fn one_colour_has_no_outline_and_a_small_image_has_one() {
        assert_eq!(outline(&[0.4; 30 * 20], 30, 20), vec![0.0; LENGTH]);
        let small = outline(&drawing(7), 7, 7);
        assert!((correlation(&small, &small) - 1.0).abs() < 1e-4);
    }
}
