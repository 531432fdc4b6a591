//! Values of a configuration that are one of a few words, and the nearest word to a mistyped one.

mod choice;
mod nearest;

pub use choice::ParseChoiceError;
pub use nearest::nearest;
