use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Warns, unless this has been said before: a command looks at the same file several times.
pub fn warn_once(message: String) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    // Saying something twice does no harm.
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.contains(&message) {
        tracing::warn!("{message}");
        said.insert(message);
    }
}
