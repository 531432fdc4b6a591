//! How a batch is shared out to threads and passes the stages.

use kernels::{Activations, Element};
use sources::Source;

use crate::FeatureSink;

/// Images that pass the stem and the shallow stages together: few, so that their large activations stay in the cache.
/// Two, because the 392 tiles of a pair in the first stage are seven chunks of four strips.
pub(crate) const SHALLOW_GROUP: usize = 2;

/// Stages that are shallow.
pub(crate) const SHALLOW_STAGES: usize = 2;

/// Images that pass the deep stages together at most: many, so that weights of tens of megabytes are read once for all
/// of them. An even number of shallow groups.
pub(crate) const DEEP_GROUP: usize = 16;

/// A share of a batch: its images and where their feature maps go.
pub(crate) struct Group<'a, S> {
    pub images: &'a [Vec<f32>],
    sinks: Vec<(Source, &'a mut [S])>,
}

impl<'a, S: FeatureSink> Group<'a, S> {
    /// Cuts a batch into groups for as many threads as there are. There is one of `sinks` per map and image.
    pub(crate) fn share_out(images: &'a [Vec<f32>], sinks: &'a mut [(Source, Vec<S>)]) -> Vec<Self> {
        let share = images.len().div_ceil(rayon::current_num_threads());
        let size = share.next_multiple_of(SHALLOW_GROUP).clamp(1, DEEP_GROUP);
        let mut groups: Vec<Self> =
            images.chunks(size).map(|images| Self { images, sinks: Vec::with_capacity(sinks.len()) }).collect();
        for (source, sinks) in sinks {
            for (group, part) in groups.iter_mut().zip(sinks.chunks_mut(size)) {
                group.sinks.push((*source, part));
            }
        }
        groups
    }

    /// Images of which no map is wanted.
    pub(crate) const fn without_maps(images: &'a [Vec<f32>]) -> Self {
        Self { images, sinks: Vec::new() }
    }

    /// Stages that lead to the deepest map that is wanted.
    pub(crate) fn depth(&self) -> usize {
        self.sinks.iter().filter_map(|(source, _)| source.stage()).max().unwrap_or(0)
    }

    /// Hands over the map of `stage`, if it is wanted, of the images from `first` on. `floats` is memory for the largest
    /// map of one image.
    pub(crate) fn hand_over<E: Element>(
        &mut self,
        stage: usize,
        first: usize,
        activations: &Activations<E>,
        floats: &mut [f32],
    ) {
        let (side, row) = (activations.side(), activations.side() * activations.channels());
        for (_, sinks) in self.sinks.iter_mut().filter(|(source, _)| source.stage() == Some(stage + 1)) {
            for (image, sink) in sinks[first..].iter_mut().take(activations.images()).enumerate() {
                let rows = (0..side).zip(floats.chunks_mut(row));
                sink.take(rows.map(|(y, floats)| E::floats(activations.row(image, y), floats)));
            }
        }
    }
}
