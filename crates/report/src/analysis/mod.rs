//! What the runs say about the paper's conclusions.

mod agreement;
mod claims;
mod comparison;
mod effects;
mod spread;
mod variants;

pub use agreement::{Agreement, agreement};
pub(crate) use claims::p_value;
pub use claims::{Analysis, Claim, Verdict};
pub use comparison::{Comparison, Discordant};
pub use effects::{Effect, weakest_input};
pub use spread::Spread;
pub use variants::{Change, Variant, VariantFigures};

/// Differences with a smaller adjusted p are told apart.
pub const ALPHA: f64 = 0.05;
