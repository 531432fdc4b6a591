use std::{
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe},
    sync::Once,
    time::{Duration, Instant},
};

use crate::{Target, memory::measured};

/// No parser may take longer over an input of a few KB.
pub const LONGEST: Duration = Duration::from_secs(2);

/// No parser may hold more memory at once, or ask for more in one piece.
pub const MOST_BYTES: usize = 256 << 20;

/// How a case failed.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The same for all cases that fail alike: where the panic was, or which limit was passed.
    pub(crate) place: String,
    /// What was said.
    pub(crate) message: String,
}

thread_local! {
    /// Whether panics of this thread are a case's, to be kept instead of shown.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<Option<Fault>> = const { RefCell::new(None) };
}

/// Gives `input` to the parser of `target`; none if all is well.
pub(crate) fn fault(target: &Target, input: &[u8]) -> Option<Fault> {
    keep_panics_of_cases();
    AT_WORK.set(true);
    let start = Instant::now();
    let (outcome, bytes) = measured(|| panic::catch_unwind(AssertUnwindSafe(|| target.parse(input))));
    let elapsed = start.elapsed();
    AT_WORK.set(false);
    let panicked = LAST_PANIC.take();
    let of = |place: &str, message: String| Some(Fault { place: place.to_owned(), message });
    match outcome {
        Err(_) => panicked.or_else(|| of("a panic", "of unknown place".to_owned())),
        Ok(_) if bytes > MOST_BYTES => of("memory", format!("{bytes} bytes, expected at most {MOST_BYTES}")),
        Ok(_) if elapsed > LONGEST => of("time", format!("{elapsed:?}, expected at most {LONGEST:?}")),
        Ok(_) => None,
    }
}

/// Silences the panics of cases, once and for the whole process; all others are shown as before.
fn keep_panics_of_cases() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let shown = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !AT_WORK.get() {
                return shown(info);
            }
            let place = info.location().map_or_else(|| "a panic".to_owned(), ToString::to_string);
            let message = info.payload_as_str().unwrap_or("no message").to_owned();
            LAST_PANIC.set(Some(Fault { place, message }));
        }));
    });
}
