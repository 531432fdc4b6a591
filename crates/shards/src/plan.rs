use std::collections::{HashMap, HashSet};

use crate::{PlannedImage, PlannedShard};

/// Which image lies in which shard, at which place.
///
/// Places are kept for as long as an image exists, so that a change touches few shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    shards: Vec<PlannedShard>,
}

/// Where an image lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the shard.
    pub shard: u32,
    /// Number of the image in the shard.
    pub slot: u32,
}

/// The images of a data set as plans see them, by index. A plan of a million images is looked at without copying them.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// How many there are.
    pub count: usize,
    /// The one at an index.
    pub image: &'a dyn Fn(usize) -> PlannedImage<'a>,
}

impl Images<'_> {
    fn id(&self, index: usize) -> &str {
        (self.image)(index).id
    }

    fn indices_by_id(&self) -> HashMap<&str, usize> {
        (0..self.count).map(|index| (self.id(index), index)).collect()
    }
}

impl Plan {
    /// Places those of `all` images for which `wanted` holds, `shard_images` to a shard; none if all is in its place already.
    ///
    /// Images that are placed keep their place while they exist, wanted or not: a smaller wish must not destroy what is there.
    /// Those that are gone leave their shard shorter. New ones fill the last shard and then open others, in the order of
    /// `all`.
    pub fn update(&self, all: Images<'_>, wanted: impl Fn(usize) -> bool, shard_images: usize) -> Option<Self> {
        if self.is_as_it_should_be(all, &wanted) {
            return None;
        }
        let current = all.indices_by_id();
        let mut shards: Vec<Vec<usize>> = Vec::new();
        let mut placed: HashSet<usize> = HashSet::new();
        for shard in &self.shards {
            let kept: Vec<usize> = shard.images().filter_map(|image| current.get(image.id).copied()).collect();
            placed.extend(&kept);
            shards.push(kept);
        }
        for index in (0..all.count).filter(|index| wanted(*index) && !placed.contains(index)) {
            match shards.last_mut().filter(|shard| shard.len() < shard_images) {
                Some(shard) => shard.push(index),
                None => shards.push(vec![index]),
            }
        }
        let planned = |shard: &Vec<usize>| shard.iter().map(|index| (all.image)(*index)).collect();
        Some(Self { shards: shards.iter().map(planned).collect() }).filter(|plan| plan != self)
    }

    /// Whether all placed images come in the order of `all`, unchanged, and none that is wanted is missing: what a look at
    /// both side by side can tell. False means nothing.
    fn is_as_it_should_be(&self, all: Images<'_>, wanted: impl Fn(usize) -> bool) -> bool {
        let mut next = 0;
        for placed in self.shards.iter().flat_map(PlannedShard::images) {
            while next < all.count && all.id(next) != placed.id {
                if wanted(next) {
                    return false;
                }
                next += 1;
            }
            if next == all.count || (all.image)(next) != placed {
                return false;
            }
            next += 1;
        }
        !(next..all.count).any(wanted)
    }

    /// Where each of `all` images lies, by index; none where it does not.
    pub fn places(&self, all: Images<'_>) -> Vec<Option<Place>> {
        let mut places = vec![None; all.count];
        let (mut next, mut by_id) = (0, None);
        for (shard, images) in self.shards.iter().enumerate() {
            for (slot, image) in images.images().enumerate() {
                // Mostly the images come in order; those that do not are looked up.
                let found = (next..all.count.min(next + 1)).find(|index| all.id(*index) == image.id);
                let by_id = || by_id.get_or_insert_with(|| all.indices_by_id()).get(image.id).copied();
                if let Some(index) = found.or_else(by_id) {
                    places[index] = Some(Place { shard: shard as u32, slot: slot as u32 });
                    next = index + 1;
                }
            }
        }
        places
    }

    pub(crate) const fn of(shards: Vec<PlannedShard>) -> Self {
        Self { shards }
    }

    /// The images of every shard.
    pub fn shards(&self) -> &[PlannedShard] {
        &self.shards
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.shards.iter().map(PlannedShard::len).sum()
    }

    /// The image at `place`.
    ///
    /// # Panics
    /// If there is none.
    pub fn image(&self, place: Place) -> PlannedImage<'_> {
        self.shards[place.shard as usize].image(place.slot as usize)
    }
}

#[cfg(test)]
mod tests {
    use stage::ContentHash;

    use super::*;

    /// A name and a content.
    type Image = (String, ContentHash);

    fn image(id: usize, content: &str) -> Image {
        (id.to_string(), ContentHash::of(content.as_bytes()))
    }

    fn images(count: usize) -> Vec<Image> {
        (0..count).map(|id| image(id, &format!("content {id}"))).collect()
    }

    fn planned_image((id, hash): &Image) -> PlannedImage<'_> {
        PlannedImage { id, train: true, hash: *hash }
    }

    fn updated(before: &Plan, all: &[Image], wanted: impl Fn(usize) -> bool) -> Plan {
        let image = |index: usize| planned_image(&all[index]);
        before.update(Images { count: all.len(), image: &image }, wanted, 4).unwrap_or_else(|| before.clone())
    }

    fn planned(count: usize) -> Plan {
        updated(&Plan::default(), &images(count), |_| true)
    }

    fn places(plan: &Plan, all: &[Image]) -> Vec<Option<Place>> {
        let image = |index: usize| planned_image(&all[index]);
        plan.places(Images { count: all.len(), image: &image })
    }

    fn stale(before: &Plan, after: &Plan) -> Vec<usize> {
        let digest = |plan: &Plan, shard| plan.shards().get(shard).map(PlannedShard::digest);
        (0..after.shards().len()).filter(|shard| digest(before, *shard) != digest(after, *shard)).collect()
    }

    #[test]
    fn a_change_touches_one_shard() {
        let before = planned(10);
        assert_eq!(before.shards().iter().map(PlannedShard::len).collect::<Vec<_>>(), [4, 4, 2]);
        let mut changed = images(10);
        changed[5] = image(5, "another");
        assert_eq!(stale(&before, &updated(&before, &changed, |_| true)), [1]);
    }

    #[test]
    fn new_images_go_behind_and_removed_ones_leave_a_gap() {
        let before = planned(10);
        assert_eq!(stale(&before, &updated(&before, &images(13), |_| true)), [2, 3]);
        let mut fewer = images(10);
        fewer.remove(0);
        let after = updated(&before, &fewer, |_| true);
        assert_eq!(stale(&before, &after), [0]);
        assert_eq!(places(&after, &fewer)[8], Some(Place { shard: 2, slot: 1 }));
    }

    #[test]
    fn a_smaller_wish_destroys_nothing() {
        let before = planned(10);
        assert_eq!(updated(&before, &images(10), |index| index < 2), before);
        let some = updated(&Plan::default(), &images(10), |index| index % 3 == 0);
        assert_eq!(some.images(), 4);
        assert_eq!(updated(&some, &images(10), |index| index % 3 == 0), some);
        assert_eq!(updated(&some, &images(10), |_| true).images(), 10);
    }

    #[test]
    fn the_order_of_the_data_set_is_irrelevant() {
        let before = planned(10);
        let mut reversed = images(10);
        reversed.reverse();
        assert_eq!(updated(&before, &reversed, |_| true), before);
        let mut found = places(&before, &reversed);
        found.reverse();
        assert_eq!(found, places(&before, &images(10)));
        assert_eq!(found[9], Some(Place { shard: 2, slot: 1 }));
    }
}
