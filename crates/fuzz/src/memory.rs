use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static METER: Cell<Meter> = const { Cell::new(Meter { held: 0, peak: 0, largest: 0 }) };
}

/// What a thread has asked for since its last [`measured`] began.
#[derive(Clone, Copy)]
struct Meter {
    /// Bytes asked for and not given back; below zero where others' memory is freed.
    held: isize,
    /// The most that was held at once.
    peak: isize,
    /// The largest piece.
    largest: usize,
}

/// The system's memory, metered for each thread, for a test program's `#[global_allocator]`.
#[derive(Debug)]
pub struct Metered;

/// Calls `work` and tells the most bytes that its thread held at once meanwhile, or asked for in one piece, whichever is
/// more; 0 if the program's allocator is not [`Metered`].
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    METER.set(Meter { held: 0, peak: 0, largest: 0 });
    let result = work();
    let Meter { peak, largest, .. } = METER.get();
    (result, largest.max(peak.unsigned_abs()))
}

fn count(asked: usize, given_back: usize) {
    // A thread that ends may free memory when its meter is gone.
    let _ = METER.try_with(|meter| {
        let Meter { held, peak, largest } = meter.get();
        let held = held.saturating_add_unsigned(asked).saturating_sub_unsigned(given_back);
        meter.set(Meter { held, peak: peak.max(held), largest: largest.max(asked) });
    });
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Metered {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        count(new_bytes, layout.size());
        // SAFETY: the caller's contract.
        unsafe { System.realloc(piece, layout, new_bytes) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(piece, layout) }
    }
}
