use std::iter::FusedIterator;

use stage::ContentHash;

/// The images of one shard in their order. Their names lie in one text: a million images are no million allocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedShard {
    names: String,
    images: Vec<Placed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    /// Where its name ends in the shard's text; it begins where the one before ends.
    name_end: u32,
    train: bool,
    hash: ContentHash,
}

/// An image in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedImage<'a> {
    /// The data set's name of the image.
    pub id: &'a str,
    /// Whether it belongs to the training split, over which moments are taken.
    pub train: bool,
    /// Hash of the image's stored bytes.
    pub hash: ContentHash,
}

impl PlannedShard {
    /// Number of images.
    pub const fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether all its images have gone.
    pub const fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The image at `slot`.
    ///
    /// # Panics
    /// If there is none.
    pub fn image(&self, slot: usize) -> PlannedImage<'_> {
        let Placed { name_end, train, hash } = self.images[slot];
        let name_begin = slot.checked_sub(1).map_or(0, |before| self.images[before].name_end);
        PlannedImage { id: &self.names[name_begin as usize..name_end as usize], train, hash }
    }

    /// All of them.
    pub fn images(&self) -> impl DoubleEndedIterator<Item = PlannedImage<'_>> + ExactSizeIterator + FusedIterator {
        (0..self.len()).map(|slot| self.image(slot))
    }

    /// Hash of what the shard is made of: its images' contents in their order, and which of them count for the moments. Names
    /// do not matter.
    pub fn digest(&self) -> ContentHash {
        const FLAGS: [&[u8]; 2] = [&[0], &[1]];
        ContentHash::of_parts(
            self.images.iter().flat_map(|image| [image.hash.as_bytes().as_slice(), FLAGS[usize::from(image.train)]]),
        )
    }

    /// Adds an image behind the others; none if all their names would be longer than 4 GiB.
    pub(crate) fn push(&mut self, image: PlannedImage<'_>) -> Option<()> {
        let name_end = u32::try_from(self.names.len() + image.id.len()).ok()?;
        self.names.push_str(image.id);
        self.images.push(Placed { name_end, train: image.train, hash: image.hash });
        Some(())
    }
}

impl<'a> FromIterator<PlannedImage<'a>> for PlannedShard {
    /// # Panics
    /// If the names are longer than 4 GiB together.
    fn from_iter<I: IntoIterator<Item = PlannedImage<'a>>>(images: I) -> Self {
        let mut shard = Self::default();
        for image in images {
            shard.push(image).expect("the names of one shard are shorter than 4 GiB");
        }
        shard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_come_back_as_they_were_pushed() {
        let image = |id, train| PlannedImage { id, train, hash: ContentHash::of(b"") };
        let images = [image("a", true), image("", false), image("é b", true)];
        let shard: PlannedShard = images.into_iter().collect();
        assert_eq!((shard.len(), shard.is_empty()), (3, false));
        assert_eq!(shard.images().collect::<Vec<_>>(), images);
        assert_ne!(shard, [image("", true), image("a", false), image("é b", true)].into_iter().collect());
    }
}
