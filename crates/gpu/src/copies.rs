//! Copies between the processor's memory and a machine's, over a bus that reads and writes by itself: while it moves one part,
//! the processor fills or empties another.

use std::{
    fmt,
    ops::{DerefMut, Range},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rayon::prelude::*;

use crate::GpuError;

/// What is staged at a time. Long enough that starting a copy does not count, short enough for the second-level caches of a
/// dozen processors together.
const BUFFER_BYTES: usize = 16 << 20;

/// The longest that is copied without waiting.
pub(crate) const SLOT_BYTES: usize = 1 << 16;

/// As many may be on their way.
const SLOTS: usize = 32;

/// Moves bytes beside the processor. What was started first is done first.
pub(crate) trait Bus {
    /// The processor's memory that the bus reaches.
    type Pinned: DerefMut<Target = [u8]> + Send;
    /// When all has been done that was started before.
    type Moment: Send;

    fn pinned(&self, bytes: usize) -> Result<Self::Pinned, GpuError>;

    /// # Safety
    /// There are as many bytes at `to`, and `from` stays as it is until they have been copied.
    unsafe fn start_write(&self, to: u64, from: &[u8]) -> Result<(), GpuError>;

    /// # Safety
    /// There are as many bytes at `from`, and `to` is not touched until they have been copied.
    unsafe fn start_read(&self, from: u64, to: &mut [u8]) -> Result<(), GpuError>;

    fn moment(&self) -> Result<Self::Moment, GpuError>;

    fn wait(&self, moment: &Self::Moment) -> Result<(), GpuError>;
}

/// A bus, two buffers that it reaches, and slots for what is short.
pub(crate) struct Copies<B: Bus> {
    pub(crate) bus: B,
    buffers: Mutex<[Buffer<B>; 2]>,
    slots: Mutex<Slots<B>>,
}

/// Slots are taken in turn: by the time it is the first one's again, it has been copied.
struct Slots<B: Bus> {
    memory: Option<B::Pinned>,
    busy: [Option<B::Moment>; SLOTS],
    next: usize,
}

/// The memory, once it is needed, and until when the bus uses it.
struct Buffer<B: Bus> {
    memory: Option<B::Pinned>,
    busy: Option<B::Moment>,
}

impl<B: Bus> Buffer<B> {
    const fn new() -> Self {
        Self { memory: None, busy: None }
    }

    fn is_free(&mut self, bus: &B) -> Result<(), GpuError> {
        if let Some(moment) = &self.busy {
            bus.wait(moment)?;
            self.busy = None;
        }
        Ok(())
    }

    /// Its first `bytes`, which the bus has left alone.
    fn room(&mut self, bus: &B, bytes: usize) -> Result<&mut [u8], GpuError> {
        self.is_free(bus)?;
        let memory = match self.memory.take() {
            Some(memory) if memory.len() >= bytes => memory,
            _ => bus.pinned(bytes.max(BUFFER_BYTES))?,
        };
        Ok(&mut self.memory.insert(memory)[..bytes])
    }
}

impl<B: Bus> Copies<B> {
    pub(crate) const fn new(bus: B) -> Self {
        let slots = Slots { memory: None, busy: [const { None }; SLOTS], next: 0 };
        Self { bus, buffers: Mutex::new([Buffer::new(), Buffer::new()]), slots: Mutex::new(slots) }
    }

    /// Copies `from`, of at most [`SLOT_BYTES`], to `to`, before anything that is started behind it. Nobody waits for it.
    ///
    /// # Safety
    /// There is as much memory at `to`.
    pub(crate) unsafe fn post(&self, to: u64, from: &[u8]) -> Result<(), GpuError> {
        let Slots { memory, busy, next } = &mut *self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = *next % SLOTS;
        if let Some(moment) = busy[slot].take() {
            self.bus.wait(&moment)?;
        }
        let memory = match memory {
            Some(memory) => memory,
            none => none.insert(self.bus.pinned(SLOTS * SLOT_BYTES)?),
        };
        let staged = &mut memory[slot * SLOT_BYTES..][..from.len()];
        staged.copy_from_slice(from);
        *next += 1;
        // SAFETY: nothing touches the slot before its moment has come.
        unsafe { self.bus.start_write(to, staged) }?;
        busy[slot] = Some(self.bus.moment()?);
        Ok(())
    }

    /// Has `fill` put down `parts` parts of `part_bytes`, some at a time, and copies them to `to` and behind.
    ///
    /// # Safety
    /// There is as much memory at `to`.
    pub(crate) unsafe fn write(
        &self,
        to: u64,
        part_bytes: usize,
        parts: usize,
        mut fill: impl FnMut(Range<usize>, &mut [u8]),
    ) -> Result<(), GpuError> {
        let mut buffers = self.buffers();
        for (turn, range) in ranges(part_bytes, parts).enumerate() {
            let buffer = &mut buffers[turn % 2];
            let bytes = range.len() * part_bytes;
            let room = buffer.room(&self.bus, bytes)?;
            fill(range.clone(), room);
            // SAFETY: nothing touches the buffer before its moment has come.
            unsafe { self.bus.start_write(to + (range.start * part_bytes) as u64, room) }?;
            buffer.busy = Some(self.bus.moment()?);
        }
        buffers.iter_mut().try_for_each(|buffer| buffer.is_free(&self.bus))
    }

    /// Copies `parts` parts of `part_bytes` from `from` and behind, and hands them to `take`, some at a time.
    ///
    /// # Safety
    /// There is as much memory at `from`.
    pub(crate) unsafe fn read(
        &self,
        from: u64,
        part_bytes: usize,
        parts: usize,
        mut take: impl FnMut(Range<usize>, &[u8]),
    ) -> Result<(), GpuError> {
        let mut buffers = self.buffers();
        let mut started: Option<(usize, Range<usize>)> = None;
        for (turn, range) in ranges(part_bytes, parts).enumerate() {
            let buffer = &mut buffers[turn % 2];
            let room = buffer.room(&self.bus, range.len() * part_bytes)?;
            // SAFETY: nothing touches the buffer before its moment has come.
            unsafe { self.bus.start_read(from + (range.start * part_bytes) as u64, room) }?;
            buffer.busy = Some(self.bus.moment()?);
            if let Some((turn, range)) = started.replace((turn, range)) {
                let bytes = range.len() * part_bytes;
                take(range, buffers[turn % 2].room(&self.bus, bytes)?);
            }
        }
        if let Some((turn, range)) = started {
            let bytes = range.len() * part_bytes;
            take(range, buffers[turn % 2].room(&self.bus, bytes)?);
        }
        Ok(())
    }

    fn buffers(&self) -> MutexGuard<'_, [Buffer<B>; 2]> {
        // A panic elsewhere leaves buffers that know until when they are used.
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts that are staged together.
fn ranges(part_bytes: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    let together = (BUFFER_BYTES / part_bytes.max(1)).max(1);
    (0..parts).step_by(together).map(move |begin| begin..(begin + together).min(parts))
}

/// Copies all of `from` to `to`, which is as long: one thread alone is slower than the bus.
pub(crate) fn copy(from: &[u8], to: &mut [u8]) {
    const CHUNK_BYTES: usize = 1 << 20;
    to.par_chunks_mut(CHUNK_BYTES).zip(from.par_chunks(CHUNK_BYTES)).for_each(|(to, from)| to.copy_from_slice(from));
}

impl<B: Bus> fmt::Debug for Copies<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("copies by way of two buffers")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A bus that moves nothing before it must, so that what is touched too early shows.
    #[derive(Default)]
    struct Lazy {
        started: RefCell<Vec<(Move, usize)>>,
        done: Cell<usize>,
        most_waiting: Cell<usize>,
    }

    /// To or from a buffer of the processor.
    enum Move {
        Write { to: u64, from: *const u8 },
        Read { from: u64, to: *mut u8 },
    }

    // SAFETY: for the test's one thread.
    unsafe impl Send for Move {}

    impl Lazy {
        fn start(&self, order: Move, bytes: usize) {
            let mut started = self.started.borrow_mut();
            started.push((order, bytes));
            self.most_waiting.set(self.most_waiting.get().max(started.len() - self.done.get()));
        }
    }

    impl Bus for Lazy {
        type Pinned = Box<[u8]>;
        type Moment = usize;

        fn pinned(&self, bytes: usize) -> Result<Box<[u8]>, GpuError> {
            Ok(vec![0xEE; bytes].into_boxed_slice())
        }

        unsafe fn start_write(&self, to: u64, from: &[u8]) -> Result<(), GpuError> {
            self.start(Move::Write { to, from: from.as_ptr() }, from.len());
            Ok(())
        }

        unsafe fn start_read(&self, from: u64, to: &mut [u8]) -> Result<(), GpuError> {
            self.start(Move::Read { from, to: to.as_mut_ptr() }, to.len());
            Ok(())
        }

        fn moment(&self) -> Result<usize, GpuError> {
            Ok(self.started.borrow().len())
        }

        fn wait(&self, moment: &usize) -> Result<(), GpuError> {
            for (order, bytes) in &self.started.borrow()[self.done.get()..(*moment).max(self.done.get())] {
                match order {
                    // SAFETY: the test's memory and the buffers live.
                    Move::Write { to, from } => unsafe { std::ptr::copy(*from, *to as *mut u8, *bytes) },
                    // SAFETY: as above.
                    Move::Read { from, to } => unsafe { std::ptr::copy(*from as *const u8, *to, *bytes) },
                }
            }
            self.done.set(self.done.get().max(*moment));
            Ok(())
        }
    }

    #[test]
    fn parts_come_through_whole_while_others_are_on_their_way() {
        let cases =
            [(1, 0), (1, 1), (7, 100), (1, 3 * BUFFER_BYTES + 5), (BUFFER_BYTES / 3 + 1, 8), (BUFFER_BYTES + 9, 3)];
        for (part_bytes, parts) in cases {
            let values: Vec<u8> = (0..part_bytes * parts).map(|at| ((at as u64 * 2_654_435_761) >> 13) as u8).collect();
            let mut there = vec![0_u8; values.len()];
            let copies = Copies::new(Lazy::default());
            let part = |range: &Range<usize>| range.start * part_bytes..range.end * part_bytes;
            // Twice, with the buffers that are there.
            for _ in 0..2 {
                there.fill(0);
                let fill = |range: Range<usize>, to: &mut [u8]| copy(&values[part(&range)], to);
                // SAFETY: `there` is as long.
                unsafe { copies.write(there.as_mut_ptr() as u64, part_bytes, parts, fill) }.unwrap();
                assert!(there == values, "{parts} parts of {part_bytes} bytes, written");
                let (mut back, mut next) = (vec![0_u8; values.len()], 0);
                let take = |range: Range<usize>, from: &[u8]| {
                    assert_eq!(range.start, next, "in their order");
                    next = range.end;
                    copy(from, &mut back[part(&range)]);
                };
                // SAFETY: as above.
                unsafe { copies.read(there.as_ptr() as u64, part_bytes, parts, take) }.unwrap();
                assert!(back == values && next == parts, "{parts} parts of {part_bytes} bytes, read");
            }
            let several = part_bytes * parts > BUFFER_BYTES;
            assert_eq!(copies.bus.most_waiting.get(), if several { 2 } else { usize::from(parts > 0) });
        }
    }

    #[test]
    fn what_is_posted_arrives_in_its_order_though_nobody_waits() {
        let copies = Copies::new(Lazy::default());
        let mut there = vec![0_u8; SLOT_BYTES + 7];
        // Each overwrites a part of those before; more than there are slots, so that some are waited for.
        let mut expected = there.clone();
        for number in 0..3 * SLOTS {
            let (at, length) = (number * 37 % 1000, if number % 5 == 0 { SLOT_BYTES } else { number });
            let at = at.min(there.len() - length);
            let values = vec![number as u8; length];
            expected[at..at + length].copy_from_slice(&values);
            // SAFETY: `there` is as long.
            unsafe { copies.post(there.as_mut_ptr() as u64 + at as u64, &values) }.unwrap();
        }
        assert_eq!(copies.bus.most_waiting.get(), SLOTS);
        copies.bus.wait(&copies.bus.moment().unwrap()).unwrap();
        assert!(there == expected);
    }

    #[test]
    fn what_was_given_up_half_way_disturbs_nobody() {
        let (values, mut there) = (vec![7_u8; 2 * BUFFER_BYTES], vec![0_u8; 2 * BUFFER_BYTES]);
        let copies = Copies::new(Lazy::default());
        let give_up = std::panic::AssertUnwindSafe(|| {
            // SAFETY: `there` is as long.
            let _ = unsafe {
                copies.read(there.as_ptr() as u64, 1, there.len(), |range, _| assert!(range.start > 0, "given up"))
            };
        });
        assert!(std::panic::catch_unwind(give_up).is_err());
        // SAFETY: `there` is as long.
        unsafe {
            copies.write(there.as_mut_ptr() as u64, 1, values.len(), |range, to| to.copy_from_slice(&values[range]))
        }
        .unwrap();
        assert!(there == values);
    }
}
