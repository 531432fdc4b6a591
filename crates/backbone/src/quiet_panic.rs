//! Panics of foreign code that are errors to us.

use std::{
    cell::Cell,
    panic::{self, UnwindSafe},
    sync::Once,
};

thread_local! {
    /// Whether a panic of this thread will be caught and is nothing to tell.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives; none if it panics, of which nothing is printed. Panics of other threads are told as ever.
pub(crate) fn catch<T>(work: impl FnOnce() -> T + UnwindSafe) -> Option<T> {
    static TELL_OTHERS_ONLY: Once = Once::new();
    TELL_OTHERS_ONLY.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_CAUGHT.get() {
                tell(panic);
            }
        }));
    });
    let was_caught = IS_CAUGHT.replace(true);
    let result = panic::catch_unwind(work);
    IS_CAUGHT.set(was_caught);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_no_result() {
        assert_eq!(catch(|| 1), Some(1));
        assert_eq!(catch(|| panic!("foreign")), None::<i32>);
        assert!(!IS_CAUGHT.get());
    }
}
