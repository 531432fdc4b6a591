//! Passes through the backbone, as many side by side as its device takes.

use std::{
    collections::VecDeque,
    fmt::Display,
    ops::Range,
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, Scope},
};

use anyhow::{Context as _, Result};
use backbone::{Backbone, BackboneError, FeatureSink};
use sources::Source;

use crate::out_of_memory::says_out_of_memory;

/// A batch on its way through the network: `T` says what it belongs to.
pub(crate) struct Passing<T, S> {
    pub(crate) of: T,
    /// (224, 224, 1 or 3) each
    pub(crate) images: Vec<Vec<f32>>,
    /// Room for the wanted maps, one sink for each image.
    pub(crate) maps: Vec<(Source, Vec<S>)>,
}

/// Threads that have the backbone compute one batch after the other. Batches come back in the order in which they went.
pub(crate) struct Passes<T, S> {
    lanes: VecDeque<Lane<T, S>>,
    /// How many batches are on their way, in the first lanes.
    on_their_way: usize,
}

struct Lane<T, S> {
    to_compute: SyncSender<Passing<T, S>>,
    computed: Receiver<Result<Passing<T, S>, BackboneError>>,
}

impl<T: Send, S: FeatureSink> Passes<T, S> {
    /// Starts `lanes` threads. They have the backbone compute `images_at_once` at most, which becomes less where that is too much.
    pub(crate) fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        backbone: &'env Backbone,
        lanes: usize,
        images_at_once: &'env AtomicUsize,
    ) -> Result<Self>
    where
        T: 'scope,
        S: 'scope,
    {
        let lane = |_| {
            let (to_compute, given) = sync_channel::<Passing<T, S>>(1);
            let (done, computed) = sync_channel(1);
            let compute = move || {
                for mut passing in given {
                    let Passing { images, maps, .. } = &mut passing;
                    let passed = in_parts(images.len(), images_at_once, |part| {
                        let mut sinks: Vec<(Source, Vec<&mut S>)> = Vec::with_capacity(maps.len());
                        for (source, all) in maps.iter_mut() {
                            sinks.push((*source, all[part.clone()].iter_mut().collect()));
                        }
                        backbone.run(&images[part.clone()], &mut sinks)
                    });
                    if done.send(passed.map(|()| passing)).is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new().spawn_scoped(scope, compute)?;
            Ok(Lane { to_compute, computed })
        };
        let lanes = (0..lanes).map(lane).collect::<Result<_>>()?;
        Ok(Self { lanes, on_their_way: 0 })
    }

    /// Whether a batch must come back before another one goes.
    pub(crate) fn are_full(&self) -> bool {
        self.on_their_way == self.lanes.len()
    }

    /// Sends a batch.
    ///
    /// # Panics
    /// If they are full.
    pub(crate) fn send(&mut self, passing: Passing<T, S>) -> Result<()> {
        assert!(!self.are_full(), "a batch comes back first");
        let lane = &self.lanes[self.on_their_way];
        lane.to_compute.send(passing).ok().context("a computing thread has stopped")?;
        self.on_their_way += 1;
        Ok(())
    }

    /// The batch that went first; none if there is none on its way.
    pub(crate) fn take(&mut self) -> Result<Option<Passing<T, S>>> {
        if self.on_their_way == 0 {
            return Ok(None);
        }
        let passed = self.lanes[0].computed.recv().context("a computing thread has panicked")?;
        self.lanes.rotate_left(1);
        self.on_their_way -= 1;
        Ok(Some(passed?))
    }
}

/// Has `run` go over `count` images, `at_once` at most. If it has no memory for so many, `at_once` becomes half of that, for all that
/// come after, too.
fn in_parts<E: Display>(
    count: usize,
    at_once: &AtomicUsize,
    mut run: impl FnMut(Range<usize>) -> Result<(), E>,
) -> Result<(), E> {
    let mut begin = 0;
    while begin < count {
        let part = begin..count.min(begin.saturating_add(at_once.load(Relaxed)));
        match run(part.clone()) {
            Ok(()) => begin = part.end,
            Err(error) if part.len() > 1 && says_out_of_memory(&error) => {
                let fewer = part.len() / 2;
                // Two that fail at the same time halve it once.
                if at_once.fetch_min(fewer, Relaxed) > fewer {
                    tracing::warn!("no memory for {} images at once: {fewer} from now on", part.len());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use backbone::{Engine, Weights};
    use candle_core::Device;

    use super::*;

    /// Keeps the map.
    struct Kept(Vec<f32>);

    impl FeatureSink for Kept {
        fn take<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
            self.0 = rows.flatten().copied().collect();
        }
    }

    #[test]
    fn batches_come_back_in_their_order_whoever_computes_them() {
        let Some(weights) = testdata::real_weights() else { return };
        let weights = Weights::read(&weights).unwrap();
        let backbone = Backbone::new(&weights, Engine::Candle, &Device::Cpu).unwrap();
        let image =
            |number: usize| (0..224 * 224).map(|at| ((at * number) as f32 * 0.01).sin().abs()).collect::<Vec<f32>>();
        // The first takes longest.
        let batches: Vec<Vec<Vec<f32>>> =
            [3, 1, 2, 1, 1].iter().map(|count| (1..=*count).map(image).collect()).collect();
        for (lanes, at_once) in [(1, usize::MAX), (3, usize::MAX), (2, 1)] {
            let at_once = AtomicUsize::new(at_once);
            thread::scope(|scope| {
                let mut passes: Passes<usize, Kept> = Passes::start(scope, &backbone, lanes, &at_once).unwrap();
                let (mut next, mut back) = (batches.iter().enumerate(), 0);
                loop {
                    let sent = next.next();
                    if sent.is_none() || passes.are_full() {
                        let Some(Passing { of, images, maps }) = passes.take().unwrap() else { break };
                        assert_eq!(of, back);
                        let expected = backbone.feature_maps(&images, &[Source::Fm4]).unwrap();
                        assert!(maps[0].1.iter().flat_map(|kept| &kept.0).eq(&expected.maps[0].1));
                        back += 1;
                    }
                    if let Some((of, images)) = sent {
                        let room = images.iter().map(|_| Kept(Vec::new())).collect();
                        passes.send(Passing { of, images: images.clone(), maps: vec![(Source::Fm4, room)] }).unwrap();
                    }
                }
                assert_eq!(back, batches.len());
            });
        }
    }

    #[test]
    fn what_is_too_much_at_once_is_halved_until_it_fits() {
        let at_once = AtomicUsize::new(usize::MAX);
        for (count, expected) in [(10, [0..2, 2..4, 4..6, 6..8, 8..10].to_vec()), (3, [0..2, 2..3].to_vec())] {
            let mut parts = Vec::new();
            let run = |part: Range<usize>| {
                if part.len() > 2 {
                    return Err("out of memory");
                }
                parts.push(part);
                Ok(())
            };
            in_parts(count, &at_once, run).unwrap();
            assert_eq!(parts, expected);
        }
        // 10, 5, 2.
        assert_eq!(at_once.load(Relaxed), 2);
        assert_eq!(in_parts(4, &at_once, |_| Err("out of memory")), Err("out of memory"), "not even one");
        assert_eq!(in_parts(4, &AtomicUsize::new(4), |_| Err("broken")), Err("broken"));
    }
}
