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
        let mut order: Vec<u32> = (0..images.len() as u32).collect();
        let hash = |index: &u32| &images[*index as usize].hash;
        order.par_sort_unstable_by(|one, other| hash(one).cmp(hash(other)).then(one.cmp(other)));
        let copies = order.chunk_by(|one, other| hash(one) == hash(other)).filter(|group| group.len() > 1);
        let mut groups: Vec<Vec<usize>> =
            copies.map(|group| group.iter().map(|index| *index as usize).collect()).collect();
        groups.sort_unstable();
        let is_in = |split: Split| move |index: &usize| images[*index].split == split;
        let leaky = groups.iter().filter(|group| group.iter().any(is_in(Split::Train)));
        let mut leaked: Vec<usize> = leaky.flatten().copied().filter(is_in(Split::Test)).collect();
        leaked.sort_unstable();
        Self { groups, leaked }
    }
}
