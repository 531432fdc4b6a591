use std::{ops::Range, sync::Mutex};

use kernels::Aligned;

use super::{Chunk, Network};

/// Groups that a batch is shared out to, at most: as many threads can work on it. Each has its own sums of gradients,
/// which are as large as the weights and are added up at the end of a step.
pub(crate) const MOST_GROUPS: usize = 8;

/// Images whose gradients are summed in their order, by one thread. Which images make a group depends on the batch
/// alone.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) images: Range<usize>,
    /// Gradients of the products' weights and biases, where the network's layers have their places.
    pub(crate) sums: Aligned<f32>,
    /// Cross-entropy of each image in nats.
    pub(crate) losses: Vec<f64>,
    /// Images whose most probable class is the target's.
    pub(crate) correct: usize,
}

impl Group {
    /// Makes `groups` those of `batch` images; they stay what they are if they are already.
    pub(crate) fn fit(groups: &mut Vec<Self>, network: &Network, batch: usize) {
        if groups.last().is_some_and(|last| last.images.end == batch) {
            return;
        }
        let chunk = Chunk::images_of(network);
        let chunks = batch.div_ceil(chunk);
        let count = chunks.min(MOST_GROUPS);
        let first = |group: usize| (group * chunks / count * chunk).min(batch);
        let group = |index| {
            let images = first(index)..first(index + 1);
            Self { sums: Aligned::zeros(network.sums), losses: vec![0.0; images.len()], images, correct: 0 }
        };
        *groups = (0..count).map(group).collect();
    }
}

/// Chunks that no thread works on: there are as many as threads, so that each finds the memory that it has just used
/// still in its cache.
#[derive(Debug, Default)]
pub(crate) struct Chunks(Mutex<Vec<Chunk>>);

impl Chunks {
    /// Calls `work` with a chunk for the images that begin at `first`.
    pub(crate) fn with<T>(
        &self,
        network: &Network,
        first: usize,
        images: usize,
        work: impl FnOnce(&mut Chunk) -> T,
    ) -> T {
        let idle = || self.0.lock().expect("no thread panics while it holds the lock");
        let found = {
            let mut idle = idle();
            idle.iter().rposition(|chunk| chunk.images == images).map(|index| idle.remove(index))
        };
        let mut chunk = found.unwrap_or_else(|| Chunk::new(network, images));
        chunk.first = first;
        let result = work(&mut chunk);
        idle().push(chunk);
        result
    }
}
