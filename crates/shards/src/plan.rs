use std::collections::{HashMap, HashSet};

use stage::ContentHash;

/// Which image lies in which shard, at which place.
///
/// Places are kept for as long as an image exists, so that a change touches few shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    shards: Vec<Vec<PlannedImage>>,
}

/// An image in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedImage {
    /// The data set's name of the image.
    pub id: String,
    /// Whether it belongs to the training split, over which moments are taken.
    pub train: bool,
    /// Hash of the image's stored bytes.
    pub hash: ContentHash,
}

/// Where an image lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the shard.
    pub shard: usize,
    /// Number of the image in the shard.
    pub slot: usize,
}

impl Plan {
    /// Places the images of `all` for which `wanted` holds, `shard_images` to a shard.
    ///
    /// Images that `before` placed keep their place while they exist, wanted or not: a smaller wish must not
    /// destroy what is there. Those that are gone leave their shard shorter. New ones fill the last shard and
    /// then open others, in the order of `all`.
    pub fn new(
        before: Option<&Self>,
        all: &[PlannedImage],
        wanted: impl Fn(usize) -> bool,
        shard_images: usize,
    ) -> Self {
        let current: HashMap<&str, &PlannedImage> = all.iter().map(|image| (image.id.as_str(), image)).collect();
        let mut shards: Vec<Vec<PlannedImage>> = Vec::new();
        let mut placed: HashSet<&str> = HashSet::new();
        for shard in before.iter().flat_map(|plan| &plan.shards) {
            let kept: Vec<&PlannedImage> =
                shard.iter().filter_map(|image| current.get(image.id.as_str()).copied()).collect();
            placed.extend(kept.iter().map(|image| image.id.as_str()));
            shards.push(kept.into_iter().cloned().collect());
        }
        let new = all.iter().enumerate().filter(|(index, image)| wanted(*index) && !placed.contains(image.id.as_str()));
        for (_, image) in new {
            match shards.last_mut().filter(|shard| shard.len() < shard_images) {
                Some(shard) => shard.push(image.clone()),
                None => shards.push(vec![image.clone()]),
            }
        }
        Self { shards }
    }

    pub(crate) const fn of(shards: Vec<Vec<PlannedImage>>) -> Self {
        Self { shards }
    }

    /// The images of every shard.
    pub fn shards(&self) -> &[Vec<PlannedImage>] {
        &self.shards
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.shards.iter().map(Vec::len).sum()
    }

    /// The image at `place`.
    ///
    /// # Panics
    /// If there is none.
    pub fn image(&self, place: Place) -> &PlannedImage {
        &self.shards[place.shard][place.slot]
    }

    /// Every image's place by its id.
    pub fn places(&self) -> HashMap<&str, Place> {
        let mut places = HashMap::with_capacity(self.images());
        for (shard, images) in self.shards.iter().enumerate() {
            places.extend(images.iter().enumerate().map(|(slot, image)| (image.id.as_str(), Place { shard, slot })));
        }
        places
    }

    /// Hash of what shard `shard` is made of: its images' contents in their order, and which of them count
    /// for the moments. Names do not matter.
    pub fn shard_digest(&self, shard: usize) -> ContentHash {
        let flags: [&[u8]; 2] = [&[0], &[1]];
        ContentHash::of_parts(
            self.shards[shard]
                .iter()
                .flat_map(|image| [image.hash.as_bytes().as_slice(), flags[usize::from(image.train)]]),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: usize, content: &str) -> PlannedImage {
        PlannedImage { id: id.to_string(), train: true, hash: ContentHash::of(content.as_bytes()) }
    }

    fn images(count: usize) -> Vec<PlannedImage> {
        (0..count).map(|id| image(id, &format!("content {id}"))).collect()
    }

    fn stale(before: &Plan, after: &Plan) -> Vec<usize> {
        (0..after.shards().len())
            .filter(|i| before.shards().get(*i).is_none() || before.shard_digest(*i) != after.shard_digest(*i))
            .collect()
    }

    #[test]
    fn a_change_touches_one_shard() {
        let before = Plan::new(None, &images(10), |_| true, 4);
        assert_eq!(before.shards().iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        let mut changed = images(10);
        changed[5] = image(5, "another");
        assert_eq!(stale(&before, &Plan::new(Some(&before), &changed, |_| true, 4)), [1]);
    }

    #[test]
    fn new_images_go_behind_and_removed_ones_leave_a_gap() {
        let before = Plan::new(None, &images(10), |_| true, 4);
        assert_eq!(stale(&before, &Plan::new(Some(&before), &images(13), |_| true, 4)), [2, 3]);
        let mut fewer = images(10);
        fewer.remove(0);
        let after = Plan::new(Some(&before), &fewer, |_| true, 4);
        assert_eq!(stale(&before, &after), [0]);
        assert_eq!(after.places()["9"], Place { shard: 2, slot: 1 });
    }

    #[test]
    fn a_smaller_wish_destroys_nothing() {
        let before = Plan::new(None, &images(10), |_| true, 4);
        assert_eq!(Plan::new(Some(&before), &images(10), |i| i < 2, 4), before);
    }

    #[test]
    fn the_order_of_the_data_set_is_irrelevant() {
        let before = Plan::new(None, &images(10), |_| true, 4);
        let mut reversed = images(10);
        reversed.reverse();
        assert_eq!(Plan::new(Some(&before), &reversed, |_| true, 4), before);
    }
}
