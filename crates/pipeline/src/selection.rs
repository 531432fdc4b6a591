use dataset::{Dataset, Split};

/// Indices of the images to use, ascending: all if `limit` is 0, else about `limit` of them, each split in
/// proportion and evenly spread over its images, so that every class is met.
pub(crate) fn select(dataset: &Dataset, limit: usize) -> Vec<usize> {
    let all = dataset.images.len();
    if limit == 0 || limit >= all {
        return (0..all).collect();
    }
    let mut selected = Vec::with_capacity(limit + Split::ALL.len());
    for split in Split::ALL.iter().copied() {
        let members: Vec<usize> = (0..all).filter(|index| dataset.images[*index].split == split).collect();
        selected.extend(evenly_spread(members.len(), (members.len() * limit).div_ceil(all)).map(|at| members[at]));
    }
    selected.sort_unstable();
    selected
}

fn evenly_spread(members: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(members);
    (0..count).map(move |i| i * members / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_without_repeating() {
        assert_eq!(evenly_spread(10, 4).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(evenly_spread(3, 9).count(), 3);
        assert_eq!(evenly_spread(0, 0).count(), 0);
    }
}
