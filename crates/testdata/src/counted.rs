use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Bytes asked for so far.
static ASKED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The system's memory, counted, for a test program's `#[global_allocator]`.
#[derive(Debug)]
pub struct Counted;

/// Bytes that the program has asked for so far, if its allocator is [`Counted`].
pub fn asked_bytes() -> usize {
    ASKED_BYTES.load(Ordering::Relaxed)
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(piece, layout) }
    }
}
