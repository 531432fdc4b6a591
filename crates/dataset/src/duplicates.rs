//! Images that are the same byte for byte. FER2013 has many, some of them in two splits.

use std::collections::{HashMap, HashSet};

use stage::ContentHash;

use crate::{dataset::ImageRecord, split::Split};

/// Groups of two or more images with the same content, as ascending indices, ordered by their first.
pub(crate) fn duplicate_groups(images: &[ImageRecord]) -> Vec<Vec<usize>> {
    let mut by_hash: HashMap<ContentHash, Vec<usize>> = HashMap::with_capacity(images.len());
    for (index, image) in images.iter().enumerate() {
        by_hash.entry(image.hash).or_default().push(index);
    }
    let mut groups: Vec<Vec<usize>> = by_hash.into_values().filter(|group| group.len() > 1).collect();
    groups.sort_unstable();
    groups
}

/// Ascending indices of the test images that have a copy in the training split, labelled or not.
pub(crate) fn leaked_test_images(images: &[ImageRecord]) -> Vec<usize> {
    let train: HashSet<ContentHash> =
        images.iter().filter(|image| image.split == Split::Train).map(|image| image.hash).collect();
    let leaked = |image: &ImageRecord| image.split == Split::Test && train.contains(&image.hash);
    images.iter().enumerate().filter(|(_, image)| leaked(image)).map(|(index, _)| index).collect()
}
