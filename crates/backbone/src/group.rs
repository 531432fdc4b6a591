//! How a batch is shared out to threads and passes the stages.

use kernels::Activations;
use sources::Source;

/// Images that pass the stem and the shallow stages together: few, so that their large activations stay in the cache.
/// Two, because the 392 tiles of a pair in the first stage are seven chunks of four strips.
pub(crate) const SHALLOW_GROUP: usize = 2;

/// Stages that are shallow.
pub(crate) const SHALLOW_STAGES: usize = 2;

/// Images that pass the deep stages together at most: many, so that weights of tens of megabytes are read once for all
/// of them. An even number of shallow groups.
pub(crate) const DEEP_GROUP: usize = 16;

/// A share of a batch: its images and where their feature maps go.
pub(crate) struct Group<'a> {
    pub images: &'a [Vec<f32>],
    maps: Vec<(Source, &'a mut [f32])>,
}

impl<'a> Group<'a> {
    /// Cuts a batch into groups for as many threads as there are. `maps` are (images, side, side, channels).
    pub(crate) fn share_out(images: &'a [Vec<f32>], maps: &'a mut [(Source, Vec<f32>)]) -> Vec<Self> {
        let share = images.len().div_ceil(rayon::current_num_threads());
        let size = share.next_multiple_of(SHALLOW_GROUP).clamp(1, DEEP_GROUP);
        let mut groups: Vec<Self> =
            images.chunks(size).map(|images| Self { images, maps: Vec::with_capacity(maps.len()) }).collect();
        for (source, values) in maps {
            for (group, part) in groups.iter_mut().zip(values.chunks_mut(size * source.values_per_image())) {
                group.maps.push((*source, part));
            }
        }
        groups
    }

    /// Images of which no map is wanted.
    pub(crate) const fn without_maps(images: &'a [Vec<f32>]) -> Self {
        Self { images, maps: Vec::new() }
    }

    /// Stages that lead to the deepest map that is wanted.
    pub(crate) fn depth(&self) -> usize {
        self.maps.iter().filter_map(|(source, _)| source.stage()).max().unwrap_or(0)
    }

    /// Writes the map of `stage`, if it is wanted, for the images from `first` on.
    pub(crate) fn copy_out(&mut self, stage: usize, first: usize, activations: &Activations) {
        for (source, values) in self.maps.iter_mut().filter(|(source, _)| source.stage() == Some(stage + 1)) {
            copy_out(activations, &mut values[first * source.values_per_image()..]);
        }
    }
}

fn copy_out(activations: &Activations, values: &mut [f32]) {
    let (side, row) = (activations.side(), activations.side() * activations.channels());
    for (at, values) in values.chunks_exact_mut(row).take(activations.images() * side).enumerate() {
        values.copy_from_slice(activations.row(at / side, at % side));
    }
}
