//! Images that are the same byte for byte. FER2013 has many, some of them in two splits.

use rayon::prelude::*;

use crate::{dataset::ImageRecord, split::Split};

/// What is copied in a data set.
#[derive(Debug)]
pub(crate) struct Duplicates {
    /// Groups of two or more images with the same content, as ascending indices, ordered by their first.
    pub(crate) groups: Vec<Vec<usize>>,
    /// Ascending indices of the test images that have a copy in the training split, labelled or not.
    pub(crate) leaked: Vec<usize>,
}

impl Duplicates {
    pub(crate) fn among(images: &[ImageRecord]) -> Self {
        let hash = |index: u32| &images[index as usize].hash;
        // The beginnings of the hashes tell most images apart without a look at the records.
        let begun = |index: u32| (hash(index).begin(), index);
        let mut order: Vec<(u64, u32)> = (0..images.len() as u32).into_par_iter().map(begun).collect();
        order.par_sort_unstable_by(|one, other| {
            one.0.cmp(&other.0).then_with(|| hash(one.1).cmp(hash(other.1))).then(one.1.cmp(&other.1))
        });
        let copies = order.chunk_by(|one, other| one.0 == other.0 && hash(one.1) == hash(other.1));
        let copies = copies.filter(|group| group.len() > 1);
        let mut groups: Vec<Vec<usize>> =
            copies.map(|group| group.iter().map(|(_, index)| *index as usize).collect()).collect();
        groups.sort_unstable();
        let is_in = |split: Split| move |index: &usize| images[*index].split == split;
        let leaky = groups.iter().filter(|group| group.iter().any(is_in(Split::Train)));
        let mut leaked: Vec<usize> = leaky.flatten().copied().filter(is_in(Split::Test)).collect();
        leaked.sort_unstable();
        Self { groups, leaked }
    }
}
