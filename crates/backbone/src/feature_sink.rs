//! Where feature maps go.

use half::{f16, slice::HalfFloatSliceExt as _};
use sources::Source;

/// Takes one image's feature map as it leaves the network, on the thread that computed it and while it is in that
/// thread's cache. It may be given another in place of the first, if the device failed in between.
pub trait FeatureSink: Send {
    /// Takes the map's rows from top to bottom, each (side, channels).
    fn take<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>);

    /// Whether the map is rounded to half precision in the end: then a GPU may do so before it is copied.
    fn keeps_halves(&self) -> bool {
        false
    }

    /// The same of a map that has been rounded.
    fn take_halves<'a>(&mut self, rows: impl Iterator<Item = &'a [f16]>) {
        let floats: Vec<Vec<f32>> = rows.map(|row| row.to_f32_vec()).collect();
        self.take(floats.iter().map(Vec::as_slice));
    }
}

/// The sink itself.
impl<S: FeatureSink> FeatureSink for &mut S {
    fn take<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        S::take(self, rows);
    }

    fn keeps_halves(&self) -> bool {
        S::keeps_halves(self)
    }

    fn take_halves<'a>(&mut self, rows: impl Iterator<Item = &'a [f16]>) {
        S::take_halves(self, rows);
    }
}

/// Copies the map.
impl FeatureSink for &mut [f32] {
    fn take<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        let mut rest = &mut **self;
        for row in rows {
            let (to, behind) = rest.split_at_mut(row.len());
            to.copy_from_slice(row);
            rest = behind;
        }
    }
}

/// Feature maps of a batch of images in memory, and the memory for those of the next.
#[derive(Debug, Default)]
pub struct FeatureBatch {
    /// Each wanted map in canonical order: (images, side, side, channels).
    pub maps: Vec<(Source, Vec<f32>)>,
}

impl FeatureBatch {
    /// Sinks for the `wanted` maps of `images` images.
    pub(crate) fn sinks(&mut self, images: usize, wanted: &[Source]) -> Vec<(Source, Vec<&mut [f32]>)> {
        let wanted: Vec<Source> = Source::FEATURE_MAPS.into_iter().filter(|source| wanted.contains(source)).collect();
        self.maps.retain(|(source, _)| wanted.contains(source));
        for (at, source) in wanted.iter().enumerate() {
            if self.maps.get(at).is_none_or(|(there, _)| there != source) {
                self.maps.insert(at, (*source, Vec::new()));
            }
            self.maps[at].1.resize(images * source.values_per_image(), 0.0);
        }
        let maps = self.maps.iter_mut();
        maps.map(|(source, values)| (*source, values.chunks_exact_mut(source.values_per_image()).collect())).collect()
    }
}
